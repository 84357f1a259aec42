"""Everybody who talks without end: on the endpoint, in its container, behind its macvlan device, and from outside.

One process that opens its sockets in the namespaces that it is given. It never stops and never asks whether it may:
what of it gets out is the observer's business. Standard library only.
"""

import ctypes
import heapq
import itertools
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from selectors import EVENT_READ, DefaultSelector

BEACON_PORT, IDLE_PORT, STEADY_PORT, INWARD_PORT = 4000, 4001, 4002, 7000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
ETH_EXPERIMENTAL, ETH_IPV4, ETH_IPV6, ETH_ARP = 0x88B5, 0x0800, 0x86DD, 0x0806
BROADCAST = b"\xff" * 6
RAW_MAC = b"\x02\0\0\0\0\1"
TCP_PATIENCE = 1.0
UDP_EVERY, TCP_EVERY, PING_EVERY, RAW_EVERY, STEADY_EVERY, IDLE_EVERY = 0.09, 0.21, 0.15, 0.11, 0.13, 0.23
SELDOM = 2.5
"""Whoever is not the point of most moves says less by this."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace, by a descriptor of it."""

    name: str
    descriptor: int

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in it that never waits."""
        if _libc.setns(self.descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def family_of(address: str) -> int:
    """Of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass(slots=True)
class Loop:
    """Timers and listeners."""

    ready: DefaultSelector = field(default_factory=DefaultSelector)
    timers: list[tuple[float, int, float, Callable[[], None]]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=itertools.count)

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """Again and again; OSError means that it was not possible this time."""
        heapq.heappush(self.timers, (time.monotonic(), next(self.order), seconds, work))

    def on(self, sock: socket.socket, work: Callable[[], None]) -> None:
        """When there is something to read."""
        self.ready.register(sock, EVENT_READ, work)

    def off(self, sock: socket.socket) -> None:
        """No more; it is closed."""
        with suppress(KeyError, ValueError):
            self.ready.unregister(sock)
        sock.close()

    def run(self) -> None:
        """For ever."""
        while True:
            wait = self.timers[0][0] - time.monotonic()
            for key, _ in self.ready.select(max(wait, 0.0)):
                with suppress(OSError):
                    key.data()
            while self.timers[0][0] <= time.monotonic():
                _, number, seconds, work = heapq.heappop(self.timers)
                with suppress(OSError):
                    work()
                heapq.heappush(self.timers, (time.monotonic() + seconds, number, seconds, work))


# --- those who call --------------------------------------------------------------------------------------------------


def chatter(loop: Loop, place: Place, target: str, port: int, *, slower: float = 1.0) -> None:
    """UDP, TCP and ping to one address."""
    udp = place.open(family_of(target), socket.SOCK_DGRAM)
    loop.every(UDP_EVERY * slower, lambda: udp.sendto(b"beacon", (target, port)) and None)
    icmp = place.open(family_of(target), socket.SOCK_RAW, 58 if ":" in target else 1)
    loop.every(PING_EVERY * slower, lambda: icmp.sendto(echo(target), (target, 0)) and drain(icmp))
    calls: list[socket.socket] = []
    loop.every(TCP_EVERY * slower, lambda: call(place, target, port, calls))


def call(place: Place, target: str, port: int, calls: list[socket.socket]) -> None:
    """One more connection; the oldest of those before are given up."""
    while len(calls) * TCP_EVERY > TCP_PATIENCE:
        calls.pop(0).close()
    made = place.open(family_of(target), socket.SOCK_STREAM)
    calls.append(made)
    made.connect_ex((target, port))


def echo(target: str) -> bytes:
    """An echo request; for ICMPv6 the kernel makes the checksum."""
    return struct.pack("!BBHHH", 128, 0, 0, 1, 2) if ":" in target else struct.pack("!BBHHH", 8, 0, 0xF7FC, 1, 2)


def drain(sock: socket.socket) -> None:
    """Forget what has arrived."""
    with suppress(OSError):
        while sock.recv(2048):
            pass


class Lasting:
    """A connection that is kept, and made again when it has died; it says something now and then, or never."""

    def __init__(self, place: Place, target: str, port: int, *, talks: bool) -> None:
        self._place, self._to, self._talks = place, (target, port), talks
        self._socket: socket.socket | None = None
        self._since = 0.0

    def step(self) -> None:
        """Look at it."""
        if self._socket is None:
            self._socket = self._place.open(family_of(self._to[0]), socket.SOCK_STREAM)
            self._since = time.monotonic()
            self._socket.connect_ex(self._to)
            return
        try:
            if self._talks:
                self._socket.send(b"still here")
            if not self._socket.recv(2048):
                raise ConnectionResetError
        except BlockingIOError:
            self._give_up_if_never_connected()
        except OSError:
            self._close()

    def _give_up_if_never_connected(self) -> None:
        if time.monotonic() - self._since < TCP_PATIENCE or self._socket is None:
            return
        try:
            self._socket.getpeername()
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


# --- those who answer ------------------------------------------------------------------------------------------------


def answer(loop: Loop, place: Place, port: int, *, keep: list[socket.socket] | None = None) -> None:
    """Accept connections and echo datagrams, on every address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        stream = place.open(family, socket.SOCK_STREAM)
        _bind(stream, family, port)
        stream.listen(64)
        loop.on(stream, lambda stream=stream: accept(loop, stream, keep))
        datagrams = place.open(family, socket.SOCK_DGRAM)
        _bind(datagrams, family, port)
        loop.on(datagrams, lambda datagrams=datagrams: reflect(datagrams))


def _bind(sock: socket.socket, family: int, port: int) -> None:
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))


def accept(loop: Loop, listener: socket.socket, keep: list[socket.socket] | None) -> None:
    """One connection: kept, or read until it ends."""
    made, _ = listener.accept()
    made.setblocking(False)
    if keep is not None:
        keep.append(made)
    loop.on(made, lambda: swallow(loop, made, keep))


def swallow(loop: Loop, sock: socket.socket, keep: list[socket.socket] | None) -> None:
    """What it says, until it ends."""
    try:
        ended = not sock.recv(65536)
    except BlockingIOError:
        return
    except OSError:
        ended = True
    if ended:
        loop.off(sock)
        if keep is not None and sock in keep:
            keep.remove(sock)


def reflect(sock: socket.socket) -> None:
    """A datagram goes back."""
    data, sender = sock.recvfrom(2048)
    sock.sendto(data, sender)


def push(idle: Sequence[socket.socket]) -> None:
    """A byte into every idle connection: whoever still has it must acknowledge."""
    for one in list(idle):
        with suppress(OSError):
            one.send(b"!")


# --- frames by hand --------------------------------------------------------------------------------------------------


class RawSender:
    """Frames past the network stack: IPv4, IPv6, an experimental type, and something that only claims to be ARP."""

    def __init__(self, place: Place, device: str, source: str, target: str) -> None:
        self._raw = place.open(socket.AF_PACKET, socket.SOCK_RAW)
        self._device = device
        udp = struct.pack("!HHHH", 5555, BEACON_PORT, 12, 0) + b"leak"
        ends = socket.inet_aton(source) + socket.inet_aton(target)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 32, 1, 0, 64, 17, 0) + ends
        self._contents = itertools.cycle(
            [
                (ETH_IPV4, ETH_IPV4, head + udp),
                (ETH_IPV6, ETH_IPV6, struct.pack("!IHBB", 6 << 28, 12, 17, 64) + b"\xfd" * 32 + udp),
                (ETH_EXPERIMENTAL, ETH_EXPERIMENTAL, b"leak" * 12),
                (ETH_IPV4, ETH_ARP, head + udp),
            ]
        )

    def step(self) -> None:
        """The next one."""
        ethertype, claimed, content = next(self._contents)
        self._raw.sendto(BROADCAST + RAW_MAC + struct.pack("!H", ethertype) + content, (self._device, claimed))


# --- all of them -----------------------------------------------------------------------------------------------------


def build(plan: dict) -> Loop:
    """Everybody whom the driver wants, as JSON has it."""
    loop, idle = Loop(), []
    places = {name: Place(name, descriptor) for name, descriptor in plan["places"].items()}
    outside = places["outside"]
    answer(loop, outside, BEACON_PORT)
    answer(loop, outside, STEADY_PORT)
    answer(loop, outside, IDLE_PORT, keep=idle)
    loop.every(IDLE_EVERY, lambda: push(idle))
    for name in plan["inside"]:
        answer(loop, places[name], INWARD_PORT)
        for target in plan["targets"]:
            chatter(loop, places[name], target, BEACON_PORT)
        for target in plan["others"]:
            chatter(loop, places[name], target, BEACON_PORT, slower=SELDOM)
    for name, target in plan["lasting"]:
        loop.every(STEADY_EVERY, Lasting(places[name], target, STEADY_PORT, talks=True).step)
        loop.every(STEADY_EVERY, Lasting(places[name], target, IDLE_PORT, talks=False).step)
    for target in plan["inward"]:
        chatter(loop, outside, target, INWARD_PORT, slower=SELDOM)
    for name, device, source, target in plan["raw"]:
        loop.every(RAW_EVERY, RawSender(places[name], device, source, target).step)
    return loop


def main() -> None:
    """Talk until killed."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    loop = build(json.loads(sys.argv[1]))
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)  # noqa: T201 - the driver waits for it
    loop.run()


if __name__ == "__main__":
    main()
