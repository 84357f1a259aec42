"""The mark of the agent's own sockets beside products that set, clear and restore marks of their own."""

import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from stanch.agent.host.mark import mark
from stanch.core.network import Peer
from tests.agent.host.beside.place import OUTSIDE, Held, Place, new_place
from tests.agent.host.beside.products import PRODUCTS, Product, build_routed

pytestmark = pytest.mark.root

PROXY_PORT = 3128
MARKING = [product for product in PRODUCTS if product.name.startswith(("flannel", "calico", "cilium"))]


def isolated_behind_a_proxy(place: Place) -> Iterator[Held]:
    """The endpoint reaches its server through a proxy, and names at a resolver of the outside."""
    held = Held(place)
    try:
        held.isolate(proxies=[Peer(address=OUTSIDE.four, port=PROXY_PORT)], resolvers=[IPv4Address(OUTSIDE.four)])
        yield held
    finally:
        held.close()


@pytest.fixture(params=MARKING, ids=lambda product: product.name)
def beside_marks(request) -> Iterator[Held]:
    """Beside a product that marks packets."""
    product: Product = request.param
    with new_place() as place:
        product.build(place)
        for command, text in product.load:
            place.endpoint.command(command, stdin=text)
        yield from isolated_behind_a_proxy(place)


@pytest.fixture
def beside_restored_marks() -> Iterator[Held]:
    """Beside rules that give every packet the mark of its connection, as those of several uplinks or a VPN do."""
    with new_place() as place:
        build_routed(place)
        place.endpoint.command("iptables-nft -t mangle -A OUTPUT -j CONNMARK --restore-mark")
        yield from isolated_behind_a_proxy(place)


def own_socket(held: Held, kind: int, *, marked: bool) -> socket.socket:
    made = held.place.endpoint.call(socket.socket, socket.AF_INET, kind)
    made.settimeout(2)
    if marked:
        mark(made)
    return made


def reach_the_proxy(held: Held, *, marked: bool) -> None:
    with (
        held.place.outside.listen(OUTSIDE.four, PROXY_PORT) as listener,
        own_socket(held, socket.SOCK_STREAM, marked=marked) as call,
    ):
        call.connect((OUTSIDE.four, PROXY_PORT))
        with closing(held.place.outside.accept(listener)) as answer:
            call.sendall(b"CONNECT")
            assert answer.recv(10) == b"CONNECT"
            answer.sendall(b"200")
            assert call.recv(10) == b"200"


def ask_the_resolver(held: Held, *, marked: bool) -> None:
    resolver = held.place.outside.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    with resolver, own_socket(held, socket.SOCK_DGRAM, marked=marked) as call:
        resolver.settimeout(2)
        resolver.bind((OUTSIDE.four, 53))
        call.sendto(b"question", (OUTSIDE.four, 53))
        question, peer = resolver.recvfrom(100)
        resolver.sendto(b"answer to " + question, peer)
        assert call.recv(100) == b"answer to question"


def test_the_agents_own_connections_survive_the_marks_of_products(beside_marks):
    """Products add their bits on the way, and the agent still reaches its proxy and its resolver; nobody else does."""
    reach_the_proxy(beside_marks, marked=True)
    ask_the_resolver(beside_marks, marked=True)
    with pytest.raises(ConnectionRefusedError):
        reach_the_proxy(beside_marks, marked=False)
    with pytest.raises(PermissionError):
        ask_the_resolver(beside_marks, marked=False)


@pytest.mark.parametrize("reach", [reach_the_proxy, ask_the_resolver])
def test_the_agents_own_connections_survive_restored_marks(beside_restored_marks, reach):
    """Where a foreign rule replaces the mark of every packet, the agent still reaches its proxy and its resolver."""
    reach(beside_restored_marks, marked=True)
