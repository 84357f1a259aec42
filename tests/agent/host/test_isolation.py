"""What an isolated endpoint can still send, receive and forward, on a real kernel and seen from outside."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network

import pytest

from stanch.agent.host.firewall import NftFirewall
from stanch.core.exclusion import Opening
from stanch.core.network import IsolationRules, IsolationState
from tests.agent.host.world import (
    BEACON_PORT,
    FRAME,
    MINUTE,
    SERVER_PORT,
    Tap,
    World,
    fence,
    new_world,
    packet,
    ping,
    send_raw,
    send_udp,
    start_tcp,
)
from tests.netns import netns, wire

pytestmark = pytest.mark.root


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        yield made


# --- what is cut -----------------------------------------------------------------------------------------------------


def test_without_isolation_the_outside_sees_every_kind_of_traffic(world):
    """The senders and the tap of these tests work: all that is later missed is seen before."""
    tap = Tap(world.outside, world.out.device)
    for address in (world.out.right4, world.out.right6):
        start_tcp(world.endpoint, address, BEACON_PORT)
        send_udp(world.endpoint, address)
        ping(world.endpoint, address)
    send_raw(world.endpoint, world.out.device, packet(world.out.right4))
    send_raw(world.endpoint, world.out.device, packet(world.out.right4), claimed=0x0806)
    send_udp(world.container, world.out.right4)
    send_udp(world.container, world.out.right6)
    fence(world)
    assert len(tap.leaks()) == 10


def test_nothing_new_comes_out(world):
    """TCP, UDP and ping over both versions, and frames of raw sockets, do not reach the outside."""
    tap = Tap(world.outside, world.out.device)
    assert world.isolate().state is IsolationState.ISOLATED
    for address in (world.out.right4, world.out.right6):
        start_tcp(world.endpoint, address, BEACON_PORT)
        start_tcp(world.endpoint, address, SERVER_PORT + 1)
        send_udp(world.endpoint, address)
        send_udp(world.endpoint, address, SERVER_PORT)
        ping(world.endpoint, address)
    send_raw(world.endpoint, world.out.device, packet(world.out.right4))
    fence(world)
    assert tap.leaks() == []


@pytest.mark.parametrize("claimed", [0x0806, 0x86DD, 0x888E, 0x8100, 0x0004])
def test_a_raw_socket_cannot_pass_as_something_allowed(world, claimed):
    """An IP packet whose sender tells the kernel that it is ARP, IPv6 or 802.1X does not come out."""
    tap = Tap(world.outside, world.out.device)
    everything6 = IsolationRules(servers=world.rules.servers, allow=(Opening(network=ip_network("::/0")),))
    world.isolate(everything6)
    send_raw(world.endpoint, world.out.device, packet(world.out.right4), claimed=claimed)
    fence(world)
    assert tap.leaks() == []


def test_local_programs_learn_at_once(world):
    """A connection that is cut is refused, instead of hanging until a time-out."""
    world.isolate()
    for address in (world.out.right4, world.out.right6):
        with pytest.raises(ConnectionRefusedError):
            world.endpoint.connect(address, BEACON_PORT)


def test_nothing_new_comes_in(world):
    """The outside reaches no listener of the endpoint and gets no answer to a ping, not even from the server's port."""
    tcp4, tcp6 = world.endpoint.listen("0.0.0.0", 22), world.endpoint.listen("::", 23)
    udp = world.endpoint.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", 53))
    tap = Tap(world.outside, world.out.device)
    world.isolate()
    kept = [start_tcp(world.outside, world.out.left4, 22), start_tcp(world.outside, world.out.left6, 23)]
    for address, port in ((world.out.left4, 22), (world.out.left6, 23)):
        as_server = world.outside.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        as_server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        as_server.bind((world.out.right6 if ":" in address else world.out.right4, SERVER_PORT))
        as_server.setblocking(False)
        with suppress(BlockingIOError):
            as_server.connect((address, port))
        as_server.close()
    send_udp(world.outside, world.out.left4, 53)
    ping(world.outside, world.out.left4)
    ping(world.outside, world.out.left6)
    fence(world)
    assert tap.leaks() == []
    for listener in (tcp4, tcp6):
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    udp.setblocking(False)
    with pytest.raises(BlockingIOError):
        udp.recv(10)
    assert len(kept) == 2


def test_nothing_is_forwarded(world):
    """A container behind the endpoint is cut off in both directions."""
    outside, inside = Tap(world.outside, world.out.device), Tap(world.container, world.inner.device)
    world.isolate()
    for source, addresses in (
        (world.container, (world.out.right4, world.out.right6)),
        (world.outside, (world.inner.right4, world.inner.right6)),
    ):
        for address in addresses:
            send_udp(source, address)
            start_tcp(source, address, SERVER_PORT)
    fence(world)
    assert outside.leaks() == []
    assert inside.frames() == []


def test_frames_switched_by_a_bridge_do_not_pass(world):
    """A virtual machine on a bridge of the endpoint reaches neither the outside nor its neighbour."""
    with netns() as guest, netns() as neighbour:
        first, second = wire(world.endpoint, guest, 3), wire(world.endpoint, neighbour, 4)
        world.endpoint.command("ip link add bridge1 type bridge")
        for device in (first.device, second.device):
            world.endpoint.command(f"ip addr flush dev {device}")
            world.endpoint.command(f"ip link set {device} master bridge1")
        world.endpoint.command("ip link set bridge1 up")
        tap = Tap(neighbour, second.device)
        beacon = packet("10.77.4.2", source="10.77.3.2")
        send_raw(guest, first.device, beacon)
        assert sum(frame.endswith(b"leak") for frame in tap.frames()) == 1
        assert world.isolate().state is IsolationState.ISOLATED
        send_raw(guest, first.device, beacon)
        fence(world)
        assert not [frame for frame in tap.frames() if frame.endswith(b"leak")]


def test_only_broadcasts_are_dhcp(world):
    """A DHCP client may ask everybody, but its port is no way to the rest of the world."""
    tap = Tap(world.outside, world.out.device)
    world.isolate()
    client = world.endpoint.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, world.out.device.encode())
    client.bind(("0.0.0.0", 68))
    with suppress(OSError):
        client.sendto(b"leak", (world.out.right4, 67))
    client.sendto(b"discover", ("255.255.255.255", 67))
    fence(world)
    (seen,) = tap.leaks()
    assert seen.endswith(b"discover")


def test_replacing_the_rules_lets_nothing_through(world):
    """While isolation is ordered again and again, a busy sender gets no packet out."""
    world.isolate()
    tap = Tap(world.outside, world.out.device)
    udp = world.endpoint.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = world.endpoint.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((world.out.device, 0))
    frame = FRAME + packet(world.out.right4)
    stop, sent = threading.Event(), 0

    def beacon() -> None:
        nonlocal sent
        while not stop.is_set():
            for send in (lambda: udp.sendto(b"leak", (world.out.right4, BEACON_PORT)), lambda: raw.send(frame)):
                with suppress(OSError):
                    send()
                sent += 1

    async def replace(firewall: NftFirewall) -> None:
        for number in range(40):
            allow = (Opening(network=ip_network(f"10.200.{number}.0/24")),)
            await firewall.isolate(IsolationRules(servers=world.rules.servers, allow=allow), lift_after=MINUTE)

    sender = threading.Thread(target=beacon)
    sender.start()
    try:
        world.firewall(replace)
    finally:
        stop.set()
        sender.join()
    fence(world)
    assert tap.leaks() == []
    assert sent > 100


# --- what stays ------------------------------------------------------------------------------------------------------


def test_the_server_stays_reachable(world):
    """A connection to the server that was there goes on, and a new one succeeds, over both versions."""
    pairs = []
    for address in (world.out.right4, world.out.right6):
        with world.outside.listen(address, SERVER_PORT) as listener:
            call = world.endpoint.connect(address, SERVER_PORT)
            pairs.append((call, world.outside.accept(listener)))
    world.isolate()
    assert world.destroy() == 0
    for call, answer in pairs:
        call.sendall(b"still")
        assert answer.recv(5) == b"still"
        call.close()
        answer.close()
    fence(world)


def test_replacing_the_rules_does_not_lose_packets_of_the_server(world):
    """An allowed flow does not notice that the rules around it are replaced."""
    world.isolate()
    listener = world.outside.listen(world.out.right4, SERVER_PORT)
    call = world.endpoint.connect(world.out.right4, SERVER_PORT)
    answer = world.outside.accept(listener)
    stop = threading.Event()

    def echo() -> None:
        while not stop.is_set():
            call.sendall(b"x")
            answer.recv(1)

    async def replace(firewall: NftFirewall) -> None:
        for _ in range(40):
            await firewall.isolate(world.rules, lift_after=MINUTE)

    worker = threading.Thread(target=echo)
    worker.start()
    world.firewall(replace)
    stop.set()
    worker.join()
    lost = struct.unpack_from("=I", call.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0]
    assert lost == 0  # tcpi_total_retrans


def test_allowed_networks_stay_open_both_ways(world):
    """A network that the rules allow is reached and reaches us, by any protocol, raw frames included."""
    tap = Tap(world.outside, world.out.device)
    own = world.endpoint.open_socket(socket.AF_INET6, socket.SOCK_DGRAM)
    own.bind(("::", 5353))
    allow = (Opening(network=ip_network(world.out.right4)), Opening(network=ip_network("fd77:1::/64")))
    world.isolate(IsolationRules(servers=(), allow=allow))
    for address in (world.out.right4, world.out.right6):
        with world.outside.listen(address, BEACON_PORT) as listener:
            world.endpoint.connect(address, BEACON_PORT).close()
            world.outside.accept(listener).close()
        send_udp(world.endpoint, address)
    send_raw(world.endpoint, world.out.device, packet(world.out.right4))
    send_udp(world.outside, world.out.left6, 5353)
    assert own.recv(10) == b"leak"
    assert sum(frame.endswith(b"leak") for frame in tap.frames()) == 3


def test_loopback_stays(world):
    """Programs of the endpoint still talk to each other, by 127.0.0.1, ::1 and the endpoint's own address."""
    pairs = []
    for address in ("127.0.0.1", "::1", world.out.left4, world.out.left6):
        with world.endpoint.listen(address, 9000) as listener:
            pairs.append((world.endpoint.connect(address, 9000), world.endpoint.accept(listener)))
    world.isolate()
    assert world.destroy() == 0
    for call, answer in pairs:
        call.sendall(b"here")
        assert answer.recv(4) == b"here"
    with world.endpoint.listen("127.0.0.1", 9001) as listener:
        world.endpoint.connect("127.0.0.1", 9001)
        world.endpoint.accept(listener)


def test_tables_of_others_stay_as_they_are(world):
    """Isolation and its end leave every table that is not ours untouched."""
    other = "table inet other {\n\tchain kept {\n\t\taccept\n\t}\n}\n"
    world.endpoint.command("nft -f -", stdin=other)
    world.isolate()
    assert other in world.endpoint.command("nft list ruleset")
    world.lift()
    assert world.endpoint.command("nft list ruleset") == other


# --- connections that were there -------------------------------------------------------------------------------------


def test_connections_die_and_stay_dead(world):
    """Idle connections, made by us or by the outside, over both versions, are cut and dead after the release."""
    calls = []
    for address in (world.out.right4, world.out.right6):
        with world.outside.listen(address, BEACON_PORT) as listener:
            calls.append((world.endpoint.connect(address, BEACON_PORT), world.outside.accept(listener)))
    with world.endpoint.listen("::", 22) as listener:  # the peer is an IPv4-mapped address here
        calls.append((world.outside.connect(world.out.left4, 22), world.endpoint.accept(listener))[::-1])
    half_closed = calls[0][0]
    half_closed.shutdown(socket.SHUT_WR)  # it can still receive
    world.isolate()
    seen = world.firewall(lambda firewall: firewall.forbidden_sockets(world.rules))
    assert sorted(one.remote.rpartition(":")[0] for one in seen) == sorted(
        [world.out.right4, world.out.right4, f"[{world.out.right6}]"]
    )
    assert world.destroy() == 3
    assert world.firewall(lambda firewall: firewall.forbidden_sockets(world.rules)) == ()
    world.lift()
    for ours, theirs in calls:
        with suppress(OSError):
            theirs.sendall(b"are you there?")
        with pytest.raises(ConnectionAbortedError):
            ours.recv(1)


def test_connected_udp_sockets_die_too(world):
    """A UDP socket that is connected to the outside receives nothing after the release; others are left alone."""
    theirs = world.outside.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    theirs.bind((world.out.right4, 53))
    beacon = world.endpoint.connect(world.out.right4, 53, socket.SOCK_DGRAM)
    unconnected = world.endpoint.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    unconnected.bind(("0.0.0.0", 5353))
    local = world.endpoint.connect("127.0.0.1", 53, socket.SOCK_DGRAM)
    world.isolate()
    assert world.destroy() == 1
    world.lift()
    with pytest.raises(ConnectionAbortedError):
        beacon.recv(1)
    theirs.sendto(b"hello", (world.out.left4, 5353))
    assert unconnected.recv(5) == b"hello"
    assert local.getpeername()[1] == 53


def test_a_closed_connection_with_unsent_data_dies(world):
    """What a program wrote before it closed its connection does not trickle out after the release."""
    with world.outside.listen(world.out.right4, BEACON_PORT) as listener:
        call, answer = world.endpoint.connect(world.out.right4, BEACON_PORT), world.outside.accept(listener)
        answer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        call.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                call.send(b"x" * 65536)
        call.close()
        world.isolate()
        assert world.destroy() == 1
