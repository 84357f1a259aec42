"""Runs programs on this machine: `core.programs` by a keeper, a control group and a mark for each.

What is ordered is opened once, in a thread: the program, its interpreter, the folder. A process of our own, the keeper
(`program_keeper.py`), is handed the descriptors and makes the process, which waits before its first instruction until
whoever ordered it has written down what it is. The keeper sees the end of all that descends from it, whatever becomes
of the agent.
"""

import asyncio
import errno
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from stanch.agent.host.marks import of_task
from stanch.agent.host.program_file import ProgramFile, not_executed, open_folder, open_program
from stanch.agent.host.program_group import make_group, remove_group, sweep_groups
from stanch.agent.host.program_keeping import STUCK_AFTER
from stanch.agent.host.program_launch import Conversation, reap, spawn
from stanch.agent.host.program_spool import NAMES, KeptStream, Spool, sweep
from stanch.agent.host.program_tree import send
from stanch.agent.path_rules import PathRules
from stanch.core.errors import ActionFailed, Invalid, StanchError, TimedOut
from stanch.core.evidence import Source
from stanch.core.processes import ProcessId
from stanch.core.programs import MAX_SECONDS, TASK_VARIABLE, Examined, Exit, Output, Program, Running
from stanch.core.types import EndpointPath, seconds

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LEAVE_GRACE = seconds(2)
"""Between SIGTERM and SIGKILL for whoever is left behind by a task that ends: within what a cancel may take."""

ANSWER = seconds(20)
"""How long a keeper may take to start, and the kernel to execute a program that lies on a slow disk."""

T = TypeVar("T")

_ROOT = EndpointPath("/")
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
_MAX_ROUNDS = 100
_KEEPER_GONE = "Somebody ended a process of Stanch, or memory is short. What was left of the program is ended, too."

_MOST_BYTES = 6 * 1_048_576
"""Arguments and environment: more is taken by no kernel."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a program runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @classmethod
    def of(cls, name: str | None) -> "Account":
        """The account of this name, None for the agent's own; Invalid if there is none. Asks the name service."""
        try:
            found = pwd.getpwuid(os.geteuid()) if name is None else pwd.getpwnam(name)
        except (KeyError, ValueError):
            if name is None:
                return cls(str(os.geteuid()), os.geteuid(), os.getegid(), (), "/", "/bin/sh")
            raise Invalid(
                "There is no such user here", got=name[:100], expected="the name of an account on the endpoint"
            ) from None
        groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
        return cls(found.pw_name, found.pw_uid, found.pw_gid, groups, found.pw_dir or "/", found.pw_shell or "/bin/sh")

    @property
    def change(self) -> tuple[int, int, tuple[int, ...]] | None:
        """Whom to become; None if the agent, which is not root, is it already."""
        return None if os.geteuid() and os.geteuid() == self.uid else (self.uid, self.gid, self.groups)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is to be run, held; the stack lets go of it."""

    stack: ExitStack
    account: Account
    file: ProgramFile
    folder: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxPrograms:
    """The programs of one task.

    Args:
        task: its id.
        spool: where output is kept until it is sent; a folder of the agent's own.
        rules: what the owner of the machine allows.
        groups: the control group below which a group may be made; None for none.
    """

    task: str
    spool: Path
    rules: PathRules = field(default_factory=PathRules)
    groups: Path | None = None

    def run(self, program: Program) -> AbstractAsyncContextManager[Running]:
        """Make its process. Leaving ends what is left of it, unless it `outlives`, and forgets its output."""
        return self._run(program)

    @asynccontextmanager
    async def _run(self, program: Program) -> AsyncIterator[Running]:
        opened, spool = await self._in_thread(self._open_to_run, program)
        with opened.stack:
            kept = Kept(program, self.task, opened=opened, spool=spool)
            try:
                await kept.start(make_group(self.groups, self.task, program.resources))
                yield kept
            finally:
                await asyncio.shield(kept.leave())

    async def examine(self, program: Program) -> Examined:
        """What would be run."""
        opened = await self._in_thread(self._open, program)
        with opened.stack:
            sha256 = await asyncio.to_thread(opened.file.sha256)
            remove_group(make_group(self.groups, self.task, program.resources))
            return Examined(
                path=opened.file.path,
                kind=opened.file.kind,
                interpreter=opened.file.interpreter,
                sha256=sha256,
                user=opened.account.name[:200],
                warnings=tuple(one[:4000] for one in (*opened.file.warnings(), *confinement())),
            )

    async def _in_thread(self, work: Callable[[Program], T], program: Program) -> T:
        """A network file system may hang; if nobody waits any more, what was opened is closed again."""
        working = asyncio.get_running_loop().run_in_executor(None, work, program)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            working.add_done_callback(_close_unwanted)
            raise

    def _open(self, program: Program) -> _Opened:
        _check_words(program)
        self.rules.check_environment(program.environment)
        account = Account.of(program.user)
        with ExitStack() as stack:
            try:
                file = open_program(program.path, self.rules, stack)
                folder = open_folder(program.folder or _ROOT, self.rules, stack)
                file = file.pinned(program.sha256, stack)
            except OSError as error:
                raise ActionFailed(f"{program.path} cannot be looked at", got=error.strerror) from error
            return _Opened(stack.pop_all(), account, file, folder)

    def _open_to_run(self, program: Program) -> tuple[_Opened, Spool]:
        opened = self._open(program)
        try:
            return opened, Spool(self.spool, self.task, opened.stack)
        except OSError as error:
            opened.stack.close()
            raise ActionFailed(
                "There is no room to keep what a program writes", got=error.strerror, hint="Is the disk full?"
            ) from error


def _close_unwanted(working: "asyncio.Future[Any]") -> None:
    if not working.cancelled() and working.exception() is None:
        result = working.result()
        (result[0] if isinstance(result, tuple) else result).stack.close()


def confinement(status: Path = Path("/proc/self/status"), last: Path = _LAST_CAPABILITY) -> Iterator[str]:
    """What the service that the agent runs in may not do, and so nothing that it starts."""
    try:
        told = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        missing = ~int(told["CapBnd"], 16) & ((2 << int(last.read_text())) - 1)
    except (OSError, KeyError, ValueError):
        return
    if missing:
        yield f"It may do less than root, as the agent itself may: {missing.bit_count()} capabilities are shut off"
    if told.get("NoNewPrivs", "0").strip() != "0":
        yield "Nothing that it starts gains rights by set-user-id bits: the agent's service forbids it"
    if told.get("Seccomp", "0").strip() == "2":
        yield "System calls are filtered for it as they are for the agent"


def recover(spool: Path, groups: Path | None) -> int:
    """Clear what runs before this start of the agent have left; how many. Call it before anything is run. Blocks."""
    sweep_groups(groups)
    return sweep(spool)


def _check_words(program: Program) -> None:
    words = [*program.arguments, *program.environment, *program.environment.values()]
    if any("\0" in one for one in words):
        raise Invalid("An argument holds a NUL", expected="arguments and variables without NUL")
    size = sum(len(_word(one)) for one in words)
    if size > _MOST_BYTES:
        raise not_executed("execute", errno.E2BIG, program.path)
    wrong = [one for one in program.environment if not one or "=" in one or one == TASK_VARIABLE]
    if wrong:
        raise Invalid(
            "This is no variable that may be set", got=wrong[0][:100], expected=f"a name without =, not {TASK_VARIABLE}"
        )


class Kept:
    """A program and its keeper: `core.programs.Running`."""

    def __init__(self, program: Program, task: str, *, opened: _Opened, spool: Spool) -> None:
        self._program = program
        self._task = task
        self._opened = opened
        self._spool = spool
        self._talk = Conversation(self._heard)
        self._news = asyncio.Event()
        self._id: ProcessId | None = None
        self._path = opened.file.path
        self._began = self._over = self._gone = False
        self._refused: tuple[str, int] | None = None
        self._exit: Exit | None = None
        self._counts = ((0, 0), (0, 0))
        self._last = ""
        self._pid = 0
        self._group: Path | None = None

    # --- its life ---

    async def start(self, group: Path | None) -> None:
        """Start the keeper, and wait until the process is there."""
        self._group, file = group, self._opened.file
        interpreter = file.descriptor if file.interpreter_descriptor is None else file.interpreter_descriptor
        ours, its = socket.socketpair()
        with its:
            descriptors = (its.fileno(), file.descriptor, interpreter, self._opened.folder, *self._spool.files)
            try:
                self._pid = spawn(self._task, descriptors)
            except BaseException:
                ours.close()
                raise
        reap(self._pid)
        await self._talk.over(ours)
        self._talk.say(self._order())
        if not await self._until(lambda: self._id is not None or self._refused is not None, within=ANSWER):
            raise ActionFailed("The keeper of the program does not answer", expected=f"an answer within {ANSWER}")
        self._raise_refused(unless=self._id is not None)

    def _order(self) -> Mapping[str, Any]:
        file, account, group = self._opened.file, self._opened.account, self._group
        return {
            "path": os.fsdecode(file.path.raw),
            "by_path": file.by_path,
            "state": file.state,
            "script": file.script,
            "arguments": [os.fsdecode(self._program.path.raw), *map(_word, self._program.arguments)],
            "environment": environment_of(self._program, account, self._task),
            "user": account.change,
            "group": None if group is None else os.fspath(group),
            "keep": self._program.keep,
            "outlives": self._program.outlives,
        }

    @property
    def id(self) -> ProcessId:
        """Its process."""
        if self._id is None:
            raise ActionFailed("The program has no process")
        return self._id

    async def begin(self) -> None:
        """Let it execute its first instruction."""
        self._talk.say({"begin": True})
        if not await self._until(lambda: self._began or self._refused is not None, within=ANSWER):
            raise TimedOut(f"{self._path} did not begin", got=f"nothing within {ANSWER}", hint="Its disk may hang.")
        self._raise_refused(unless=self._began)

    def _raise_refused(self, *, unless: bool) -> None:
        if self._refused is not None:
            raise not_executed(*self._refused, self._path)
        if not unless:
            raise ActionFailed(f"{self._path} was not started: its keeper has ended", hint=_KEEPER_GONE)

    async def wait(self, *, within: timedelta) -> Exit | None:
        """Until it has ended, with what it left behind unless it outlives."""
        if not await self._until(lambda: self._exit is not None, within=within):
            return None
        return self._ended()

    async def end(self, *, grace: timedelta) -> Exit:
        """SIGTERM to all of it, SIGKILL to what is left after the grace."""
        self._talk.say({"end": grace.total_seconds()})
        longest = grace + timedelta(seconds=STUCK_AFTER + 5)
        await self._until(lambda: self._over or (self._exit is not None and not self._program.outlives), within=longest)
        return self._ended()

    def _ended(self) -> Exit:
        if self._exit is None:
            raise ActionFailed(
                f"How {self._path} ended cannot be told: its keeper was ended",
                hint=_KEEPER_GONE,
            )
        return self._exit

    async def leave(self) -> None:
        """End what is left, unless it goes on by itself; never raises for what a program did."""
        goes_on = self._program.outlives and self._exit is not None
        try:
            if self._pid and not (self._over or self._gone or goes_on):
                with suppress(StanchError):
                    await self.end(grace=LEAVE_GRACE if self._began else timedelta(0))
            if self._pid and self._gone and not (self._over or goes_on):
                await asyncio.to_thread(_end_marked, self._task)
        finally:
            self._talk.close()
            if not goes_on:
                remove_group(self._group)

    # --- what it wrote ---

    def stdout(self) -> Output:
        """What it wrote so far."""
        return self._spool.output(0, *self._counts[0])

    def stderr(self) -> Output:
        """What it complained so far."""
        return self._spool.output(1, *self._counts[1])

    def last_line(self) -> str:
        """The last line that it wrote on either stream, shortened."""
        return self._last

    def kept(self) -> tuple[Source, Source]:
        """Both streams as they were kept up to now."""
        made = [
            KeptStream(f"{self._path.name}.{name}", self._spool, which, self._counts[which][1])
            for which, name in enumerate(NAMES)
        ]
        return made[0], made[1]

    # --- its keeper ---

    async def _until(self, ready: Callable[[], bool], *, within: timedelta) -> bool:
        """Wait for news that make it so; False if they do not come, or cannot come any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                while not (ready() or self._gone):
                    self._news.clear()
                    await self._news.wait()
        return ready() or self._gone

    def _heard(self, message: Mapping[str, Any] | None) -> None:
        """Something from the keeper: it is a process of ours, but who is root may speak in its name."""
        try:
            self._note(message)
        except (KeyError, TypeError, ValueError):
            self._gone = True
        self._news.set()

    def _note(self, message: Mapping[str, Any] | None) -> None:
        if message is None:
            self._gone = True
        elif "made" in message:
            self._id = ProcessId(pid=message["made"], started=message["started"])
        elif "began" in message:
            self._began = True
        elif "refused" in message:
            stage, code = message["refused"]
            self._refused = str(stage), int(code)
        elif "output" in message:
            out, err = (tuple(map(int, one)) for one in message["output"])
            self._counts = (out[0], out[1]), (err[0], err[1])
            self._last = str(message["last"])[:200]
        elif "ended" in message:
            self._exit = exit_of(message)
        elif "over" in message:
            self._over = True


def exit_of(message: Mapping[str, Any]) -> Exit:
    """How a program ended, as its keeper tells it; ValueError, KeyError or TypeError for what is no such message."""
    code = message["ended"]
    return Exit(
        code=code if code is not None and code >= 0 else None,
        signal=None if code is None or code >= 0 else signal_name(-code),
        seconds=min(MAX_SECONDS, max(0.0, round(float(message["seconds"]), 3))),
        left_behind=message["left"],
        left_ended=message["left_ended"],
    )


def signal_name(number: int) -> str:
    """SIGKILL; SIGRTMIN+3 for those that have no name of their own."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def environment_of(program: Program, account: Account, task: str) -> dict[str, str]:
    """All that a program finds in its environment, the mark of its task first."""
    given = {
        TASK_VARIABLE: task,
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
    }
    return {**given, **{name: _word(value) for name, value in program.environment.items()}}


def _word(text: str) -> str:
    """As the kernel gets it: UTF-8, and the odd bytes that a command line brings."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def _end_marked(task: str) -> None:
    """Without its keeper, a program is known by its other marks: end it, until nobody carries them any more."""
    for _ in range(_MAX_ROUNDS):
        left = of_task(task)
        if not left:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for one in left:
                send(one.pid, one.started, number)
