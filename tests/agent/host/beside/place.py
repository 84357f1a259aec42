"""An endpoint with the devices of a product on it, and the conversations that the product makes possible."""

import asyncio
import platform
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple, TypeVar

from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.core.exclusion import Opening
from stanch.core.network import IsolationRules, KernelIsolation, Peer
from tests.agent.host.world import MINUTE, Tap, World, fence, ping
from tests.netns import Netns, Wire, netns, wire

T = TypeVar("T")

KERNEL = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
OWNS_TABLES = KERNEL >= (6, 9)
"""Can tables outlive their owner here, so that a flush by others passes ours by?"""

DATA = Path(__file__).parent / "data"
PATIENCE = 10


class Pair(NamedTuple):
    """One thing's addresses."""

    four: str
    six: str


UPLINK = "wire1"
ENDPOINT = Pair("10.77.1.1", "fd77:1::1")
OUTSIDE = Pair("10.77.1.2", "fd77:1::2")
OUTSIDE_PORT, HOST_PORT, POD_PORT = 9000, 7000, 80


@dataclass(frozen=True, slots=True)
class Flow:
    """Somebody speaks to an address and port, by TCP and by UDP, and somebody is reached."""

    name: str
    source: str
    address: str
    port: int
    reached: str
    reached_port: int
    seen_as: str | None = None
    """The address that the one who is reached sees; None if it does not matter."""

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


def both(
    name: str, source: str, target: Pair, port: int, reached: tuple[str, int], *, seen_as: Pair | None = None
) -> tuple[Flow, Flow]:
    """The same over IPv4 and over IPv6; `reached` is who, and at which port."""
    seen4, seen6 = seen_as or (None, None)
    return (
        Flow(f"{name}, IPv4", source, target.four, port, *reached, seen4),
        Flow(f"{name}, IPv6", source, target.six, port, *reached, seen6),
    )


HOST_FLOWS = (
    *both("host to outside", "endpoint", OUTSIDE, OUTSIDE_PORT, ("outside", OUTSIDE_PORT)),
    *both("outside to host", "outside", ENDPOINT, HOST_PORT, ("endpoint", HOST_PORT)),
)


@dataclass(frozen=True)
class Place:
    """The endpoint, the world outside, and pods (containers, virtual machines) behind the endpoint."""

    endpoint: Netns
    outside: Netns
    pods: dict[str, Netns] = field(default_factory=dict)
    opened: ExitStack = field(default_factory=ExitStack)

    def where(self, name: str) -> Netns:
        return {"endpoint": self.endpoint, "outside": self.outside, **self.pods}[name]

    def pod(self, name: str) -> Netns:
        """A new pod, not wired to anything."""
        self.pods[name] = self.opened.enter_context(netns())
        return self.pods[name]

    def ip(self, *lines: str) -> None:
        """`ip` on the endpoint."""
        for line in lines:
            self.endpoint.command(f"ip {line}")

    def cable(self, name: str, device: str) -> Netns:
        """A new pod whose `eth0` is the other end of a device of the endpoint."""
        pod = self.pod(name)
        number = len(self.pods)
        # Different indexes on the two sides: see tests.netns.wire.
        self.ip(
            f"link add name {device} index {3000 + number} type veth"
            f" peer name eth0 index {4000 + number} netns {pod.path}",
            f"link set {device} up",
        )
        pod.command("ip link set eth0 up")
        return pod

    def show_bridged_frames(self, *, on: bool) -> None:
        """Do frames that a bridge passes on meet the hooks of IP packets, as Docker and Kubernetes want it?"""
        for version in ("", "6"):
            switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-ip{version}tables")
            self.endpoint.call(switch.write_text, str(int(on)))

    def bridge(self, name: str, gateway: Pair) -> None:
        """A bridge with the gateway's addresses."""
        self.ip(
            f"link add name {name} type bridge",
            f"addr add {gateway.four}/24 dev {name}",
            f"addr add {gateway.six}/64 dev {name} nodad",
            f"link set {name} up",
        )

    def plug(self, name: str, device: str, bridge: str, own: Pair, gateway: Pair) -> None:
        """A new pod on a bridge."""
        pod = self.cable(name, device)
        self.ip(f"link set {device} master {bridge}")
        address_pod(pod, own, gateway, 24, 64)

    def knows_the_way_to(self, network4: str, network6: str) -> None:
        """The outside sends what is for these networks to the endpoint."""
        self.outside.command(f"ip route add {network4} via {ENDPOINT.four}")
        self.outside.command(f"ip route add {network6} via {ENDPOINT.six}")


def address_pod(pod: Netns, own: Pair, gateway: Pair, bits4: int, bits6: int) -> None:
    """Give a pod its addresses and its way out."""
    pod.command(f"ip addr add {own.four}/{bits4} dev eth0")
    pod.command(f"ip addr add {own.six}/{bits6} dev eth0 nodad")
    if bits4 == 32:  # the gateway is on no network of the pod's
        pod.command(f"ip route add {gateway.four} dev eth0")
        pod.command(f"ip route add {gateway.six} dev eth0")
    pod.command(f"ip route add default via {gateway.four} dev eth0")
    pod.command(f"ip route add default via {gateway.six} dev eth0")


@contextmanager
def new_place() -> Iterator[Place]:
    """An endpoint that forwards, with its default route to the outside."""
    with netns() as endpoint, netns() as outside, ExitStack() as opened:
        for switch in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"):
            endpoint.call(Path(switch).write_text, "1")
        out = wire(endpoint, outside, 1)
        assert (out.device, out.left4, out.right6) == (UPLINK, ENDPOINT.four, OUTSIDE.six)
        place = Place(endpoint, outside, {}, opened)
        place.ip(f"route add default via {OUTSIDE.four}", f"route add default via {OUTSIDE.six}")
        yield place


# --- conversations ---------------------------------------------------------------------------------------------------


def receiver(place: Place, flow: Flow, kind: int) -> socket.socket:
    """A socket at which whoever is reached would notice it. Close it."""
    made = place.where(flow.reached).call(socket.socket, flow.family, kind)
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if flow.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("", flow.reached_port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def sender(place: Place, flow: Flow, kind: int) -> socket.socket:
    """A socket from which the flow begins. Close it."""
    made = place.where(flow.source).call(socket.socket, flow.family, kind)
    made.settimeout(PATIENCE)
    return made


def passes(place: Place, flow: Flow) -> None:
    """A datagram arrives, and a connection is made and carries bytes both ways."""
    with receiver(place, flow, socket.SOCK_DGRAM) as there, sender(place, flow, socket.SOCK_DGRAM) as here:
        here.sendto(flow.name.encode(), (flow.address, flow.port))
        content, peer = there.recvfrom(1000)
        assert content == flow.name.encode()
        assert flow.seen_as in {None, peer[0]}, flow.name
    call, answer = connected(place, flow)
    with call, answer:
        talk(call, answer)
        assert flow.seen_as in {None, answer.getpeername()[0]}, flow.name


def connected(place: Place, flow: Flow) -> tuple[socket.socket, socket.socket]:
    """A connection: the ends of who calls and who is reached."""
    with receiver(place, flow, socket.SOCK_STREAM) as there, ExitStack() as opened:
        call = opened.enter_context(sender(place, flow, socket.SOCK_STREAM))
        call.connect((flow.address, flow.port))
        answer = opened.enter_context(there.accept()[0])
        answer.settimeout(PATIENCE)
        opened.pop_all()  # both live on
        return call, answer


def talk(call: socket.socket, answer: socket.socket) -> None:
    """Bytes in both directions."""
    for left, right in ((call, answer), (answer, call)):
        left.sendall(b"still there")
        assert right.recv(100) == b"still there"


@contextmanager
def attempts(place: Place, flows: Sequence[Flow]) -> Iterator[None]:
    """Begin every flow without waiting for it; at the end of the block, nobody who listened may have heard anything."""
    with ExitStack() as opened:
        ears = {}
        for flow in flows:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                key = (flow.reached, flow.family, flow.reached_port, kind)
                if key not in ears:
                    ears[key] = opened.enter_context(receiver(place, flow, kind))
        for flow in flows:
            opened.enter_context(begun(place, flow))
        yield
        for key, ear in ears.items():
            assert not heard(ear), f"reached: {key}"


@contextmanager
def begun(place: Place, flow: Flow) -> Iterator[None]:
    """A ping, a datagram and a connection, none of them waited for."""
    ping(place.where(flow.source), flow.address)
    with sender(place, flow, socket.SOCK_DGRAM) as datagram, sender(place, flow, socket.SOCK_STREAM) as stream:
        stream.setblocking(False)
        with suppress(OSError):
            datagram.sendto(f"leak: {flow.name}".encode(), (flow.address, flow.port))
        with suppress(OSError):
            stream.connect((flow.address, flow.port))
        yield


def heard(ear: socket.socket) -> bool:
    """Has a datagram or a connection arrived at this socket?"""
    ear.setblocking(False)
    try:
        if ear.type == socket.SOCK_DGRAM:
            ear.recv(1000)
        else:
            ear.accept()[0].close()
    except BlockingIOError:
        return False
    return True


# --- the one who looks on --------------------------------------------------------------------------------------------


class Observer:
    """Taps below every firewall: at the outside's end of the uplink, and inside every pod."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._outside = Tap(place.outside, UPLINK)
        self._pods = {name: Tap(pod, "eth0") for name, pod in place.pods.items()}

    def leaks(self) -> Mapping[str, list[bytes]]:
        """What has arrived since the last call though it must not, by place; empty if nothing has."""
        found = {"outside": self._outside.leaks(), **{name: tap.frames() for name, tap in self._pods.items()}}
        return {name: frames for name, frames in found.items() if frames}


class Held:
    """A firewall on the endpoint that lives on between calls, as the agent's does."""

    def __init__(self, place: Place) -> None:
        self.place = place
        inner = Wire("eth0", *("",) * 4)
        out = Wire(UPLINK, *ENDPOINT, *OUTSIDE)
        pod = next(iter(place.pods.values()), place.outside)
        self.world = World(place.endpoint, place.outside, pod, out, inner)
        self._ready: Future[tuple[NftFirewall, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: place.endpoint.run(self._live))
        self._thread.start()
        self._firewall, self._loop, self._over = self._ready.result(PATIENCE)

    async def _live(self) -> None:
        firewall, over = NftFirewall(Namespace.current("net")), asyncio.Event()
        self._ready.set_result((firewall, asyncio.get_running_loop(), over))
        await over.wait()
        await firewall.close()

    def use(self, use: Callable[[NftFirewall], Awaitable[T]]) -> T:
        async def used() -> T:
            return await use(self._firewall)

        return asyncio.run_coroutine_threadsafe(used(), self._loop).result(PATIENCE)

    def isolate(
        self, *allow: Opening, proxies: Sequence[Peer] = (), resolvers: Sequence[IPv4Address] = ()
    ) -> KernelIsolation:
        """Only the server stays reachable, and what is allowed."""
        rules = IsolationRules(
            servers=self.world.rules.servers, allow=allow, proxies=tuple(proxies), resolvers=tuple(resolvers)
        )
        self.use(lambda firewall: firewall.isolate(rules, lift_after=10 * MINUTE))
        return self.state()

    def state(self) -> KernelIsolation:
        return self.use(lambda firewall: firewall.isolation())

    def lift(self) -> bool:
        return self.use(lambda firewall: firewall.lift())

    def fence(self) -> None:
        """The server is reached over both versions, and whatever was sent before has arrived since."""
        fence(self.world)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)


# --- what others have put there --------------------------------------------------------------------------------------

_OURS = re.compile(r"^table (inet|netdev) stanch\S* \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_CHANGING = re.compile(r"^#.*\n|\[\d+:\d+\]", re.MULTILINE)
"""Dates, and counters."""

SAVES = (
    "iptables-nft-save",
    "ip6tables-nft-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
    "ipset save",
    "ip -4 rule",
    "ip -6 rule",
    "ip -4 route show table all",
    "ip -6 route show table all proto boot",
)


def foreign(place: Place) -> dict[str, str]:
    """Every rule, set and route of the endpoint that is not ours, without counters."""
    found = {save: _CHANGING.sub("", place.endpoint.command(save)) for save in SAVES}
    found["nft"] = _OURS.sub("", place.endpoint.command("nft -s list ruleset"))
    return found
