"""An endpoint that is really isolated: its agent still finds names and its server, and nobody else finds anything."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from stanch.agent.gateway import Gateway
from stanch.agent.host.dns import HostNames
from stanch.agent.host.names import LinuxNames
from stanch.agent.proxy import Proxy
from stanch.agent.resolve import AddressBook
from stanch.core.exclusion import Exclusion
from stanch.core.network import IsolationRules
from tests.agent.host.world import World, new_world
from tests.fakes.dns import dns_server, machine
from tests.fakes.gateway import FakeGateway, gateway
from tests.fakes.proxy import FakeProxy, connect_proxy

pytestmark = pytest.mark.root

CA = "/v1/ca"
KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint and the world outside."""
    with new_world() as made:
        yield made


@contextmanager
def outside(world: World, serving: Callable[[], AbstractAsyncContextManager[object]]) -> Iterator[list[object]]:
    """Serve in the world outside, in an event loop of its own; what the context gave."""
    made: list[object] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving() as one:
            made.append(one)
            ready.set()
            await asyncio.to_thread(stop.wait, 60)

    thread = threading.Thread(target=world.outside.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(20)
        yield made
    finally:
        stop.set()
        thread.join()


def test_only_the_agent_can_ask_for_names(world, tmp_path):
    """Over UDP and TCP: the agent's questions are answered, the same question of another program is not."""
    four = world.out.right4
    root = machine(tmp_path, {"etc/resolv.conf": f"nameserver {four}\n"})
    names = LinuxNames(root=root)

    async def resolve() -> object:
        return await names.resolve([Exclusion.parse("a.test")], [])

    records = {"a.test": ("192.0.2.1",)}
    with outside(world, lambda: dns_server(records, host=four, port=53)) as (server,):
        assert all(reaches(world, four, 53, kind) for kind in KINDS)
        before = world.endpoint.run(resolve)
        assert [str(one.network) for one in before.openings] == ["192.0.2.1/32"]
        assert [str(one) for one in before.resolvers] == [four]
        world.isolate(replace(world.rules, resolvers=before.resolvers))
        server.records = {"a.test": ("192.0.2.2",)}
        assert [str(one.network) for one in world.endpoint.run(resolve).openings] == ["192.0.2.2/32"]
        server.truncates = True
        assert [str(one.network) for one in world.endpoint.run(resolve).openings] == ["192.0.2.2/32"]
        assert server.streams
        heard = len(server.asked)
        assert not any(reaches(world, four, 53, kind) for kind in KINDS)
        assert len(server.asked) == heard


def reaches(world: World, address: str, port: int, kind: socket.SocketKind) -> bool:
    """Does an ordinary program of the endpoint get an answer, or a connection?"""
    with world.endpoint.open_socket(socket.AF_INET, kind) as made:
        made.settimeout(0.3)
        try:
            made.connect((address, port))
            if kind is socket.SOCK_DGRAM:
                made.send(b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\4test\0\0\1\0\1")
                made.recv(512)
        except OSError:
            return False
        return True


def test_the_agent_reaches_its_server_through_the_proxy(world, tmp_path):
    """An isolated endpoint follows its proxy to another address; nobody else can use that way out."""
    four = world.out.right4
    root = machine(tmp_path / "root", {"etc/resolv.conf": f"nameserver {four}\n"})
    records: dict[str, tuple[str, ...]] = {"proxy.test": ("192.0.2.99",)}

    @asynccontextmanager
    async def surroundings() -> AsyncIterator[tuple[FakeGateway, FakeProxy]]:
        async with (
            dns_server(records, host=four, port=53),
            gateway(tmp_path) as server,
            connect_proxy(four) as proxy,
        ):
            yield server, proxy

    with outside(world, surroundings) as ((server, proxy),):
        identity = server.identity(tmp_path / "state")
        way = Proxy("proxy.test", proxy.port)
        book = AddressBook(tmp_path / "book", urls=identity.urls, look_up=HostNames(root), proxy=way)

        async def ask() -> bytes:
            async with Gateway(tls=identity.tls(tmp_path / "state"), targets=book.targets) as gate:
                return await gate.request("GET", CA)

        world.endpoint.run(book.refresh)
        assert reaches(world, four, proxy.port, socket.SOCK_STREAM)
        isolate_by(world, book, four)
        records["proxy.test"] = (four,)
        world.endpoint.run(book.refresh)
        assert book.changed.is_set()
        isolate_by(world, book, four)
        assert world.endpoint.run(ask) == server.authority.pem.encode()
        assert len(proxy.asked) == 1
        assert not reaches(world, four, proxy.port, socket.SOCK_STREAM)


def isolate_by(world: World, book: AddressBook, resolver: str) -> None:
    """As the agent does it: what the book says is open, and the resolver."""
    opened = IsolationRules(servers=book.peers(), proxies=book.proxies(), resolvers=(ip_address(resolver),))
    world.isolate(opened)
