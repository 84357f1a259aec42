"""THE door through which Stanch starts other programs; every other way is shut by lint.

A program is found in fixed folders only, gets an environment made from nothing and a session of its own, never a shell,
and is killed with everything it started when its time is over or its caller is cancelled. What people order to be run
has doors of its own: `program_launch.py`, and `pty.py` for what needs a terminal.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Self, cast

from stanch.core.errors import ActionFailed, TimedOut, Unavailable, Unsupported

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/nonexistent"}
"""All that a program learns from us. HOME is named because some (nft) otherwise write their history into `/`."""

OUTPUT_LIMIT = 1_048_576
_PACKAGES = {"nft": "nftables", "ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended by itself."""

    returncode: int
    """Exit status; negative for the signal that ended it."""

    stdout: bytes
    stderr: bytes


def find(program: str) -> str:
    """The full path of a program; Unsupported, with the package that has it, if it is not installed."""
    found = shutil.which(program, path=PATH)
    if found is None or not os.path.isabs(found):  # noqa: PTH117 - text goes to the kernel as text
        package = _PACKAGES.get(program)
        raise Unsupported(
            f"The program {program} is not installed",
            expected=f"{program} in {PATH}",
            hint=f"Install the package {package}: `apt-get install {package}`." if package else None,
        )
    return found


async def run(
    argv: Sequence[str],
    *,
    within: timedelta,
    stdin: bytes = b"",
    output_limit: int = OUTPUT_LIMIT,
    started: Callable[[int], None] = lambda _pid: None,
) -> Finished:
    """Run a program to its end and return what it wrote, whatever its exit status; `started` is told its pid.

    Raises Unsupported if it is not installed, TimedOut if it is not done `within`, and ActionFailed if it writes more
    than `output_limit` bytes; it and its children are dead then.
    """
    streams = {1: bytearray(), 2: bytearray()}
    process: _Process

    def collect(stream: int, data: bytes) -> None:
        streams[stream] += data
        if sum(map(len, streams.values())) > output_limit:
            process.fail(_too_much(argv[0], output_limit))

    process = _Process(collect)
    await process.start(argv, stdin=PIPE if stdin else DEVNULL, stderr=PIPE)
    started(process.pid)
    try:
        process.write(stdin, last=True)
        async with asyncio.timeout(within.total_seconds()):
            await process.over
    except TimeoutError:
        raise TimedOut(
            f"{argv[0]} did not finish", got=f"nothing after {within.total_seconds():g} s", expected="an end"
        ) from None
    finally:
        await process.end()
    return Finished(process.returncode, bytes(streams[1]), bytes(streams[2]))


class Child:
    """A program that stays, answers one request after the other, and dies with its owner.

    Use it from one task at a time. Whatever goes wrong with a request, cancellation included, ends the program: what it
    would answer next could belong to the request before.
    """

    def __init__(self, name: str, *, output_limit: int) -> None:
        self._name = name
        self._limit = output_limit
        self._process = _Process(self._receive)
        self._buffer = bytearray()
        self._until = b""
        self._answered = asyncio.Event()

    @classmethod
    async def start(cls, argv: Sequence[str], *, output_limit: int = OUTPUT_LIMIT) -> Self:
        """Start it; Unsupported if it is not installed."""
        child = cls(argv[0], output_limit=output_limit)
        await child._process.start(argv, stdin=PIPE, stderr=STDOUT)
        return child

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return not self._process.over.done()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, request: bytes, *, until: bytes, within: timedelta) -> bytes:
        """Write a request; what it answers on both streams, up to a last line that begins with `until`.

        Raises Unavailable if it died, TimedOut, or ActionFailed if the answer is over the limit; it is dead then.
        """
        if not self.alive:
            raise Unavailable(f"{self._name} has ended", expected="a running program")
        self._buffer.clear()
        self._until = until
        self._answered.clear()
        try:
            self._process.write(request)
            async with asyncio.timeout(within.total_seconds()):
                await self._answer_or_death()
        except TimeoutError:
            await self.close()
            raise TimedOut(f"{self._name} did not answer", got=f"nothing in {within.total_seconds():g} s") from None
        except BaseException:
            await self.close()
            raise
        return bytes(self._buffer[: self._last_line()])

    async def close(self) -> None:
        """End it, and everything it started."""
        await self._process.end()

    async def _answer_or_death(self) -> None:
        await self._answered.wait()
        if not self.alive:
            self._process.over.result()  # raises if the answer was too long
            raise Unavailable(f"{self._name} ended", got=_tail(self._buffer), expected="an answer")

    def _receive(self, _stream: int, data: bytes) -> None:
        if not data:  # the end of the program
            self._answered.set()
            return
        self._buffer += data
        if len(self._buffer) > self._limit:
            self._process.fail(_too_much(self._name, self._limit))
            self._answered.set()
        elif data.endswith(b"\n") and self._buffer.startswith(self._until, self._last_line()):
            self._answered.set()

    def _last_line(self) -> int:
        return self._buffer.rfind(b"\n", 0, len(self._buffer) - 1) + 1


class _Process(asyncio.SubprocessProtocol):
    """One started program; `over` is done when it has ended and closed its streams."""

    def __init__(self, receive: Callable[[int, bytes], None]) -> None:
        self._receive = receive
        self._transport: asyncio.SubprocessTransport
        self._exited = asyncio.Event()
        self._closed = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, argv: Sequence[str], *, stdin: int, stderr: int) -> None:
        loop, program = asyncio.get_running_loop(), find(argv[0])
        starting = loop.create_task(
            loop.subprocess_exec(
                lambda: self,
                program,
                *argv[1:],
                stdin=stdin,
                stdout=PIPE,
                stderr=stderr,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a group of its own, to be killed as one
            )
        )
        try:
            await asyncio.shield(starting)
        except OSError as error:
            raise ActionFailed(f"{argv[0]} could not be started", got=error.strerror) from error
        except asyncio.CancelledError:
            # asyncio waits for ever if it is cancelled while it connects the pipes, and kills no children.
            await asyncio.wait({starting})
            if starting.exception() is None:
                await self.end()
            raise

    def write(self, data: bytes, *, last: bool = False) -> None:
        pipe = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if pipe is None:
            return
        if not pipe.is_closing():
            pipe.write(data)
        if last:
            pipe.close()

    @property
    def pid(self) -> int:
        return int(self._transport.get_pid())

    @property
    def returncode(self) -> int:
        code = self._transport.get_returncode()
        return -signal.SIGKILL if code is None else code

    def fail(self, error: Exception) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    async def end(self) -> None:
        """Kill the whole group if anything of it may be left, and wait for the program's end."""
        if not self._closed:
            # The number still means this group: it is not given out again while a process or group has it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)
        self._transport.close()
        await self._exited.wait()
        if not self.over.cancel() and not self.over.cancelled():
            self.over.exception()  # seen: nobody may be waiting for it any more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self.over.done():
            self._receive(fd, data)

    def process_exited(self) -> None:
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._closed = True
        self._transport.close()  # asyncio complains about one that ended by itself and was never closed
        if not self.over.done():
            self.over.set_result(None)
        self._receive(1, b"")


def _too_much(name: str, limit: int) -> ActionFailed:
    return ActionFailed(f"{name} wrote more than it may", got=f"over {limit} bytes", expected=f"at most {limit} bytes")


def _tail(output: bytearray) -> str:
    return bytes(output[-500:]).decode("utf-8", "backslashreplace").strip() or "no output"
