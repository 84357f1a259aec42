"""The demo's outside world: command-and-control listeners, a shop, and an observer on the endpoint's cable.

It knows nothing of Stanch. It records when which beacon arrives, holds the idle connections and can push bytes into
them, and answers the story's questions, one JSON line each, on a unix socket. Standard library only. Times are
CLOCK_MONOTONIC, which all processes of the machine share.
"""

import argparse
import asyncio
import errno
import fcntl
import json
import socket
import struct
import termios
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from stanch.demo.attack import BEACON_PORT, IDLE_PORT
from stanch.demo.client import SHOP_PORT
from stanch.demo.wire import Known, classify

MAX_LINE = 256
MAX_STREAMS = 64
MAX_ARRIVALS = 200_000
MAX_STRAYS = 20
MAX_IDLE = 16
ETH_P_ALL = 0x0003
TCP_RTO_MAX_MS = 44
RETRY_MS = 4000
"""What an isolated endpoint does not acknowledge is sent again at least this often, so that its end is seen soon."""


@dataclass(slots=True)
class Stream:
    """The arrivals of one kind."""

    times: list[float] = field(default_factory=list)
    last_sequence: int = 0

    def between(self, since: float, until: float) -> dict[str, Any]:
        """How many arrived in a span of time, the first and the last of them."""
        first, end = bisect_left(self.times, since), bisect_left(self.times, until)
        span = self.times[first:end]
        return {
            "count": len(span),
            "first": span[0] if span else None,
            "last": span[-1] if span else None,
            "last_sequence": self.last_sequence,
        }


@dataclass(slots=True)
class Arrivals:
    """All streams."""

    streams: dict[str, Stream] = field(default_factory=dict)
    strays: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_STRAYS))
    """The last frames on the cable that no isolated endpoint should send."""

    def note(self, name: str, sequence: int, at: float) -> None:
        """One more; beyond the bounds nothing is kept."""
        if name not in self.streams and len(self.streams) >= MAX_STREAMS:
            return
        stream = self.streams.setdefault(name, Stream())
        stream.last_sequence = max(stream.last_sequence, sequence)
        if len(stream.times) < MAX_ARRIVALS:
            stream.times.append(at)

    def note_line(self, line: bytes) -> None:
        """A beacon's line: `NAME SEQUENCE`; anything else is ignored."""
        name, _, number = line.decode("ascii", "replace").strip().partition(" ")
        if name.isalnum() and number.isdecimal() and len(line) <= MAX_LINE:
            self.note(name, int(number), time.monotonic())


@dataclass(slots=True)
class Idle:
    """One connection on which the endpoint only listens."""

    peer: str
    family: int
    connection: socket.socket = field(repr=False)
    state: str = "open"
    changed: float = field(default_factory=time.monotonic)

    def push(self) -> None:
        """Send a command to the endpoint."""
        try:
            self.connection.send(b"wake up\n")
        except OSError as error:
            self.end(error)

    def end(self, why: OSError | None) -> None:
        """It died, or was closed."""
        if self.state == "open":
            self.state = errno.errorcode.get(why.errno or 0, str(why)) if why else "closed"
            self.changed = time.monotonic()

    @property
    def unacknowledged(self) -> int:
        """Bytes that the endpoint's kernel has not confirmed."""
        if self.state != "open":
            return 0
        (waiting,) = struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0" * 4))
        return int(waiting)

    def view(self) -> dict[str, Any]:
        """For the story."""
        return {
            "peer": self.peer,
            "family": self.family,
            "state": self.state,
            "changed": self.changed,
            "unacknowledged": self.unacknowledged,
        }


class Outside:
    """Everything that listens."""

    def __init__(self, known: Known) -> None:
        self.arrivals = Arrivals()
        self.idles: list[Idle] = []
        self._known = known

    async def serve(self, chosen: argparse.Namespace) -> None:
        """Listen everywhere, say `ready`, and answer questions until cancelled."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            stack.callback(self._close_idle)
            for address in chosen.c2:
                await stack.enter_async_context(await asyncio.start_server(self._beacons, address, BEACON_PORT))
                stack.callback((await self._datagrams(address)).close)
                listening = stack.enter_context(_listening(address, IDLE_PORT))
                group.create_task(self._accept_idle(listening, group))
            for address in chosen.shop:
                await stack.enter_async_context(await asyncio.start_server(self._shop, address, SHOP_PORT))
            if chosen.wire:
                self._watch(stack.enter_context(_sniffer(chosen.wire)))
            await stack.enter_async_context(await asyncio.start_unix_server(self._answer, chosen.control))
            print("ready", flush=True)  # noqa: T201 - the protocol with the lab

    async def _datagrams(self, address: str) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.arrivals), (address, BEACON_PORT))
        return transport

    def _close_idle(self) -> None:
        for idle in self.idles:
            idle.connection.close()

    async def _beacons(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.arrivals.note_line(line)
        except (OSError, ValueError):  # broken, or a line without end
            pass
        finally:
            writer.close()

    async def _shop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.arrivals.note_line(await reader.readline())
            writer.write(b"thank you\n")
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    def _watch(self, raw: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(raw, self._frame, raw)

    def _frame(self, raw: socket.socket) -> None:
        frame, source = raw.recvfrom(2048)
        if source[2] != socket.PACKET_OUTGOING:
            name, about = classify(frame, self._known)
            self.arrivals.note(name, 0, time.monotonic())
            if name == "other":
                self.arrivals.strays.append(about)

    async def _accept_idle(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, peer = await loop.sock_accept(listening)
            with suppress(OSError):  # Linux 6.15 and later; others send it again ever more rarely
                connection.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, RETRY_MS)
            idle = Idle(f"{peer[0]} {peer[1]}", 6 if ":" in peer[0] else 4, connection)
            self.idles = [*self.idles[-MAX_IDLE + 1 :], idle]
            group.create_task(_hold(idle))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self.answer(json.loads(line))).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One question: `report` with `since` and `until`, or `push` with `family`."""
        if question.get("op") == "push":
            for idle in self.idles:
                if idle.family == question.get("family") and idle.state == "open":
                    idle.push()
        now = time.monotonic()
        since, until = float(question.get("since", 0)), float(question.get("until", now))
        return {
            "now": now,
            "streams": {name: stream.between(since, until) for name, stream in self.arrivals.streams.items()},
            "strays": list(self.arrivals.strays),
            "idle": [idle.view() for idle in self.idles],
        }


async def _hold(idle: Idle) -> None:
    """Wait until it ends; the endpoint never says anything."""
    try:
        while await asyncio.get_running_loop().sock_recv(idle.connection, 1024):
            pass
        idle.end(None)
    except OSError as error:
        idle.end(error)


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, port), family=family)
    listening.setblocking(False)
    return listening


def _sniffer(device: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    raw.bind((device, ETH_P_ALL))
    return raw


class _Datagrams(asyncio.DatagramProtocol):
    """Beacons over UDP."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:  # noqa: ARG002 - asyncio's signature
        self._arrivals.note_line(data)


def main() -> None:
    """Be the outside world."""
    parser = argparse.ArgumentParser(description="The outside world of the demo.")
    parser.add_argument("--c2", action="append", required=True, help="address of a command-and-control server")
    parser.add_argument("--shop", action="append", required=True, help="address of the harmless shop")
    parser.add_argument("--server", action="append", default=[], help="address of the Stanch server, for the observer")
    parser.add_argument("--wire", default="", help="device to observe")
    parser.add_argument("--control", required=True, help="unix socket for questions")
    chosen = parser.parse_args()
    known = Known(servers=frozenset(chosen.server), shops=frozenset(chosen.shop))
    asyncio.run(Outside(known).serve(chosen))


if __name__ == "__main__":
    main()
