"""What can be tried from and to an isolated endpoint, for tests: TCP, UDP and ping, each way, and what came of it."""

import ctypes
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.agent.host.world import World, fence
from tests.netns import Netns

_LIBC = ctypes.CDLL(None, use_errno=True)

Made = Callable[[int, int], socket.socket]


@dataclass
class Probe:
    """One thing that is tried: its first packet, and the answer to it."""

    name: str
    begin: Callable[[], None]
    arrived: Callable[[], bool]
    answered: Callable[[], bool] = field(default=lambda: True)


def passing(world: World, probes: list[Probe]) -> set[str]:
    """Which of them get through, with an answer. All are tried at once."""
    for one in probes:
        with suppress(OSError):
            one.begin()
    fence(world)
    through = [one for one in probes if one.arrived()]
    fence(world)
    return {one.name for one in through if one.answered()}


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(
    name: str, source: Netns, target: Netns, address: str, port: int, *, local: int = 0, made: Made | None = None,
    taken: Made | None = None,
) -> Probe:  # fmt: skip
    """A datagram to a port, and one back. `made` and `taken` make the two sockets."""
    sends, takes = (made or source.open_socket)(family(address), socket.SOCK_DGRAM), (taken or target.open_socket)(
        family(address), socket.SOCK_DGRAM
    )  # fmt: skip
    sends.bind(("", local))
    takes.bind((address, port))
    for one in (sends, takes):
        one.setblocking(False)

    def arrived() -> bool:
        with suppress(BlockingIOError):
            data, peer = takes.recvfrom(100)
            with suppress(OSError):
                takes.sendto(b"answer", peer)
            return data == b"probe"
        return False

    def answered() -> bool:
        with suppress(OSError):
            return sends.recv(100) == b"answer"
        return False

    return Probe(name, lambda: sends.sendto(b"probe", (address, port)) and None, arrived, answered)


def tcp(
    name: str, source: Netns, target: Netns, address: str, port: int, *, local: int = 0, made: Made | None = None,
    taken: Made | None = None,
) -> Probe:  # fmt: skip
    """A connection to a port: it is accepted only when packets went both ways."""
    sends, takes = (made or source.open_socket)(family(address), socket.SOCK_STREAM), (taken or target.open_socket)(
        family(address), socket.SOCK_STREAM
    )  # fmt: skip
    for one in (sends, takes):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setblocking(False)
    if local:
        sends.bind(("", local))
    takes.bind((address, port))
    takes.listen()
    kept: list[socket.socket] = []

    def arrived() -> bool:
        with suppress(BlockingIOError):
            answer = target.opened.enter_context(takes.accept()[0])
            answer.sendall(b"answer")
            kept.append(answer)
            return True
        return False

    def answered() -> bool:
        with suppress(OSError):
            return sends.recv(100) == b"answer"
        return False

    return Probe(name, lambda: sends.connect((address, port)), arrived, answered)


def ping(name: str, source: Netns, address: str, *, made: Made | None = None) -> Probe:
    """An echo request, and the kernel's reply to it."""
    six = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    if made is None:
        raw = source.open_socket(family(address), socket.SOCK_RAW, protocol)
    else:
        raw = made(family(address), socket.SOCK_RAW)
    raw.setblocking(False)
    echo = struct.pack("!BBHHH", 128 if six else 8, 0, 0 if six else 0xF7FC, 1, 2)

    def arrived() -> bool:
        with suppress(BlockingIOError):
            while True:
                data, peer = raw.recvfrom(1000)
                kind = data[0] if six else data[20]
                if kind == (129 if six else 0) and peer[0] == address:
                    return True
        return False

    return Probe(name, lambda: raw.sendto(echo, (address, 0)) and None, arrived)


# --- sockets of others -----------------------------------------------------------------------------------------------


def of_account(where: Netns, uid: int) -> Made:
    """Makes sockets that belong to an account, whoever uses them."""

    def make(family: int, kind: int) -> socket.socket:
        return where.opened.enter_context(where.call(_as_account, uid, family, kind))

    return make


def _as_account(uid: int, family: int, kind: int) -> socket.socket:
    # Of this thread alone, which ends with the call.
    _LIBC.setfsuid(uid)
    made = socket.socket(family, kind)
    made.settimeout(5)
    return made


_IN_GROUP = """
import os, socket, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
way = socket.socket(fileno=int(sys.argv[2]))
while True:
    asked = way.recv(100)
    if not asked:
        break
    family, kind = map(int, asked.split())
    with socket.socket(family, kind) as made:
        socket.send_fds(way, [b"x"], [made.fileno()])
"""


@contextmanager
def control_group(root: Path, name: str) -> Iterator[Callable[[Netns], Made]]:
    """A control group, and what makes sockets that belong to it; gone afterwards."""
    group = root / name
    group.mkdir()
    helpers: list[tuple[subprocess.Popen, socket.socket]] = []

    def of_group(where: Netns) -> Made:
        ours, theirs = socket.socketpair()
        helper = where.call(
            lambda: subprocess.Popen(
                [sys.executable, "-c", _IN_GROUP, str(group), str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        )
        theirs.close()
        helpers.append((helper, ours))

        def make(family: int, kind: int) -> socket.socket:
            ours.sendall(f"{int(family)} {int(kind)}".encode())
            _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
            return where.opened.enter_context(socket.socket(fileno=fd))

        return make

    try:
        yield of_group
    finally:
        for helper, ours in helpers:
            ours.close()
            helper.wait(10)
        group.rmdir()
