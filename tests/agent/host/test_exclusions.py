"""Each kind of exclusion opens exactly what it says, on a real kernel: both versions, both ways, answers included."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from structlog.testing import capture_logs

from stanch.agent.host.cgroups import Hierarchy, hierarchy
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.mark import AGENT_MARK
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.nft import Nft
from stanch.core.errors import Unsupported
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, IsolationState, Peer
from tests.agent.host.probes import Probe, control_group, of_account, passing, ping, tcp, udp
from tests.agent.host.world import BEACON_PORT, MINUTE, Tap, World, fence, new_world, packet, send_raw, send_udp
from tests.netns import netns

pytestmark = pytest.mark.root

IN, OUT, BOTH = Direction.IN, Direction.OUT, Direction.BOTH
TCP, UDP, ICMP = Transport.TCP, Transport.UDP, Transport.ICMP


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        yield made


def one_port(port: int) -> Ports:
    return Ports(port, port)


def addresses(world: World, version: int) -> tuple[str, str]:
    """Of the endpoint, and of the outside."""
    return (world.out.left4, world.out.right4) if version == 4 else (world.out.left6, world.out.right6)


def everything(world: World, version: int) -> list[Probe]:
    """All that is tried, named by what it is: from the endpoint's side."""
    here, there = addresses(world, version)
    endpoint, outside = world.endpoint, world.outside
    return [
        tcp("tcp out 443", endpoint, outside, there, 443),
        tcp("tcp out 444", endpoint, outside, there, 444),
        tcp("tcp out 445 from 40000", endpoint, outside, there, 445, local=40000),
        tcp("tcp in 22", outside, endpoint, here, 22),
        tcp("tcp in 23", outside, endpoint, here, 23),
        tcp("tcp in 24 from 446", outside, endpoint, here, 24, local=446),
        udp("udp out 123", endpoint, outside, there, 123),
        udp("udp out 124", endpoint, outside, there, 124),
        udp("udp in 53", outside, endpoint, here, 53),
        udp("udp in 54", outside, endpoint, here, 54),
        udp("udp in 55 from 125", outside, endpoint, here, 55, local=125),
        ping("ping out", endpoint, there),
        ping("ping in", outside, here),
    ]


ALL = {
    "tcp out 443", "tcp out 444", "tcp out 445 from 40000", "tcp in 22", "tcp in 23", "tcp in 24 from 446",
    "udp out 123", "udp out 124", "udp in 53", "udp in 54", "udp in 55 from 125", "ping out", "ping in",
}  # fmt: skip
OUTWARD, INWARD = ({one for one in ALL if f" {way}" in one} for way in ("out", "in"))

CASES = {
    "everything": ({}, ALL),
    "out": ({"direction": OUT}, OUTWARD),
    "in": ({"direction": IN}, INWARD),
    "tcp": ({"transport": TCP}, {one for one in ALL if one.startswith("tcp")}),
    "udp out": ({"transport": UDP, "direction": OUT}, {"udp out 123", "udp out 124"}),
    "out tcp remote 443": ({"transport": TCP, "direction": OUT, "remote": one_port(443)}, {"tcp out 443"}),
    "out tcp remote 440-446": (
        {"transport": TCP, "direction": OUT, "remote": Ports(440, 446)},
        {"tcp out 443", "tcp out 444", "tcp out 445 from 40000"},
    ),
    "out tcp local 40000": (
        {"transport": TCP, "direction": OUT, "local": one_port(40000)}, {"tcp out 445 from 40000"},
    ),
    "out tcp remote 443 local 40000": (
        {"transport": TCP, "direction": OUT, "remote": one_port(443), "local": one_port(40000)}, set(),
    ),
    "both tcp remote 446": ({"transport": TCP, "remote": one_port(446)}, {"tcp in 24 from 446"}),
    "in tcp local 22": ({"transport": TCP, "direction": IN, "local": one_port(22)}, {"tcp in 22"}),
    "in tcp local 20-23": ({"transport": TCP, "direction": IN, "local": Ports(20, 23)}, {"tcp in 22", "tcp in 23"}),
    "out udp remote 123": ({"transport": UDP, "direction": OUT, "remote": one_port(123)}, {"udp out 123"}),
    "out udp remote 123-125": (
        {"transport": UDP, "direction": OUT, "remote": Ports(123, 125)}, {"udp out 123", "udp out 124"},
    ),
    "both udp remote 125": ({"transport": UDP, "remote": one_port(125)}, {"udp in 55 from 125"}),
    "in udp local 53": ({"transport": UDP, "direction": IN, "local": one_port(53)}, {"udp in 53"}),
    "icmp": ({"transport": ICMP}, {"ping out", "ping in"}),
    "out icmp": ({"transport": ICMP, "direction": OUT}, {"ping out"}),
    "in icmp": ({"transport": ICMP, "direction": IN}, {"ping in"}),
}  # fmt: skip


@pytest.mark.parametrize("version", [4, 6])
def test_without_isolation_everything_that_is_tried_passes(world, version):
    """The probes of these tests work: what is later cut got through before."""
    assert passing(world, everything(world, version)) == ALL


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", CASES)
def test_an_exclusion_opens_what_it_says_and_nothing_else(world, name, version):
    """What it opens gets through and is answered; unasked packets, other ports and protocols do not, either way."""
    options, expected = CASES[name]
    network = ip_network(addresses(world, version)[1])
    rules = IsolationRules(servers=world.rules.servers, allow=(Opening(network=network, **options),))
    assert world.isolate(rules).state is IsolationState.ISOLATED
    assert passing(world, everything(world, version)) == expected


@pytest.mark.parametrize("version", [4, 6])
def test_exclusions_for_somebody_else_open_nothing(world, version):
    """All kinds at once, for a network in which the peer is not: nothing passes."""
    network = ip_network("203.0.113.0/24" if version == 4 else "2001:db8::/32")
    allow = tuple(Opening(network=network, **options) for options, _expected in CASES.values())
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    assert passing(world, everything(world, version)) == set()


@pytest.mark.parametrize("version", [4, 6])
def test_exclusions_that_overlap_open_what_each_says(world, version):
    """Ranges that overlap, for networks that do, lie in several layers, and each of them is open."""
    peer = ip_network(addresses(world, version)[1])
    around = peer.supernet(8)
    allow = (
        Opening(network=around, transport=TCP, direction=OUT, remote=Ports(400, 443)),
        Opening(network=peer, transport=TCP, direction=OUT, remote=Ports(443, 444)),
        Opening(network=around, transport=UDP, direction=IN, local=Ports(50, 53)),
        Opening(network=peer, transport=UDP, direction=IN, local=Ports(53, 54)),
        Opening(network=peer, transport=ICMP, direction=OUT),
    )
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    expected = {"tcp out 443", "tcp out 444", "udp in 53", "udp in 54", "ping out"}
    assert passing(world, everything(world, version)) == expected


def test_an_answer_ends_with_its_opening(world):
    """A UDP flow that was learned gets no further answers once its opening is taken away."""
    asks, answers = (ns.open_socket(socket.AF_INET, socket.SOCK_DGRAM) for ns in (world.endpoint, world.outside))
    answers.bind((world.out.right4, 123))
    allow = (Opening(network=ip_network(world.out.right4), transport=UDP, direction=OUT, remote=one_port(123)),)
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    asks.sendto(b"?", (world.out.right4, 123))
    peer = answers.recvfrom(10)[1]
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    answers.sendto(b"kept", peer)
    assert asks.recv(10) == b"kept"
    world.isolate()
    answers.sendto(b"late", peer)
    fence(world)
    asks.setblocking(False)
    with pytest.raises(BlockingIOError):
        asks.recv(10)


def test_a_full_set_of_flows_loses_no_allowed_packet(world):
    """Learning never decides: where no further flow can be learned, what an exclusion opens still gets out."""

    class Narrow(Nft):
        async def apply(self, text: str) -> None:
            await super().apply(text.replace("size 16384", "size 2"))

    async def use() -> None:
        firewall = NftFirewall(Namespace.current("net"), nft=Narrow())
        allow = (Opening(network=ip_network(world.out.right4), transport=UDP, direction=OUT),)
        with capture_logs():
            await firewall.isolate(IsolationRules(servers=world.rules.servers, allow=allow), lift_after=MINUTE)
        await firewall.close()

    world.endpoint.run(use)
    tap = Tap(world.outside, world.out.device)
    for _ in range(10):
        send_udp(world.endpoint, world.out.right4)
    fence(world)
    assert len(tap.leaks()) == 10
    assert "size 2" in world.endpoint.command("nft list set inet stanch talk4")


def test_without_dhcp_nobody_asks_for_an_address(world):
    """The profile that is off closes DHCP, too."""
    tap = Tap(world.outside, world.out.device)
    world.isolate(replace(world.rules, dhcp=False))
    client = world.endpoint.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, world.out.device.encode())
    client.bind(("0.0.0.0", 68))
    with pytest.raises(PermissionError):
        client.sendto(b"discover", ("255.255.255.255", 67))
    fence(world)
    assert tap.leaks() == []


# --- accounts --------------------------------------------------------------------------------------------------------

UID = 12345


@pytest.mark.parametrize("version", [4, 6])
def test_an_account_opens_for_itself_alone(world, version):
    """What the account sends passes and is answered; what others send, and what nobody asked for, does not."""
    here, there = addresses(world, version)
    peer = ip_network(there)
    allow = (
        Opening(network=peer, transport=TCP, direction=OUT, remote=one_port(443), uid=UID),
        Opening(network=peer, transport=TCP, direction=OUT, remote=Ports(4430, 4431), uid=UID),
        Opening(network=peer, transport=UDP, direction=OUT, uid=UID),
        Opening(network=peer, transport=ICMP, direction=OUT, uid=UID),
    )
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    theirs, others = of_account(world.endpoint, UID), of_account(world.endpoint, UID + 1)
    endpoint, outside = world.endpoint, world.outside
    found = passing(
        world,
        [
            tcp("theirs 443", endpoint, outside, there, 443, made=theirs),
            tcp("theirs 444", endpoint, outside, there, 444, made=theirs),
            tcp("others 4430", endpoint, outside, there, 4430, made=others),
            udp("theirs udp", endpoint, outside, there, 123, made=theirs),
            udp("others udp", endpoint, outside, there, 124, made=others),
            udp("unasked udp", outside, endpoint, here, 125, taken=theirs),
            tcp("unasked tcp", outside, endpoint, here, 126, local=4431, taken=theirs),
            ping("root's ping", endpoint, there),
        ],
    )
    assert found == {"theirs 443", "theirs udp"}


def test_a_connection_of_an_account_is_closed_properly(world):
    """The farewell of a socket that its program has closed is of nobody's account, and passes all the same."""
    allow = (Opening(network=ip_network(world.out.right4), transport=TCP, direction=OUT, uid=UID),)
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    with world.outside.listen(world.out.right4, 443) as listener:
        call = of_account(world.endpoint, UID)(socket.AF_INET, socket.SOCK_STREAM)
        call.connect((world.out.right4, 443))
        answer = world.outside.accept(listener)
        call.sendall(b"the end")
        call.close()
        assert answer.recv(100) == b"the end"
        assert answer.recv(100) == b""


def test_a_connection_of_an_account_survives_new_tables(world):
    """A connection from before the isolation, and one whose tables were made anew, goes on."""
    listener = world.outside.listen(world.out.right4, 443)
    call = of_account(world.endpoint, UID)(socket.AF_INET, socket.SOCK_STREAM)
    call.connect((world.out.right4, 443))
    answer = world.outside.accept(listener)
    allow = (Opening(network=ip_network(world.out.right4), transport=TCP, direction=OUT, uid=UID),)
    rules = IsolationRules(servers=world.rules.servers, allow=allow)
    world.isolate(rules)
    assert world.destroy(rules) == 0
    answer.sendall(b"first")
    assert call.recv(5) == b"first"
    call.sendall(b"then")
    assert answer.recv(4) == b"then"
    call.close()


# --- control groups --------------------------------------------------------------------------------------------------


@pytest.fixture
def tree() -> Hierarchy:
    """The control groups of this machine."""
    try:
        return hierarchy()
    except Unsupported as error:
        pytest.skip(str(error))


GROUP = f"stanch-test-{os.getpid()}"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("direction", list(Direction))
def test_a_control_group_opens_for_itself_alone(world, tree, version, direction):
    """What the group sends (or receives) passes and is answered; what others do, to the same peer, does not."""
    here, there = addresses(world, version)
    with control_group(tree.root, GROUP) as of_group:
        allow = (Opening(network=ip_network(there), direction=direction, cgroup=GROUP),)
        assert world.isolate(IsolationRules(servers=world.rules.servers, allow=allow)).state is IsolationState.ISOLATED
        endpoint, outside, theirs = world.endpoint, world.outside, of_group(world.endpoint)
        found = passing(
            world,
            [
                tcp("out tcp", endpoint, outside, there, 443, made=theirs),
                udp("out udp", endpoint, outside, there, 123, made=theirs),
                tcp("in tcp", outside, endpoint, here, 22, taken=theirs),
                udp("in udp", outside, endpoint, here, 53, taken=theirs),
                tcp("others out tcp", endpoint, outside, there, 444),
                udp("others out udp", endpoint, outside, there, 124),
                tcp("others in tcp", outside, endpoint, here, 23),
                udp("others in udp", outside, endpoint, here, 54),
            ],
        )
    outward, inward = {"out tcp", "out udp"}, {"in tcp", "in udp"}
    assert found == (outward if direction.outward else set()) | (inward if direction.inward else set())


def test_raw_frames_to_a_group_s_peer_stay_cut(world, tree):
    """Only packets that the output chain let pass for the group leave: a frame of a raw socket does not."""
    with control_group(tree.root, GROUP) as of_group:
        allow = (Opening(network=ip_network(world.out.right4), cgroup=GROUP),)
        world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
        tap = Tap(world.outside, world.out.device)
        send_raw(world.endpoint, world.out.device, packet(world.out.right4))
        fence(world)
        assert tap.leaks() == []
        of_group(world.endpoint)(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"leak", (world.out.right4, BEACON_PORT))
        fence(world)
        assert len(tap.leaks()) == 1


def test_sockets_of_a_group_are_left_alone(world, tree):
    """When forbidden connections are cut, those of the group to its peer stay, and others to the same peer go."""
    with control_group(tree.root, GROUP) as of_group:
        rules = IsolationRules(
            servers=(), allow=(Opening(network=ip_network(world.out.right4), direction=OUT, cgroup=GROUP),)
        )
        with world.outside.listen(world.out.right4, 443) as listener:
            call = of_group(world.endpoint)(socket.AF_INET, socket.SOCK_STREAM)
            call.connect((world.out.right4, 443))
            answer = world.outside.accept(listener)
            doomed = world.endpoint.connect(world.out.right4, 443)
            world.outside.accept(listener)
            world.isolate(rules)
            assert world.destroy(rules) == 1
            with pytest.raises(ConnectionAbortedError):
                doomed.recv(1)
            call.sendall(b"on")
            assert answer.recv(2) == b"on"


# --- the agent's own -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_proxies_and_resolvers_are_open_to_the_agent_alone(world, version):
    """With the mark a proxy and a resolver are reached and answer; without it they are not, and neither calls us."""
    here, there = addresses(world, version)

    def marked(family: int, kind: int) -> socket.socket:
        made = world.endpoint.open_socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, AGENT_MARK)
        return made

    proxy = Peer(address=ip_address(there), port=3128)
    world.isolate(replace(world.rules, proxies=(proxy,), resolvers=(proxy.address,)))
    endpoint, outside = world.endpoint, world.outside
    probes = [
        tcp("proxy", endpoint, outside, there, 3128, made=marked),
        tcp("resolver tcp", endpoint, outside, there, 53, made=marked),
        udp("resolver udp", endpoint, outside, there, 53, made=marked),
        tcp("another port", endpoint, outside, there, 3129, made=marked),
        udp("another service", endpoint, outside, there, 123, made=marked),
        udp("unasked", outside, endpoint, here, 5353, local=5300),
        tcp("a call from the proxy", outside, endpoint, here, 22),
    ]
    assert passing(world, probes) == {"proxy", "resolver tcp", "resolver udp"}
    tap = Tap(world.outside, world.out.device)
    for port in (3128, 53):
        with pytest.raises(ConnectionRefusedError):
            world.endpoint.connect(there, port)
        send_udp(world.endpoint, there, port)
    fence(world)
    assert tap.leaks() == []


# --- below the stack -------------------------------------------------------------------------------------------------


def test_raw_frames_leave_only_where_an_exclusion_says(world):
    """The egress chain opens the same ports of the same peer, and nothing else."""
    allow = (Opening(network=ip_network(world.out.right4), transport=UDP, direction=OUT, remote=one_port(BEACON_PORT)),)
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    tap = Tap(world.outside, world.out.device)
    send_raw(world.endpoint, world.out.device, packet(world.out.right4, BEACON_PORT))
    send_raw(world.endpoint, world.out.device, packet(world.out.right4, BEACON_PORT + 1))
    send_raw(world.endpoint, world.out.device, packet("10.77.1.3", BEACON_PORT))
    send_raw(world.endpoint, world.out.device, packet(world.out.right4, BEACON_PORT), claimed=0x86DD)
    fence(world)
    assert len(tap.leaks()) == 1


def test_a_macvlan_gets_no_further_than_its_device(world):
    """A container on a macvlan of the endpoint reaches an allowed address, and nobody else."""
    with netns() as guest:
        world.endpoint.command(f"ip link add mv0 link {world.out.device} type macvlan mode bridge")
        world.endpoint.command(f"ip link set mv0 netns {guest.path}")
        guest.command("ip link set mv0 up")
        allow = (Opening(network=ip_network("10.77.1.3"), transport=UDP, direction=OUT),)
        world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
        tap = Tap(world.outside, world.out.device)
        send_raw(guest, "mv0", packet(world.out.right4))
        send_raw(guest, "mv0", packet("10.77.1.3"))
        fence(world)
        assert len(tap.leaks()) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_large_datagrams_leave_in_pieces(world, version):
    """What an exclusion opens may be larger than a packet: the pieces tell no ports, and pass all the same."""
    here, there = addresses(world, version)
    allow = (Opening(network=ip_network(there), transport=UDP, remote=one_port(123), direction=OUT),)
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    takes, sends = (ns.open_socket(family, socket.SOCK_DGRAM) for ns in (world.outside, world.endpoint))
    takes.bind((there, 123))
    sends.sendto(b"x" * 5000, (there, 123))
    data, peer = takes.recvfrom(10_000)
    assert len(data) == 5000
    takes.sendto(b"y" * 5000, peer)
    assert len(sends.recv(10_000)) == 5000
    assert peer[0] == here
