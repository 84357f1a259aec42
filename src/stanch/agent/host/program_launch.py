"""The door through which programs of `run_process` are started: a keeper for each, and the socket to it.

The other door, `run.py`, is for Stanch's own needs. Here an account, a folder, an environment and a file that was
ordered are given to a process of our own that outlives us, if need be, to see the end of what it started.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

from stanch.core.errors import ActionFailed, Unsupported

KEEPER = Path(__file__).with_name("program_keeper.py")

_FIRST = 3
_HIGH = 200
"""Above every number that a keeper is given, so that none is overwritten before it is moved to its place."""

_MAX_LINE = 1_048_576


def spawn(task: str, descriptors: Sequence[int]) -> int:
    """Start a keeper with these descriptors from 3 on, and nothing else of ours; its pid. ActionFailed."""
    with ExitStack() as stack:
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _HIGH) for one in descriptors]
        for one in high:
            stack.callback(os.close, one)
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(_FIRST)
        ]
        actions += [(os.POSIX_SPAWN_DUP2, one, number) for number, one in enumerate(high, _FIRST)]
        # -I and -S: the working folder, PYTHON* variables and installed packages must not decide what it runs.
        command = [sys.executable, "-I", "-S", "-X", "utf8", os.fspath(KEEPER), task]
        try:
            return os.posix_spawn(
                sys.executable, command, {}, file_actions=actions, setsigmask=(), setsigdef=(signal.SIGPIPE,)
            )
        except OSError as error:
            raise ActionFailed("The keeper of a program could not be started", got=error.strerror) from error


def reap(pid: int) -> None:
    """Ask for the exit status of a keeper as soon as it has ended, whoever waits: no zombie stays.

    Unsupported where the kernel has no pidfds.
    """
    loop = asyncio.get_running_loop()
    try:
        held = os.pidfd_open(pid)
    except OSError as error:
        raise Unsupported("This kernel has no pidfds", got=error.strerror, expected="Linux 5.3 or newer") from error

    def ended() -> None:
        loop.remove_reader(held)
        os.close(held)
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)

    loop.add_reader(held, ended)


class Conversation(asyncio.Protocol):
    """JSON objects on lines, both ways; `heard` is told each, and None when the other side is gone."""

    def __init__(self, heard: Callable[[Mapping[str, Any] | None], None]) -> None:
        self._heard = heard
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    async def over(self, one: socket.socket) -> None:
        """Talk over this socket."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=one)

    def say(self, message: Mapping[str, Any]) -> None:
        """Send it; nothing if nobody listens."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Hang up, after what was said."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio says that it can be used."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio hands over what came."""
        self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer[:] = rest
        try:
            for message in map(json.loads, lines):
                if isinstance(message, dict):
                    self._heard(message)
        except (ValueError, RecursionError):  # whoever is root may speak in the name of a keeper
            self._abort()
        if len(self._buffer) > _MAX_LINE:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Asyncio says that it is over."""
        self._transport = None
        self._heard(None)
