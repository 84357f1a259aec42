"""The agent's own questions for names: what is believed, what is not, and who is asked."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import dns as own
from stanch.agent.host.dns import Client, HostNames, NoAnswer, SystemResolver, read_answer
from stanch.agent.host.mark import AGENT_MARK
from stanch.agent.host.resolvers import Resolvers
from tests.fakes.dns import FakeDns, dns_server, machine
from tests.netns import netns, wire

LOCAL = Resolvers(upstream=(ip_address("127.0.0.1"),))
RECORDS = {"a.test": ("192.0.2.1", "2001:db8::1"), "alias.test": ("alias a.test",), "empty.test": ()}


@pytest.fixture
async def server() -> AsyncIterator[FakeDns]:
    async with dns_server(RECORDS) as one:
        yield one


def client(server: FakeDns, *, try_seconds: float = 20.0) -> Client:
    return Client(port=server.port, try_seconds=try_seconds)


async def find(server: FakeDns, name: str, *, resolvers: Resolvers = LOCAL) -> list[str]:
    return [str(one) for one in await client(server).addresses(name, resolvers)]


@pytest.mark.parametrize("name", ["a.test", "A.Test", "alias.test"])
async def test_both_families_are_found(server, name):
    """A name has the addresses of IPv4 and IPv6 that the resolver tells, through aliases too."""
    assert await find(server, name) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize("name", ["empty.test", "nothing.test"])
async def test_a_name_without_an_address_is_an_answer(server, name):
    """No such name, or none of its records an address: that is known, not a failure."""
    assert await find(server, name) == []


async def test_a_long_answer_comes_by_stream(server):
    """An answer that was cut to fit a datagram is asked for again over TCP."""
    server.truncates = True
    server.records = {"long.test": tuple(f"192.0.2.{n}" for n in range(100))}
    assert len(await find(server, "long.test")) == own.MAX_ADDRESSES
    assert server.streams == 2


async def test_aliases_in_a_circle_end(server):
    """A chain of aliases that leads nowhere is no answer, and is not followed for ever."""
    server.records = {"one.test": ("alias two.test",), "two.test": ("alias one.test",)}
    with pytest.raises(NoAnswer):
        await find(server, "one.test")


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_trouble_of_the_resolver_is_no_answer(server, rcode):
    """A resolver that cannot tell has not said that there is no such name; it is asked twice."""
    server.rcode = rcode
    with pytest.raises(NoAnswer):
        await find(server, "a.test")
    assert server.asked.count("a.test A") == own.TRIES


def _forgeries(answer: dns.message.Message) -> list[bytes]:
    """Another number, another question, no answer at all, noise."""
    other = dns.message.make_response(dns.message.make_query("b.test", "A", id=answer.id))
    strange = dns.message.from_wire(answer.to_wire())
    strange.id ^= 1
    asked = dns.message.make_query(answer.question[0].name, answer.question[0].rdtype, id=answer.id)
    return [other.to_wire(), strange.to_wire(), asked.to_wire(), b"", b"\x00" * 5, b"\xff" * 600]


async def test_what_does_not_answer_the_question_is_passed_over(server):
    """Only the number and the question that were sent make an answer."""
    server.forge = _forgeries
    assert await find(server, "a.test") == ["192.0.2.1", "2001:db8::1"]


async def test_a_flood_of_strays_ends(server):
    """A resolver that sends only noise counts as silent, long before its time is over."""
    server.forge = lambda _answer: [b"noise"] * own.MAX_STRAYS
    with pytest.raises(NoAnswer):
        await find(server, "a.test")


async def test_a_silent_resolver_is_asked_last_from_then_on(server):
    """Each name does not wait for the same dead resolver again."""
    dead = ip_address("127.0.0.2")  # nobody listens there
    both = Resolvers(upstream=(dead, ip_address("127.0.0.1")))
    one = client(server)
    assert await one.addresses("a.test", both)
    assert one._silent == [dead]
    assert await one.addresses("alias.test", both)


async def test_no_answer_in_time(server):
    """A resolver that never answers is given up."""
    server.silent = True
    with pytest.raises(NoAnswer):
        await client(server, try_seconds=0.05).addresses("a.test", LOCAL)


async def test_short_names_are_looked_for_in_the_search_domains(server):
    """As every program of the machine does."""
    inside = Resolvers(upstream=LOCAL.upstream, search=("nowhere.test", "test"))
    assert await find(server, "a", resolvers=inside) == ["192.0.2.1", "2001:db8::1"]


async def test_what_is_no_name_is_not_asked(server):
    """An absurd name fails by itself."""
    with pytest.raises(NoAnswer):
        await find(server, "x" * 64 + ".test")
    assert server.asked == []


async def test_every_socket_is_marked(server, monkeypatch):
    """The firewall knows the agent's questions by their mark, over UDP and TCP."""
    marked: list[socket.SocketKind] = []
    monkeypatch.setattr(own, "mark", lambda sock: marked.append(sock.type))
    server.truncates = True
    await find(server, "a.test")
    assert sorted(marked) == sorted([socket.SOCK_DGRAM, socket.SOCK_STREAM] * 2)


@pytest.mark.root
def test_names_are_found_across_a_network(tmp_path):
    """In a network namespace: the resolver of resolv.conf is asked on port 53, with the agent's mark."""
    with netns() as agent, netns() as world:
        link = wire(agent, world, 1)
        root = machine(tmp_path, {"etc/resolv.conf": f"nameserver {link.right4}\n"})
        # What does not carry the mark goes nowhere.
        agent.command("ip rule add priority 10 fwmark 0x10b5 lookup main")
        agent.command("ip rule add priority 20 to 10.77.1.2 unreachable")
        assert AGENT_MARK == 0x10B5
        ready, stop = threading.Event(), threading.Event()

        async def serve() -> None:
            async with dns_server(RECORDS, host=link.right4, port=53):
                ready.set()
                await asyncio.to_thread(stop.wait, 30)

        thread = threading.Thread(target=world.run, args=(serve,))
        thread.start()
        try:
            assert ready.wait(10)
            found = agent.run(lambda: HostNames(root).many(["a.test"], within=20))
        finally:
            stop.set()
            thread.join()
    assert [str(one) for one in found["a.test"]] == ["192.0.2.1", "2001:db8::1"]


# --- where names come from -------------------------------------------------------------------------------------------


def local_machine(root: Path, **files: str) -> Path:
    return machine(root, {"etc/resolv.conf": "nameserver 127.0.0.53", "etc/hosts": "10.0.0.9 fixed.test", **files})


async def test_the_hosts_file_comes_first(tmp_path):
    """What /etc/hosts says needs no resolver."""
    names = HostNames(local_machine(tmp_path))
    assert await names("fixed.test", 1) == ["10.0.0.9"]
    assert await names.many(["fixed.test"], within=1) == {"fixed.test": (ip_address("10.0.0.9"),)}


async def test_without_an_upstream_the_systems_library_is_asked(tmp_path, monkeypatch):
    """A machine that only knows its own resolver asks that, through the library."""
    library(monkeypatch, {"a.test": "10.0.0.7"})
    names = HostNames(local_machine(tmp_path))
    assert await names("a.test", 1) == ["10.0.0.7"]
    assert await names.many(["a.test", "b.test"], within=20) == {"a.test": (ip_address("10.0.0.7"),), "b.test": ()}
    with pytest.raises(OSError, match="no address"):
        await names("b.test", 1)


def library(monkeypatch: pytest.MonkeyPatch, known: dict[str, str]) -> None:
    monkeypatch.setattr(own, "_ask_library", lambda host, _port: [known[host]] if host in known else [])


def fail(*_: object) -> list[str]:
    raise OSError


def asking(server: FakeDns, tmp_path: Path) -> HostNames:
    """The names of a machine whose upstream resolver is the test's."""
    names = HostNames(local_machine(tmp_path))
    names._client = client(server)
    names.resolvers = lambda: LOCAL
    return names


@pytest.mark.parametrize("trouble", [dns.rcode.NOERROR, dns.rcode.SERVFAIL])
async def test_a_name_that_the_resolvers_do_not_know_may_be_known_to_the_library(
    server, tmp_path, monkeypatch, trouble
):
    """With split DNS only that one knows whom to ask."""
    server.rcode = trouble
    library(monkeypatch, {"inside.test": "10.0.0.7"})
    names = asking(server, tmp_path)
    assert await names.many(["inside.test"], within=20) == {"inside.test": (ip_address("10.0.0.7"),)}
    assert await names("inside.test", 1) == ["10.0.0.7"]


async def test_whoever_told_a_name_is_asked_before_it_counts_as_gone(server, tmp_path, monkeypatch):
    """With split DNS an isolated endpoint's resolvers say that there is no such name, and the library is silent."""
    names = asking(server, tmp_path)
    library(monkeypatch, {"inside.test": "10.0.0.7"})
    assert (await names.many(["inside.test", "nothing.test"], within=20))["inside.test"]
    with monkeypatch.context() as isolated:
        isolated.setattr(own, "_ask_library", fail)
        assert await names.many(["inside.test", "nothing.test"], within=20) == {"nothing.test": ()}
    library(monkeypatch, {})
    assert await names.many(["inside.test"], within=20) == {"inside.test": ()}


@pytest.mark.parametrize(
    ("number", "known"), [(socket.EAI_NONAME, True), (socket.EAI_NODATA, True), (socket.EAI_AGAIN, False)]
)
async def test_the_library_may_not_know(monkeypatch, number, known):
    """No such name is an answer; trouble is none."""

    def raising(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "x")

    monkeypatch.setattr(socket, "getaddrinfo", raising)
    if known:
        assert await SystemResolver()("a.test", 1) == []
    else:
        with pytest.raises(OSError, match="x"):
            await SystemResolver()("a.test", 1)


@pytest.mark.parametrize("silent", ["library", "resolver"])
async def test_one_that_is_silent_is_not_waited_for(server, tmp_path, monkeypatch, silent):
    """The server's name is found by whoever answers: while isolated the agent, behind odd firewalls the library."""
    over = threading.Event()
    if silent == "library":
        monkeypatch.setattr(own, "_ask_library", lambda *_: [str(over.wait(20))])
    else:
        server.silent = True
        library(monkeypatch, {"a.test": "192.0.2.1"})
    assert "192.0.2.1" in await asking(server, tmp_path)("a.test", 1)
    over.set()


async def test_the_library_is_not_waited_for_long(server, tmp_path, monkeypatch):
    """That a name has no address stays known while the library of an isolated endpoint hangs."""
    over = threading.Event()
    monkeypatch.setattr(own, "LIBRARY_SECONDS", 0.01)
    monkeypatch.setattr(own, "_ask_library", lambda *_: [str(over.wait(20))])
    assert await asking(server, tmp_path).many(["nothing.test"], within=20) == {"nothing.test": ()}
    over.set()


async def test_who_gets_no_answer_is_missing(server, tmp_path, monkeypatch):
    """A name without an address is told from a name that nobody answers for."""
    monkeypatch.setattr(own, "_ask_library", fail)
    found = await asking(server, tmp_path).many(["a.test", "nothing.test", "y" * 64], within=20)
    assert {name: len(addresses) for name, addresses in found.items()} == {"a.test": 2, "nothing.test": 0}


async def test_many_names_do_not_wait_longer_than_told(server, tmp_path):
    """When the time is over, what was found counts."""
    server.silent = True
    names = asking(server, tmp_path)
    asked = ["fixed.test", *(f"n{n}.test" for n in range(100))]
    assert await names.many(asked, within=0.05) == {"fixed.test": (ip_address("10.0.0.9"),)}
    assert len(server.asked) <= 2 * own.AT_ONCE


async def test_the_systems_resolver_is_asked():
    """A literal address resolves to itself; what is no name has no address."""
    resolver = SystemResolver()
    assert await resolver("127.0.0.1", 1) == ["127.0.0.1"]
    assert await resolver("not a name..", 1) == []


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


@given(st.binary(max_size=600), st.booleans())
def test_no_bytes_break_the_reader(noise, prefixed):
    """Whatever comes back is an answer or none."""
    query = dns.message.make_query("a.test", "A")
    wire = query.to_wire()
    assert read_answer(query, wire[:2] + b"\x80" + noise if prefixed else noise) is None
