"""Through an HTTP proxy: link, evidence and enrolment, with a real proxy that also fails in every way."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stanch.agent import gateway as gateway_module
from stanch.agent import link as link_module
from stanch.agent.enroll import enroll
from stanch.agent.gateway import Gateway
from stanch.agent.identity import Identity
from stanch.agent.link import Link
from stanch.agent.proxy import DEFAULT_PORT, Proxy, configured_proxy
from stanch.agent.resolve import AddressBook
from stanch.core.errors import Invalid, StanchError, Unavailable, VerificationFailed
from stanch.core.frames import Hello, Inventory
from stanch.core.types import seconds
from tests.agent.test_link import About, Outbox
from tests.fakes.gateway import ENDPOINT, FakeGateway, gateway
from tests.fakes.proxy import FakeProxy, connect_proxy
from tests.fakes.waiting import eventually

CA = "/v1/ca"
SECRET = "s3cret"
REFUSALS = {
    "407": (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "HTTP status 407"),
    "502": (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "HTTP status 502"),
    "403": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTP status 403"),
    "garbage": (b"\x00\xff what?\r\n\r\n", "does not answer"),
    "endless": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "does not answer"),
    "closed": (b"", "does not answer"),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        one.tokens = {"good"}
        yield one


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    async with connect_proxy() as one:
        yield one


def with_secret(proxy: FakeProxy) -> str:
    return proxy.url.replace("http://", f"http://agent:{SECRET}@")


def book_of(server: FakeGateway, tmp_path: Path, url: str) -> tuple[Identity, AddressBook]:
    identity = server.identity(tmp_path / "state")
    return identity, AddressBook(tmp_path / "state/addresses.json", urls=identity.urls, proxy=Proxy.parse(url))


@asynccontextmanager
async def linked(server: FakeGateway, tmp_path: Path, url: str) -> AsyncIterator[Link]:
    identity, book = book_of(server, tmp_path, url)
    link = Link(tls=identity.tls(tmp_path / "state"), book=book, outbox=Outbox(), jitter=lambda: 0.0)

    async def accept(_envelope: str, *, nonce: str) -> None: ...

    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.run(about=About(), accept=accept))
        try:
            yield link
        finally:
            task.cancel()


def way(server: FakeGateway, tmp_path: Path, url: str) -> Gateway:
    identity, book = book_of(server, tmp_path, url)
    return Gateway(tls=identity.tls(tmp_path / "state"), targets=book.targets)


# --- through the tunnel ----------------------------------------------------------------------------------------------


async def test_the_link_goes_through_the_proxy(server, proxy, tmp_path):
    """Hello and confirmation reach the server through tunnels, and the proxy sees no word of them."""
    async with linked(server, tmp_path, with_secret(proxy)) as link:
        await server.until(lambda: server.hellos == 1)
        assert await link.confirm(within=seconds(20))
        await eventually(lambda: link.status().server is not None)
        assert (link.status().server or "").endswith(f"(through 127.0.0.1:{proxy.port})")
        assert [str(one.port) for one in link.proxies()] == [str(proxy.port)]
        assert link.peers() == ()
    assert len(proxy.asked) == 2
    assert server.asked == 1
    assert all(head.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n") for head in proxy.asked)
    assert len(proxy.seen) > 1000
    plain = [b"web-01", b"hello", b"Upgrade", b"/v1/link", ENDPOINT.encode(), SECRET.encode()]
    assert not [word for word in plain if word in proxy.seen]


async def test_only_the_proxy_gets_the_password(server, proxy, tmp_path):
    """In the request for the tunnel, and nowhere else: not in what the agent says, shows or logs."""
    with capture_logs() as logs:
        async with linked(server, tmp_path, with_secret(proxy)) as link:
            await server.until(lambda: server.hellos == 1)
            told = b64encode(f"agent:{SECRET}".encode()).decode()
            assert f"Proxy-Authorization: Basic {told}\r\n" in proxy.asked[0]
            shown = f"{logs} {link.status()} {server.of(Hello)} {link.proxies()}"
    assert SECRET not in shown
    assert told not in shown


async def test_evidence_goes_through_the_proxy(server, proxy, tmp_path):
    """Requests share a tunnel; the answer is that of the server."""
    async with way(server, tmp_path, proxy.url) as gate:
        assert await gate.request("GET", CA) == server.authority.pem.encode()
        assert await gate.request("GET", CA) == server.authority.pem.encode()
    assert len(proxy.asked) == 1
    assert server.authority.pem.encode()[100:200] not in proxy.seen


async def test_a_proxy_cannot_pass_for_the_server(server, proxy, tmp_path):
    """A proxy that ends TLS itself, with a CA of its own, is recognised and told nothing."""
    async with gateway(tmp_path) as impostor:
        identity, book = book_of(server, tmp_path, proxy.url)
        server.port = impostor.port
        _, elsewhere = book_of(server, tmp_path, proxy.url)
        assert elsewhere.targets() != book.targets()
        async with Gateway(tls=identity.tls(tmp_path / "state"), targets=elsewhere.targets) as gate:
            with pytest.raises(Unavailable, match="did not prove who it is"):
                await gate.request("GET", CA)


async def test_an_enrolment_through_the_proxy_is_remembered(server, proxy, tmp_path):
    """Both of its connections go through; the identity keeps the way, and does not show the password."""
    url = with_secret(proxy)
    state = tmp_path / "new"
    identity = await enroll(
        server=server.url,
        token="good",
        ca_pin=server.authority.pin,
        state=state,
        proxy=url,
        inventory=lambda: Inventory(hostname="web-01"),
    )
    assert len(proxy.asked) == 2
    assert b"good" not in proxy.seen
    assert Identity.load(state).proxy == url
    assert SECRET not in repr(identity)
    assert configured_proxy(tmp_path / "none.toml", identity.proxy) == Proxy.parse(url)


async def test_a_wrong_pin_is_found_out_through_the_proxy_too(server, proxy, tmp_path):
    """The token is not sent."""
    with pytest.raises(VerificationFailed, match="not the server that you mean"):
        await enroll(server=server.url, token="good", ca_pin="0" * 64, state=tmp_path / "new", proxy=proxy.url)
    assert server.tokens == {"good"}


@pytest.mark.parametrize("module", [gateway_module, link_module])
async def test_sockets_to_the_proxy_are_marked(server, proxy, tmp_path, monkeypatch, module):
    """The firewall of an isolated endpoint lets only the agent's own connections to the proxy."""
    marked: list[object] = []
    monkeypatch.setattr(gateway_module, "mark", marked.append)
    if module is link_module:
        async with linked(server, tmp_path, proxy.url):
            await server.until(lambda: server.hellos == 1)
    else:
        async with way(server, tmp_path, proxy.url) as gate:
            await gate.request("GET", CA)
    assert len(marked) == len(proxy.asked) == 1


# --- a proxy that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_proxy_that_opens_no_tunnel_is_a_clear_error(server, proxy, tmp_path, refusal):
    """Its answer is told, the password is not, and the link tries again after its usual wait, not after minutes."""
    proxy.answer, told = REFUSALS[refusal]
    async with way(server, tmp_path, with_secret(proxy)) as gate:
        with pytest.raises(Unavailable) as caught:
            await gate.request("GET", CA)
    assert told in str(caught.value)
    assert SECRET not in f"{caught.value!r} {caught.value.body()} {caught.value.__cause__!r}"
    async with linked(server, tmp_path, with_secret(proxy)) as link:
        await proxy.until_asked(3)
        await eventually(lambda: told in (link.status().error or ""))
        proxy.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        await server.until(lambda: server.hellos == 1)


async def test_a_proxy_that_wants_a_password_is_given_the_hint(server, proxy, tmp_path):
    """Status 407 says what to do."""
    proxy.answer = REFUSALS["407"][0]
    async with way(server, tmp_path, proxy.url) as gate:
        with pytest.raises(Unavailable) as caught:
            await gate.request("GET", CA)
    assert "NAME:PASSWORD" in (caught.value.hint or "")


async def test_a_proxy_that_hangs_is_given_up(server, proxy, tmp_path, monkeypatch):
    """Neither the link nor evidence waits for ever for a tunnel."""
    short = gateway_module._TUNNELLED.__class__(total=None, connect=0.1, sock_connect=10.0)
    monkeypatch.setattr(gateway_module, "_TUNNELLED", short)
    monkeypatch.setattr(link_module, "_TIMEOUT", short)
    proxy.answer = None
    async with way(server, tmp_path, proxy.url) as gate:
        with pytest.raises(Unavailable, match="does not answer through the proxy"):
            await gate.request("GET", CA)
    async with linked(server, tmp_path, proxy.url) as link:
        await proxy.until_asked(3)
        await eventually(lambda: "does not answer" in (link.status().error or ""))


async def test_a_proxy_that_is_not_there_is_named(server, tmp_path):
    """The error says that it is the proxy, and which."""
    async with way(server, tmp_path, f"http://agent:{SECRET}@127.0.0.1:1") as gate:
        with pytest.raises(Unavailable, match=r"The proxy 127\.0\.0\.1:1 does not answer") as caught:
            await gate.request("GET", CA)
    assert SECRET not in f"{caught.value!r} {caught.value.body()}"


# --- which proxy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown", "authorization"),
    [
        ("http://10.0.0.3:3128", "10.0.0.3:3128", None),
        ("http://proxy.test/", f"proxy.test:{DEFAULT_PORT}", None),
        ("http://[2001:db8::1]:1", "[2001:db8::1]:1", None),
        ("http://a:b%3Ac@h:1", "h:1", "Basic " + b64encode(b"a:b:c").decode()),
        ("http://a@h:1", "h:1", "Basic " + b64encode(b"a:").decode()),
    ],
)
def test_urls_of_proxies(url, shown, authorization):
    """Host, port and credentials; its text has no credentials."""
    proxy = Proxy.parse(url)
    assert (str(proxy), proxy.authorization) == (shown, authorization)


@pytest.mark.parametrize("url", ["https://u:s3cret@h:1", "socks5://u:s3cret@h:1", "socks://h", "ftp://u:s3cret@h"])
def test_other_kinds_of_proxy_are_refused(url):
    """With a clear error, which does not repeat the password."""
    with pytest.raises(Invalid, match="kind of proxy is not supported") as caught:
        Proxy.parse(url)
    assert SECRET not in f"{caught.value!r} {caught.value.body()}"


@pytest.mark.parametrize(
    "url", ["", "h:1", "http://", "http://u:s3cret@h:x", "http://u:s3cret@h/p", "http://h?u=s3cret"]
)
def test_what_is_no_url_of_a_proxy_is_refused(url):
    """Without repeating it: it may hold a password."""
    with pytest.raises(Invalid) as caught:
        Proxy.parse(url)
    assert SECRET not in f"{caught.value!r} {caught.value.body()}"


@given(st.text(max_size=60) | st.text(max_size=40).map("http://{}".format))
def test_no_text_breaks_the_parser(text):
    """Whatever comes is a proxy or Invalid."""
    try:
        proxy = Proxy.parse(text)
    except Invalid:
        return
    assert proxy.host
    assert 0 < proxy.port < 65536


def written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_configuration_wins_over_the_enrolment(tmp_path):
    """The owner of the machine may move the agent to another proxy."""
    config = written(tmp_path, '[link]\nproxy = "http://new:1"\n[actions]\nforbid = []\n')
    assert str(configured_proxy(config, "http://old:1")) == "new:1"
    assert str(configured_proxy(written(tmp_path, "[actions]\n"), "http://old:1")) == "old:1"
    assert configured_proxy(written(tmp_path, "[link]\n"), None) is None


@pytest.mark.parametrize("text", ["= no toml s3cret", "link = 1", '[link]\nproxy = ""'])
def test_a_configuration_without_a_proxy_leaves_that_of_the_enrolment(tmp_path, text):
    """A broken file is the local policy's to complain about; it does not cut the link."""
    with capture_logs() as logs:
        assert str(configured_proxy(written(tmp_path, text), "http://old:1")) == "old:1"
    assert SECRET not in str(logs)


def test_a_password_in_a_file_that_others_can_read_is_refused(tmp_path):
    """Without a password anybody may read the file."""
    assert configured_proxy(written(tmp_path, '[link]\nproxy = "http://h:1"', 0o644), None) is not None
    with pytest.raises(Invalid, match="others may read it") as caught:
        configured_proxy(written(tmp_path, '[link]\nproxy = "http://u:s3cret@h:1"', 0o640), None)
    assert SECRET not in f"{caught.value!r} {caught.value.body()}"


def test_a_proxy_that_is_no_text_is_refused(tmp_path):
    """A number, say."""
    with pytest.raises(StanchError, match="no text"):
        configured_proxy(written(tmp_path, "[link]\nproxy = 3128"), None)
