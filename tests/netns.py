"""Network namespaces for tests: made from nothing, wired with veth pairs, gone with the process that made them.

They have no name and no mount: a descriptor keeps each alive, so a killed test leaves nothing behind. Code runs inside
by moving one fresh thread there; programs and threads that it starts are inside too, the rest of the test is not.
Needs root.
"""

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Netns:
    """One network namespace, with its loopback up."""

    fd: int
    opened: ExitStack = field(repr=False)

    @property
    def path(self) -> str:
        """For `nsenter --net=PATH` and `ip link set ... netns PATH`, while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function inside, in a thread of its own, and return or raise what it does."""
        return _in_thread(lambda: (_check(_LIBC.setns(self.fd, _CLONE_NEWNET)), function(*arguments))[1])

    def run(self, coroutine: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine function inside, in an event loop of its own."""

        async def main() -> T:
            return await coroutine()

        return self.call(lambda: asyncio.run(main()))

    def command(self, line: str, *, stdin: str = "") -> str:
        """Run a program inside and return what it wrote; an exit status other than 0 raises."""
        done = self.call(lambda: subprocess.run(line.split(), input=stdin, capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket inside, for use from anywhere; closed with the namespace."""
        made = self.opened.enter_context(self.call(socket.socket, family, kind, protocol))
        made.settimeout(5)
        return made

    def listen(self, address: str, port: int) -> socket.socket:
        """A TCP listener inside."""
        made = self.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        return made

    def connect(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A connected socket inside; OSError if it cannot."""
        made = self.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        made.connect((address, port))
        return made

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection of a listener; closed with the namespace."""
        made = self.opened.enter_context(listener.accept()[0])
        made.settimeout(5)
        return made


@contextmanager
def netns() -> Iterator[Netns]:
    """A new, empty namespace."""
    with ExitStack() as opened:
        fd = _in_thread(_new)
        try:
            made = Netns(fd, opened)
            made.call(_no_duplicate_detection)
            made.command("ip link set lo up")
            yield made
        finally:
            opened.close()
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Wire:
    """A veth pair between two namespaces, with addresses."""

    device: str
    """Name of the device, on both sides."""

    left4: str
    left6: str
    right4: str
    right6: str


def wire(left: Netns, right: Netns, number: int) -> Wire:
    """Connect two namespaces; `number` (1 to 250) makes names and addresses unique among a test's wires."""
    made = Wire(
        device=f"wire{number}",
        left4=f"10.77.{number}.1",
        left6=f"fd77:{number}::1",
        right4=f"10.77.{number}.2",
        right6=f"fd77:{number}::2",
    )
    # With one index on both sides the kernel takes its time (a second) to notice that the link is up.
    one, other = (f"name {made.device} index {side + number}" for side in (1000, 2000))
    left.command(f"ip link add {one} type veth peer {other} netns {right.path}")
    for side, four, six in ((left, made.left4, made.left6), (right, made.right4, made.right6)):
        side.command(f"ip addr add {four}/24 dev {made.device}")
        side.command(f"ip addr add {six}/64 dev {made.device} nodad")
        side.command(f"ip link set {made.device} up")
    return made


def _no_duplicate_detection() -> None:
    # Otherwise each new IPv6 address is unusable for a second.
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")


def _new() -> int:
    _check(_LIBC.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _in_thread(function: Callable[[], T]) -> T:
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
