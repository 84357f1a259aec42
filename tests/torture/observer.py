"""The independent observer: sees every frame that leaves the endpoint, on the outer side of its wires.

A process of its own, in the namespace outside. It shares no code with Stanch and believes nobody but the kernel, whose
timestamps it keeps. Questions and answers are JSON lines on standard input and output:

    {"ask": "seen", "since": T}                         -> {"streams": {NAME: count}, "frames": total}
    {"ask": "judge", "spans": [...], "windows": [...]}  -> {"leaks": [...], "count": n, ...}
"""

import ctypes
import json
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping
from selectors import EVENT_READ, DefaultSelector

from tests.torture.frame import read
from tests.torture.verdict import Seen, Span, judge

WIRE = "wire"
"""Devices whose names begin like this are wires to the endpoint."""

MAX_FRAMES = 500_000
KEPT_BYTES = 160
MAX_TOLD = 40
BUFFER_BYTES = 64 * 1024 * 1024
ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
PR_SET_PDEATHSIG = 1


class Observer:
    """Keeps what it saw, and judges it when asked."""

    def __init__(self) -> None:
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        self._raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._seen: list[tuple[float, str, bytes, int]] = []
        self._lost = 0

    def run(self) -> None:
        """Watch and answer until the input ends."""
        with DefaultSelector() as ready:
            ready.register(self._raw, EVENT_READ)
            ready.register(sys.stdin, EVENT_READ)
            say({"ready": True})
            while True:
                waiting = [key.fileobj for key, _ in ready.select()]
                self._take()
                if sys.stdin in waiting:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    say(self._answer(json.loads(line)))

    def _take(self) -> None:
        """Everything that waits at the socket."""
        offset = time.monotonic() - time.time()
        while True:
            try:
                data, about, _, sender = self._raw.recvmsg(65536, 256)
            except BlockingIOError:
                return
            device, direction = sender[0], sender[2]  # no name: it is gone already, as only wires go
            if direction == socket.PACKET_OUTGOING or (device and not device.startswith(WIRE)):
                continue
            if len(self._seen) >= MAX_FRAMES:
                self._lost += 1
                continue
            self._seen.append((_stamp(about) + offset, device, data[:KEPT_BYTES], len(data)))

    def _answer(self, question: Mapping) -> dict:
        return self._streams(question["since"]) if question["ask"] == "seen" else self._judged(question)

    def _streams(self, since: float) -> dict:
        late = [read(data, length) for at, _, data, length in self._seen if at >= since]
        return {"streams": Counter(frame.stream for frame in late), "frames": len(self._seen)}

    def _judged(self, question: Mapping) -> dict:
        seen = [Seen(at, device, read(data, length)) for at, device, data, length in self._seen]
        spans = [Span.of(one) for one in question["spans"]]
        found = judge(seen, spans, [tuple(one) for one in question["windows"]])
        told = [{"at": one.at, "device": one.device, "frame": str(one.frame)} for one in found.leaks[:MAX_TOLD]]
        return {
            "leaks": told,
            "count": len(found.leaks),
            "judged": found.judged,
            "in_windows": found.in_windows,
            "widest": found.widest,
            "lost": self._lost + self._dropped(),
        }

    def _dropped(self) -> int:
        """Frames that the kernel could not give us, for want of room."""
        _, drops = struct.unpack("II", self._raw.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        return drops


def _stamp(about: list) -> float:
    """The kernel's time of a frame; ours if it gave none."""
    for level, kind, data in about:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return seconds + nanoseconds / 1e9
    return time.time()


def say(answer: Mapping) -> None:
    """One line."""
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer to the driver


def main() -> None:
    """Observe until nobody asks any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    Observer().run()


if __name__ == "__main__":
    main()
