"""Where the server can be reached: from its signed word, from names, from memory."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.resolve import MAX_TARGETS, AddressBook, LookUp, SystemResolver, Target, split_url
from stanch.core.envelope import AddressesBody
from stanch.core.errors import Invalid
from stanch.core.host import Peer

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


async def test_the_systems_resolver_is_asked():
    """A literal address resolves to itself; what is no name has no address."""
    resolver = SystemResolver()
    assert await resolver("127.0.0.1", 1) == ["127.0.0.1"]
    with pytest.raises(OSError, match="no address"):
        await resolver("not a name..", 1)


async def test_a_resolver_that_hangs_is_asked_once(monkeypatch):
    """An outage of the name servers costs one thread, not one for each reconnect."""
    answer, asked = threading.Event(), []

    def hang(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        answer.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = SystemResolver()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver("stanch.test", 1)
    async with asyncio.TaskGroup() as group:
        last = group.create_task(resolver("stanch.test", 1))
        answer.set()
    assert (last.result(), asked) == (["10.0.0.1"], ["stanch.test"])


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
