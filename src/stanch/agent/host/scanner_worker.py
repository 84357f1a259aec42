"""The door to the scanner's worker: start one, speak with it in lines, and see that it ends with what it started.

It is trusted with nothing. Its lines are bounded; whoever reads them validates what is in them. It has no environment
and no descriptors but its pipes and those that are named.
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from stanch.core.errors import ActionFailed, Unavailable
from stanch.core.scan_wire import MAX_ANSWER

COMMAND: Final = (sys.executable, "-I", "-X", "utf8", "-m", "stanch.worker.scan")
BLOCK: Final = 256 * 2**10
"""Bytes of material that are handed over at once."""
AHEAD: Final = 2**20
"""Bytes that may wait for the worker in its pipe, and as many before it."""

_COMPLAINTS = 2000
"""Bytes of them that are kept."""

_PATIENTLY = 65_536
"""Bytes of complaints after which they are read slowly: whoever complains for ever is not to keep us busy."""
_SLOWLY = 0.05
"""Seconds between two looks at them then."""

_LAST_WORDS = 0.5
"""Seconds: something that left its session may keep its streams open."""

_BREAKS = (BrokenPipeError, ConnectionResetError)


class Worker:
    """One that runs. Use `start`, and `end` it whatever happens."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._writing = asyncio.Lock()
        self._complaints = b""
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        _widen(process.stdin)
        self.at_end: Callable[[], None] = lambda: None
        """Called in a thread, before its end is waited for and after: ends what left the session, and tidies up."""

    @classmethod
    async def start(cls, command: Sequence[str] = COMMAND, *, descriptors: Sequence[int] = ()) -> "Worker":
        """A new one, in a session of its own, with these descriptors at the same numbers; Unavailable."""
        starting = asyncio.get_running_loop().create_task(
            asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={},
                cwd="/",
                start_new_session=True,
                pass_fds=tuple(descriptors),
                limit=MAX_ANSWER,
            )
        )
        try:
            return cls(await asyncio.shield(starting))
        except OSError as error:
            raise Unavailable("The scanner cannot be started", got=error.strerror) from error
        except asyncio.CancelledError:  # it is not lost if its caller is cancelled meanwhile
            await asyncio.wait({starting})
            if starting.exception() is None:
                await cls(starting.result()).end()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def how(self) -> str:
        """How it has ended, in words."""
        status = self._process.returncode
        if status is None:
            return "closing its output"
        if status < 0:
            return f"signal {signal.Signals(-status).name}"
        last = self._complaints.strip().rpartition(b"\n")[2].decode("utf-8", "backslashreplace")[:300]
        return f"exit status {status}{f': {last}' if last else ''}"

    async def _listen(self) -> None:
        """Keep the last of what it complains about, and never let it wait for that to be read."""
        pipe, heard = self._process.stderr, 0
        while pipe is not None and (piece := await pipe.read(_COMPLAINTS)):
            self._complaints = (self._complaints + piece)[-_COMPLAINTS:]
            heard += len(piece)
            if heard > _PATIENTLY:
                await asyncio.sleep(_SLOWLY)

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message, when there is room for it; nothing if it is gone: its output says so."""
        await self.hand_over(json.dumps(message).encode() + b"\n")

    async def hand_over(self, data: bytes) -> None:
        """Send bytes as they are."""
        pipe = self._process.stdin
        if pipe is None or pipe.is_closing():
            return
        with suppress(*_BREAKS):
            async with self._writing:  # a command must not stand in the middle of a material's bytes
                pipe.write(data)
                await pipe.drain()

    def material(self) -> asyncio.Lock:
        """Held by whoever sends something in several pieces by `piece`."""
        return self._writing

    async def piece(self, data: bytes) -> bool:
        """Send bytes while `material` is held; False if it is gone."""
        pipe = self._process.stdin
        if pipe is None or pipe.is_closing():
            return False
        try:
            pipe.write(data)
            await pipe.drain()
        except _BREAKS:
            return False
        return True

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says, line by line, until its end; ActionFailed if a line is too long."""
        pipe = self._process.stdout
        if pipe is None:
            raise Unavailable("The scanner has no streams")
        while True:
            try:
                line = await pipe.readuntil(b"\n")
            except asyncio.IncompleteReadError:  # half a line is none: it died over it
                return
            except asyncio.LimitOverrunError:
                raise nonsense(f"a line of more than {MAX_ANSWER} bytes") from None
            yield line

    async def ended(self, *, within: float) -> None:
        """Wait until it has ended by itself, but no longer than these seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._process.wait()

    def kill(self) -> None:
        """Kill it and its session; `end` is still to be called."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it and all that it may have started, and wait for its end."""
        self.kill()
        await asyncio.to_thread(self.at_end)
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._let_go()
        await self._process.wait()
        await asyncio.wait({self._listening}, timeout=_LAST_WORDS)
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        # Nothing that is public lets go of streams that somebody else still holds.
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - see above
        await asyncio.to_thread(self.at_end)

    async def _let_go(self) -> None:
        """Read what is left, so that its end is heard of; not longer than a moment, as others may hold its output."""
        pipe = self._process.stdout
        if pipe is None:
            return
        with suppress(*_BREAKS, OSError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                while await pipe.read(BLOCK):
                    pass


def _widen(pipe: asyncio.StreamWriter | None) -> None:
    """Let more wait in a pipe than the usual 64 KiB: rules are read while the worker still starts."""
    if pipe is not None:
        ours = pipe.get_extra_info("pipe")  # None in the agent: uvloop does not tell it, and uses a socket
        with suppress(OSError):  # what all pipes of a user may hold is limited
            if ours is not None:
                fcntl.fcntl(ours.fileno(), fcntl.F_SETPIPE_SZ, AHEAD)
        pipe.transport.set_write_buffer_limits(high=AHEAD)


def nonsense(got: str) -> ActionFailed:
    """It said something that it cannot have to say."""
    return ActionFailed(
        "The scanner answered nonsense, and was ended",
        got=got[:500],
        expected="what it was asked for",
        hint="A file may have taken it over. Nothing that it told from then on counts.",
    )
