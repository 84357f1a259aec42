"""Where the server can be reached: from its signed word, from names, from memory."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.proxy import Proxy
from stanch.agent.resolve import MAX_TARGETS, AddressBook, LookUp, Target, split_url
from stanch.core.envelope import AddressesBody
from stanch.core.errors import Invalid
from stanch.core.network import Peer

NAME = "https://stanch.test:8444"


def finds(*addresses: str) -> LookUp:
    """A resolver that knows these."""

    async def answer(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return answer


async def knows_nothing(_host: str, _port: int) -> Sequence[str]:
    raise OSError("no such host")


def addresses(book: AddressBook) -> list[str]:
    return [one.address for one in book.targets()]


def peer(address: str, port: int = 8444) -> Peer:
    return Peer(address=ip_address(address), port=port)


async def test_names_are_looked_up_and_remembered(tmp_path):
    """An agent that was started without a name server uses what was found before."""
    first = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.1", "2001:db8::1"))
    await first.refresh()
    later = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing)
    await later.refresh()
    assert addresses(later) == addresses(first) == ["10.0.0.1", "2001:db8::1"]
    assert later.targets()[0].host == "stanch.test"


async def test_a_new_answer_replaces_the_old_one_but_not_the_live_address(tmp_path):
    """An address that the name no longer has is forgotten, unless it is the one that works."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.1", "10.0.0.2"))
    await book.refresh()
    book.prefer(book.targets()[1])
    moved = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.3"))
    await moved.refresh()
    assert addresses(moved) == ["10.0.0.2", "10.0.0.3"]


async def test_a_name_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    """An isolated endpoint has no DNS: what is remembered stays."""
    monkeypatch.setattr("stanch.agent.resolve.LOOK_UP_SECONDS", 0.01)

    async def hang(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    await AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.1")).refresh()
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=hang)
    await book.refresh()
    assert addresses(book) == ["10.0.0.1"]


async def test_the_signed_word_of_the_server_is_taken_over(tmp_path):
    """New URLs and peers replace the earlier ones, and survive a restart."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.1"))
    await book.refresh()
    await book.learn(AddressesBody(urls=("https://new.test:9000", "https://10.9.9.9:9000"), peers=(peer("10.9.9.8"),)))
    again = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing)
    assert set(addresses(again)) == {"10.9.9.9", "10.9.9.8"}


async def test_signed_peers_go_by_a_name_of_their_port(tmp_path):
    """The certificate is checked against a name of the server; against the address where no name has that port."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing)
    await book.learn(AddressesBody(urls=(NAME,), peers=(peer("10.0.0.1"), peer("10.0.0.2", 9))))
    assert {one.host for one in book.targets()} == {"stanch.test", "10.0.0.2"}


async def test_the_live_address_survives_the_signed_word(tmp_path):
    """The server may sit behind an address that it does not know itself: never saw off the branch."""
    book = AddressBook(tmp_path / "book", urls=("https://192.0.2.1:8444",), look_up=knows_nothing)
    book.prefer(book.targets()[0])
    await book.learn(AddressesBody(urls=("https://10.0.0.1:8444",)))
    assert addresses(book) == ["192.0.2.1", "10.0.0.1"]


async def test_urls_that_cannot_be_used_are_left_out(tmp_path):
    """One bad URL does not take the others with it; none but bad ones leave what was there."""
    book = AddressBook(tmp_path / "book", urls=("https://10.0.0.1:1",), look_up=knows_nothing)
    await book.learn(AddressesBody(urls=("http://10.0.0.2:1", "https://10.0.0.3:1")))
    assert addresses(book) == ["10.0.0.3"]
    await book.learn(AddressesBody(urls=("ftp://x",)))
    assert addresses(book) == ["10.0.0.3"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"urls": ["x"]}', b'{"live": ["h", 1, "no address"]}', b"\xff" * 99])
def test_a_damaged_memory_is_forgotten(tmp_path, content):
    """The identity's URLs are still there."""
    (tmp_path / "book").write_bytes(content)
    assert addresses(AddressBook(tmp_path / "book", urls=("https://10.0.0.1:1",))) == ["10.0.0.1"]


async def test_the_memory_is_bounded(tmp_path):
    """However many addresses a name has, so many are kept."""
    many = finds(*(f"10.0.{n // 250}.{n % 250}" for n in range(2000)))
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=many)
    await book.refresh()
    assert len(book.targets()) == MAX_TARGETS
    assert len(AddressBook(tmp_path / "book", urls=(NAME,)).targets()) == MAX_TARGETS


async def test_nothing_new_is_not_written(tmp_path):
    """A reconnect to the same address costs no write."""
    book = AddressBook(tmp_path / "book", urls=("https://10.0.0.1:1",), look_up=knows_nothing)
    book.prefer(book.targets()[0])
    before = (tmp_path / "book").stat().st_mtime_ns
    book.prefer(book.targets()[0])
    await book.refresh()
    assert (tmp_path / "book").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("target", "url", "authority"),
    [
        (Target("stanch.test", 8444, "10.0.0.1"), "https://10.0.0.1:8444/v1/link", "stanch.test:8444"),
        (Target("2001:db8::1", 1, "2001:db8::1"), "https://[2001:db8::1]:1/v1/link", "[2001:db8::1]:1"),
    ],
)
def test_a_target_dials_an_address_and_names_a_host(target, url, authority):
    """IPv6 literals are bracketed in URL and Host header."""
    assert (target.url("/v1/link"), target.authority) == (url, authority)


@given(st.text(max_size=60) | st.text(max_size=40).map("https://{}".format))
def test_no_text_breaks_the_url_parser(text):
    """Whatever comes is a host and a port, or Invalid."""
    try:
        host, port = split_url(text)
    except Invalid:
        return
    assert host
    assert 0 < port < 65536


def test_a_url_without_port_means_the_usual_one():
    """https is 443."""
    assert split_url("https://stanch.test") == ("stanch.test", 443)
    assert split_url("https://[2001:db8::1]:8444/") == ("2001:db8::1", 8444)


# --- what a firewall is told -----------------------------------------------------------------------------------------


async def test_a_change_is_told(tmp_path):
    """Whoever keeps the firewall hears of another address, and is left alone while only their order changes."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.1", "10.0.0.2"))
    await book.refresh()
    assert book.changed.is_set()
    book.changed.clear()
    book.prefer(book.targets()[1])
    await book.refresh()
    assert [str(one.address) for one in book.peers()] == ["10.0.0.2", "10.0.0.1"]
    assert not book.changed.is_set()
    await book.learn(AddressesBody(urls=(NAME,), peers=(peer("10.0.0.3"),)))
    assert book.changed.is_set()


async def test_a_literal_address_needs_no_names(tmp_path):
    """Only where the way is found by a name, resolvers are needed."""
    urls = ("https://10.0.0.1:1", "https://[2001:db8::1]:1")
    assert not AddressBook(tmp_path / "book", urls=urls).has_names()
    assert AddressBook(tmp_path / "book", urls=(*urls, NAME)).has_names()
    assert AddressBook(tmp_path / "book", urls=urls, proxy=PROXY).has_names()


# --- behind a proxy --------------------------------------------------------------------------------------------------

PROXY = Proxy("proxy.test", 3128)


def ways(book: AddressBook) -> list[tuple[str | None, str]]:
    return [(one.proxy_url, one.url("")) for one in book.targets()]


async def test_behind_a_proxy_its_name_is_looked_up(tmp_path):
    """The server's names are the proxy's to resolve; the firewall opens the proxy, and no direct way."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.3", "2001:db8::3"), proxy=PROXY)
    assert (book.targets(), book.proxies()) == ((), ())
    await book.refresh()
    assert ways(book) == [
        ("http://10.0.0.3:3128", NAME),
        ("http://[2001:db8::3]:3128", NAME),
    ]
    assert [one.authority for one in book.targets()] == ["stanch.test:8444"] * 2
    assert book.peers() == ()
    assert book.proxies() == (peer("10.0.0.3", 3128), peer("2001:db8::3", 3128))
    assert book.changed.is_set()


async def test_a_proxy_by_address_needs_no_look_up(tmp_path):
    """It is there at once."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing, proxy=Proxy("10.0.0.3", 8080))
    await book.refresh()
    assert ways(book) == [("http://10.0.0.3:8080", NAME)]
    assert not book.has_names()


async def test_addresses_of_the_proxy_are_remembered(tmp_path):
    """Without a name server, and with the one that worked last first; another proxy does not inherit them."""
    first = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.3", "10.0.0.4"), proxy=PROXY)
    await first.refresh()
    first.prefer(first.targets()[1])
    later = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing, proxy=PROXY)
    await later.refresh()
    assert [str(one.address) for one in later.proxies()] == ["10.0.0.4", "10.0.0.3"]
    assert first.targets()[0].proxy_address == later.targets()[0].proxy_address == "10.0.0.4"
    other = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing, proxy=Proxy("other.test", 3128))
    assert (other.targets(), other.proxies()) == ((), ())


async def test_behind_a_proxy_the_signed_addresses_come_after_the_names(tmp_path):
    """A proxy may insist on names; the addresses help where it does not know them."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.3"), proxy=PROXY)
    await book.refresh()
    await book.learn(AddressesBody(urls=(NAME,), peers=(peer("192.0.2.9"),)))
    assert [one.url("") for one in book.targets()] == [NAME, "https://192.0.2.9:8444"]
    assert {one.host for one in book.targets()} == {"stanch.test"}
    assert book.peers() == ()


async def test_what_was_found_behind_a_proxy_serves_without_it(tmp_path):
    """Taking the proxy away, or putting one there, forgets nothing."""
    direct = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("192.0.2.1"))
    await direct.refresh()
    direct.prefer(direct.targets()[0])
    proxied = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.3"), proxy=PROXY)
    await proxied.refresh()
    proxied.prefer(proxied.targets()[0])
    again = AddressBook(tmp_path / "book", urls=(NAME,), look_up=knows_nothing)
    assert addresses(again) == ["192.0.2.1"]
    assert again.peers() == (peer("192.0.2.1"),)


def test_a_damaged_address_of_the_proxy_is_forgotten(tmp_path):
    """As everything damaged in that file is."""
    (tmp_path / "book").write_text('{"urls": ["https://10.0.0.1:1"], "proxies": [["proxy.test", 3128, "x"]]}')
    assert AddressBook(tmp_path / "book", urls=(NAME,), proxy=PROXY).proxies() == ()


async def test_a_disk_that_takes_nothing_costs_nobody_the_way_to_the_server(tmp_path, monkeypatch):
    """What is known is used all the same, and written when it can be."""
    book = AddressBook(tmp_path / "book", urls=(NAME,), look_up=finds("10.0.0.1"))

    def full(_path: object, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("stanch.agent.resolve.atomic_write", full)
        await book.refresh()
        book.prefer(book.targets()[0])
        await book.learn(AddressesBody(urls=(NAME,), peers=(peer("10.0.0.9"),)))
    assert addresses(book) == ["10.0.0.1", "10.0.0.9"]
    assert book.changed.is_set()
    assert not (tmp_path / "book").exists()
    book.prefer(book.targets()[0])
    assert addresses(AddressBook(tmp_path / "book", urls=(NAME,))) == ["10.0.0.1", "10.0.0.9"]


@pytest.mark.parametrize("url", ["https://[fe80::1%eth0]:1", "https://[::1%25eth0]:1", f"https://{'a' * 254}.test"])
async def test_an_address_that_no_firewall_knows_spoils_nothing(tmp_path, url):
    """A signed URL with a zone, or longer than a name can be, is left out; what comes after it is taken over."""
    with pytest.raises(Invalid):
        split_url(url)
    book = AddressBook(tmp_path / "book", urls=(NAME,))
    await book.learn(AddressesBody(urls=(url,), peers=(peer("10.0.0.1"),)))
    await book.learn(AddressesBody(urls=(url, NAME), peers=(peer("10.0.0.2"),)))
    assert addresses(book) == ["10.0.0.2"]
    assert [one.address for one in book.peers()] == [ip_address("10.0.0.2")]


async def test_the_most_that_can_be_signed_is_remembered(tmp_path):
    """A file that is longer than what is read of it would be forgotten at the next start."""
    urls = tuple(f"https://{'a' * 240}{n:03}.test:{n + 1}" for n in range(32))
    many = [f"10.{n // 250}.0.{n % 250}" for n in range(256)]
    book = AddressBook(tmp_path / "book", urls=urls, look_up=finds(*many))
    await book.learn(AddressesBody(urls=urls, peers=tuple(peer(one, 1) for one in many)))
    await book.refresh()
    assert AddressBook(tmp_path / "book", urls=(NAME,)).targets() == book.targets()
