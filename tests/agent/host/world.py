"""The world around an isolated endpoint, for tests: what surrounds it, what may be sent, and what of it arrives.

Whether traffic passes is judged by taps outside, below every firewall, never by what the endpoint says.
"""

import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from structlog.testing import capture_logs

from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.core.network import IsolationRules, KernelIsolation, Peer
from tests.netns import Netns, Wire, netns, wire

SERVER_PORT = 8443
BEACON_PORT = 4444
MINUTE = timedelta(minutes=1)
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\1\x08\0"
"""Ethernet header of a broadcast with IPv4 in it."""


@dataclass(frozen=True)
class World:
    """An endpoint, the world outside, and a container that reaches the outside through the endpoint."""

    endpoint: Netns
    outside: Netns
    container: Netns
    out: Wire
    inner: Wire

    @property
    def rules(self) -> IsolationRules:
        return IsolationRules(
            servers=(Peer(address=self.out.right4, port=SERVER_PORT), Peer(address=self.out.right6, port=SERVER_PORT))
        )

    def firewall(self, use: Callable[[NftFirewall], Awaitable], *, own: bool | None = None):
        """Use a firewall on the endpoint, as the agent would; when it is closed, its tables are nobody's."""

        async def session():
            firewall = NftFirewall(Namespace.current("net"), own=own)
            try:
                with capture_logs():
                    return await use(firewall)
            finally:
                await firewall.close()

        return self.endpoint.run(session)

    def isolate(self, rules: IsolationRules | None = None, lift_after: timedelta | None = MINUTE) -> KernelIsolation:
        async def use(firewall: NftFirewall) -> KernelIsolation:
            await firewall.isolate(rules or self.rules, lift_after=lift_after)
            return await firewall.isolation()

        return self.firewall(use)

    def state(self) -> KernelIsolation:
        return self.firewall(lambda firewall: firewall.isolation())

    def destroy(self, rules: IsolationRules | None = None) -> int:
        return self.firewall(lambda firewall: firewall.destroy_sockets(rules or self.rules))

    def lift(self) -> bool:
        return self.firewall(lambda firewall: firewall.lift())


@contextmanager
def new_world() -> Iterator[World]:
    """Three namespaces in a row; the outside knows the way back to the container."""
    with netns() as endpoint, netns() as outside, netns() as container:
        for switch in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"):
            endpoint.call(Path(switch).write_text, "1")
        out, inner = wire(endpoint, outside, 1), wire(endpoint, container, 2)
        container.command(f"ip route add default via {inner.left4}")
        container.command(f"ip route add default via {inner.left6}")
        outside.command(f"ip route add 10.77.2.0/24 via {out.left4}")
        outside.command(f"ip route add fd77:2::/64 via {out.left6}")
        yield World(endpoint, outside, container, out, inner)


class Tap:
    """What arrives at a device from elsewhere, below every firewall."""

    def __init__(self, where: Netns, device: str) -> None:
        self._socket = where.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((device, 3))
        self._socket.settimeout(0)

    def frames(self) -> list[bytes]:
        """Everything since the last call, without what an isolated host may say: ARP, ND, MLD."""
        found = []
        with suppress(BlockingIOError):
            while True:
                frame, (_device, _protocol, direction, *_) = self._socket.recvfrom(65536)
                if direction != socket.PACKET_OUTGOING and not _is_upkeep(frame):
                    found.append(frame)
        return found

    def leaks(self) -> list[bytes]:
        """The same without the server's connections."""
        return [frame for frame in self.frames() if not _is_of_server(frame)]


def _is_upkeep(frame: bytes) -> bool:
    kind = frame[12:14]
    if kind == b"\x08\x06":
        return frame[14:16] == b"\0\1"
    if kind != b"\x86\xdd":
        return False
    body, following = frame[54:], frame[20]
    if following == 0:  # hop-by-hop options, as MLD has
        following, body = body[0], body[8 * (body[1] + 1) :]
    return following == 58 and body[0] in {133, 134, 135, 136, 143}


def _is_of_server(frame: bytes) -> bool:
    kind, port = frame[12:14], struct.pack("!H", SERVER_PORT)
    if kind == b"\x08\x00":
        return frame[23] == 6 and frame[36:38] == port
    return kind == b"\x86\xdd" and frame[20] == 6 and frame[56:58] == port


def fence(world: World) -> None:
    """A connection to the server and back over both versions: whatever was sent before has arrived since."""
    for address in (world.out.right4, world.out.right6):
        with (
            world.outside.listen(address, SERVER_PORT) as listener,
            world.endpoint.connect(address, SERVER_PORT) as call,
            world.outside.accept(listener) as answer,
        ):
            call.sendall(b"?")
            assert answer.recv(1) == b"?"
            answer.sendall(b"!")
            assert call.recv(1) == b"!"


def packet(address: str, port: int = BEACON_PORT, source: str = "10.77.1.1") -> bytes:
    """An IPv4 packet with a UDP beacon in it."""
    data = struct.pack("!HHHH", 5555, port, 72, 0) + b"leak".rjust(64, b".")
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(address))  # fmt: skip
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", 0xFFFF & ~(total + (total >> 16))) + head[12:] + data


def send_raw(where: Netns, device: str, content: bytes, *, ethertype: int = 0x0800, claimed: int | None = None) -> None:
    """A frame from a packet socket; `claimed` is what the sender tells the kernel that it is."""
    raw = where.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((device, 0))
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + struct.pack("!H", ethertype) + content
    with suppress(OSError):  # ENOBUFS: it was dropped
        raw.sendto(frame, (device, ethertype if claimed is None else claimed))


def send_udp(where: Netns, address: str, port: int = BEACON_PORT) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError):
        where.open_socket(family, socket.SOCK_DGRAM).sendto(b"leak", (address, port))


def start_tcp(where: Netns, address: str, port: int) -> socket.socket:
    """Begin a connection without waiting for it."""
    made = where.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    with suppress(OSError):
        made.connect((address, port))
    return made


def ping(where: Netns, address: str) -> None:
    six = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    echo = struct.pack("!BBHHH", 128 if six else 8, 0, 0 if six else 0xF7FC, 1, 2)
    with suppress(OSError):
        where.open_socket(family, socket.SOCK_RAW, protocol).sendto(echo, (address, 0))
