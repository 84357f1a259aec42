"""The door for interactive programs, beside `run.py`: a program on a pseudo terminal, and all that descends from it.

It differs from what `run.py` starts in everything that matters: it has a terminal, another account's rights, an
environment to live in, and hours. So a process of its own (`terminal_keeper.py`, which may fork, as a process with
threads and an event loop may not) makes it the leader of a session, gives it the terminal and its account, and ends
whatever it leaves, also if this agent dies.
"""

import asyncio
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog

from stanch.agent.host import terminal_keeping
from stanch.agent.host.marks import of_task
from stanch.agent.host.procfs import PROC, Stat, pids, read_stat
from stanch.agent.host.program_child import write
from stanch.agent.host.program_group import make_group, remove_group
from stanch.agent.host.program_tree import send
from stanch.core.errors import ActionFailed, Invalid, TargetGone
from stanch.core.processes import ProcessId
from stanch.core.programs import Resources

T = TypeVar("T")

KEEPER = Path(__file__).with_name("terminal_keeper.py")

START_SECONDS = 20.0
"""For a program to be started: its account and folder may be on a network."""

END_SECONDS = 20.0
"""For all of it to end once it is being killed; what waits inside the kernel is left then."""

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_LACKING = {errno.EPERM, errno.EACCES}
_DEVICE_BITS = 0xFFFFFFFF

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run on a terminal, as whom."""

    task: str
    programs: Sequence[tuple[str, str]]
    """Path, and the name that it is called by: the first that can be run."""
    arguments: Sequence[str]
    environment: Mapping[str, str]
    uid: int
    gid: int
    groups: Sequence[int]
    folder: str
    folder_must: bool
    """Is it no use to begin anywhere else?"""
    group: str | None = None
    """The folder of the control group that it belongs into."""

    def to_json(self) -> bytes:
        """As the keeper reads it; Invalid if it is too much."""
        words = {name: getattr(self, name) for name in terminal_keeping.What.__annotations__}
        text = json.dumps({**words, "environment": dict(self.environment)}).encode()
        if len(text) > terminal_keeping.MAX_MESSAGE:
            raise Invalid(
                "The shell's start takes too many words",
                got=f"{len(text)} bytes",
                expected=f"at most {terminal_keeping.MAX_MESSAGE}",
            )
        return text


class Pty:
    """A pseudo terminal, its program held until it is told to `run`. `end` it, whatever happens."""

    def __init__(self, task: str, master: int, words: socket.socket, group: Path | None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._task = task
        self._master = master
        self._words = words
        self._group = group
        self._keeper = _Keeper()
        self._pid: asyncio.Future[int] = loop.create_future()
        self._running: asyncio.Future[None] = loop.create_future()
        self._device: _Device | None = None
        self.id: ProcessId
        """Which process it is."""
        self.exited: asyncio.Future[int | None] = loop.create_future()
        """Its exit status, negative for the signal that ended it; None if nobody can tell."""
        self.gone = asyncio.Event()
        """Nothing of it runs any more."""

    @classmethod
    async def start(cls, command: Command, *, columns: int, rows: int, groups: Path | None = None) -> Self:
        """A terminal with its program, which waits for `run`; ActionFailed if it cannot be started.

        In a control group of its own below `groups`, if there is that.
        """
        command.to_json()  # too many words are refused before anything is made
        group = make_group(groups, command.task, Resources())
        text = replace(command, group=None if group is None else str(group)).to_json()
        master, slave = os.openpty()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one = cls(command.task, master, ours, group)
        try:
            one.resize(columns, rows)
            one._device = _Device.of(os.fstat(slave))
            os.set_blocking(master, False)
            ours.setblocking(False)
            one._keeper.start(command.task, theirs.fileno(), slave)
            one._loop.add_reader(ours.fileno(), one._hear)
            ours.send(text)
            pid = await one._told(one._pid)
            stat = read_stat(pid)
            one.id = ProcessId(pid=pid, started=stat.started if stat else 0)
        except BaseException:
            os.close(slave)
            slave = -1
            await asyncio.shield(one.end())
            raise
        finally:
            theirs.close()
            if slave >= 0:
                os.close(slave)
        return one

    async def run(self) -> None:
        """Let it begin; TargetGone or ActionFailed if its program, folder or account cannot be had."""
        self._words.send(b"go")
        await self._told(self._running)

    def resize(self, columns: int, rows: int) -> None:
        """Its window has another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def read(self, most: int) -> bytes:
        """What it wrote, at most so much; nothing once nobody can write any more."""
        while True:
            try:
                return os.read(self._master, most)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return b""

    async def write(self, data: bytes) -> int:
        """Type this, as far as there is room for it; how much of it was typed. 0 once nobody reads any more."""
        while True:
            try:
                return os.write(self._master, data)
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return 0

    async def _ready(self, add: Callable[[int, Callable[[], object]], None], remove: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        add(self._master, ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._master)

    # --- its end -----------------------------------------------------------------------------------------------------

    def hang_up(self, grace: timedelta) -> None:
        """SIGHUP to all of it, and SIGKILL to what is left after the grace."""
        with suppress(OSError):
            self._words.send(f"hang-up {grace.total_seconds()}".encode())

    async def end(self) -> None:
        """Kill what is left of it, and see that it is gone; the terminal is closed then. Repeating it is harmless."""
        if self._master < 0:
            return
        self._loop.remove_reader(self._words.fileno())
        self._words.close()
        await self._keeper.ended(within=END_SECONDS)
        self._lost()
        await self.sweep()
        remove_group(self._group)
        os.close(self._master)
        self._master = -1

    async def sweep(self) -> None:
        """Kill whoever got away, since somebody has killed the keeper: by the marks, and by the terminal.

        Not by the session: once its leader is gone, its number may be another's.
        """
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        if self._group is not None:
            with suppress(OSError):
                write(f"{self._group}/cgroup.kill", b"1")
        for one in of_task(self._task):
            send(one.pid, one.started, signal.SIGKILL)
        device = self._device
        for pid in pids() if device else ():
            stat = read_stat(pid)
            if stat is not None and device is not None and device.controls(stat):
                send(pid, stat.started, signal.SIGKILL)

    # --- what the keeper says ----------------------------------------------------------------------------------------

    async def _told(self, word: asyncio.Future[T]) -> T:
        try:
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.shield(word)
        except TimeoutError:
            raise ActionFailed(
                "The shell could not be started",
                got=f"nothing within {START_SECONDS:g} s",
                hint="Its home or its account may be on a server that does not answer.",
            ) from None

    def _hear(self) -> None:
        try:
            message = self._words.recv(terminal_keeping.MAX_MESSAGE).decode("utf-8", "replace")
        except OSError:
            message = ""
        word, _, rest = message.partition(" ")
        match word:
            case "pid":
                _settle(self._pid, int(rest))
            case "running":
                _settle(self._running, None)
            case "failed":
                _fail(self._running, _start_error(rest))
            case "exit":
                _settle(self.exited, int(rest))
            case _:
                self._loop.remove_reader(self._words.fileno())
                self._lost()

    def _lost(self) -> None:
        """The keeper has ended, since nothing of it is left, or was ended."""
        _fail(self._pid, ActionFailed("The shell could not be started", got="its keeper ended"))
        _fail(self._running, ActionFailed("The shell could not be started", got="its keeper ended"))
        _settle(self.exited, None)
        self.gone.set()


@dataclass(frozen=True, slots=True)
class _Device:
    """One pseudo terminal. Its number alone does not tell: every container counts its own from 0, too."""

    number: int
    file: tuple[int, int]
    """File system and inode."""

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The one that this is the status of."""
        return cls(status.st_rdev, (status.st_dev, status.st_ino))

    def controls(self, stat: Stat) -> bool:
        """Is it the controlling terminal of this process, which has it open?"""
        return stat.terminal & _DEVICE_BITS == self.number and any(one == self.file for one in _open_files(stat.pid))


def _open_files(pid: int) -> Iterator[tuple[int, int]]:
    """File system and inode of what a process has open; nothing if it has ended, or does not let us look."""
    folder = f"{PROC}/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - numbers, not paths
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - a link of the kernel's own, not a path
            yield status.st_dev, status.st_ino


class _Keeper:
    """The keeper's own process; the kernel says when it has ended."""

    def __init__(self) -> None:
        self.pid = 0
        self._held = -1
        self._exited = asyncio.Event()

    def start(self, task: str, words: int, terminal: int) -> None:
        """Start it with these as its first two descriptors, and with nothing else of ours."""
        # Not by the event loop's own way: uvloop leaves copies of the descriptors open in the program.
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, words, 0),
            (os.POSIX_SPAWN_DUP2, terminal, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_RDWR, 0),
        ]
        argv = (sys.executable, "-I", "-S", "-X", "utf8", os.fspath(KEEPER), task)
        try:
            self.pid = os.posix_spawn(
                sys.executable, argv, {}, file_actions=actions, setsid=True, setsigmask=(), setsigdef=(signal.SIGPIPE,)
            )
        except OSError as error:
            raise ActionFailed("The shell's keeper could not be started", got=error.strerror) from error
        self._held = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._held, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._held)
        os.close(self._held)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        self._exited.set()

    async def ended(self, *, within: float) -> None:
        """Wait for its end, which it comes to by itself; killed if it does not."""
        if not self.pid:
            return
        try:
            async with asyncio.timeout(within):
                await self._exited.wait()
        except TimeoutError:
            log.warning("the keeper of a terminal did not end", pid=self.pid)
            # Nobody else asks for its exit status, so the number still is its own.
            os.kill(self.pid, signal.SIGKILL)
            await self._exited.wait()


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody may wait for it


def _start_error(text: str) -> ActionFailed:
    """What the keeper met."""
    number, _, what = text.partition(" ")
    code = int(number) if number.isdecimal() else 0
    if code in _GONE:
        return TargetGone("There is nothing to be started", got=what)
    hint = None
    if code in _LACKING:
        hint = "The agent may lack the right: changing the account takes CAP_SETUID and CAP_SETGID."
    return ActionFailed("The shell could not be started", got=what, hint=hint)
