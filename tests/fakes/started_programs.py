"""Programs that end as the test says: the fake of `core.programs`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from stanch.core.errors import ActionFailed, StanchError, TargetGone
from stanch.core.files import Extent
from stanch.core.processes import ProcessId
from stanch.core.programs import Examined, Exit, Output, Program, Running
from stanch.core.types import EndpointPath, Size
from tests.fakes.files import FakeFiles
from tests.fakes.life import Life
from tests.fakes.processes import FakeProcesses


@dataclass
class Behaviour:
    """What a program does when it is run."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit: Exit = field(default_factory=lambda: Exit(code=0))
    hangs: bool = False
    """Does it run until it is ended?"""
    writes: dict[str, bytes] = field(default_factory=dict)
    """Files that it puts on the endpoint."""
    leaves: int = 0
    """Children that it leaves running in the background."""
    undying: int = 0
    """How many of those cannot be ended."""
    not_executed: StanchError | None = None
    """What `begin` raises."""


@dataclass
class FakePrograms:
    """Programs by path. What they start shows in `processes`, what they write in `files`, if those are given."""

    life: Life = field(default_factory=Life)
    processes: FakeProcesses | None = None
    files: FakeFiles | None = None
    task: str = "tsk_1"
    programs: dict[str, Behaviour] = field(default_factory=dict)
    refused: dict[str, StanchError] = field(default_factory=dict)
    """Path to why it is not run."""
    warnings: tuple[str, ...] = ()
    asked: list[Program] = field(default_factory=list)
    """Everything that was run, in order."""
    graces: list[timedelta] = field(default_factory=list)
    """Those of every `end`."""
    next_pid: int = 5000

    def run(self, program: Program) -> AbstractAsyncContextManager[Running]:
        return self._run(program)

    @asynccontextmanager
    async def _run(self, program: Program) -> AsyncIterator[Running]:
        behaviour = self._find(program)
        self.life.step(f"programs.run {program.path}")
        self.asked.append(program)
        self.next_pid += 1
        one = self._process(self.next_pid, parent=1, path=program.path)
        running = FakeRunning(self, program, behaviour, one)
        try:
            yield running
        finally:
            running.leave()

    def _find(self, program: Program) -> Behaviour:
        if program.path in self.refused:
            raise self.refused[program.path]
        if program.path not in self.programs:
            raise TargetGone(f"There is nothing at {program.path}")
        return self.programs[program.path]

    def _process(self, pid: int, *, parent: int, path: str) -> ProcessId:
        if self.processes is None:
            return ProcessId(pid=pid, started=1)
        one = self.processes.add(pid, parent=parent, executable=path)
        self.processes.started_by[pid] = self.task
        return one

    async def examine(self, program: Program) -> Examined:
        behaviour = self._find(program)
        return Examined(
            path=program.path,
            kind="an ELF program",
            sha256=hashlib.sha256(repr(behaviour).encode()).hexdigest(),
            user=program.user or "root",
            warnings=self.warnings,
        )


@dataclass
class FakeRunning:
    """One program that was run: `core.programs.Running`."""

    home: FakePrograms
    program: Program
    behaviour: Behaviour
    one: ProcessId
    began: bool = False
    children: list[ProcessId] = field(default_factory=list)
    exit: Exit | None = None
    closed: bool = False

    @property
    def id(self) -> ProcessId:
        return self.one

    async def begin(self) -> None:
        assert not self.began
        self.home.life.step(f"programs.begin {self.program.path}")
        if self.behaviour.not_executed is not None:
            raise self.behaviour.not_executed
        self.began = True
        if self.home.files is not None:
            self.home.files.content.update(self.behaviour.writes)
        for _ in range(self.behaviour.leaves):
            self.home.next_pid += 1
            self.children.append(self.home._process(self.home.next_pid, parent=1, path=self.program.path))

    async def wait(self, *, within: timedelta) -> Exit | None:
        if self.behaviour.hangs and self.exit is None:
            await asyncio.sleep(within.total_seconds())  # sleep: it runs for so long
            return None
        if self.exit is None:
            self._finish(self.behaviour.exit)
        return self.exit

    async def end(self, *, grace: timedelta) -> Exit:
        self.home.life.step(f"programs.end {self.program.path}")
        self.home.graces.append(grace)
        if self.exit is None:
            self._finish(Exit(signal="SIGTERM"))
        assert self.exit is not None
        return self.exit

    def _finish(self, how: Exit) -> None:
        self._gone([self.one])
        left, undying = len(self.children), self.behaviour.undying
        if not self.program.outlives:
            self._gone(self.children[: left - undying])
        lasting = self.program.outlives or undying
        self.exit = how.model_copy(update={"left_behind": left, "left_ended": not (left and lasting)})

    def _gone(self, ones: Sequence[ProcessId]) -> None:
        for one in ones if self.home.processes is not None else ():
            self.home.processes.table.pop(one.pid, None)
            self.home.processes.started_by.pop(one.pid, None)

    def leave(self) -> None:
        self.closed = True
        if self.exit is None:
            self._finish(Exit(signal="SIGKILL"))

    def stdout(self) -> Output:
        return self._output(self.behaviour.stdout)

    def stderr(self) -> Output:
        return self._output(self.behaviour.stderr)

    def _output(self, data: bytes) -> Output:
        kept = data[: self.program.keep]
        return Output(written=Size(len(data)), kept=Size(len(kept)), text=kept.decode("utf-8", "backslashreplace"))

    def last_line(self) -> str:
        lines = (self.behaviour.stdout or self.behaviour.stderr).splitlines()
        return lines[-1].decode("utf-8", "backslashreplace") if lines else ""

    def kept(self) -> tuple["FakeKept", "FakeKept"]:
        name, keep = EndpointPath(self.program.path).name, self.program.keep
        return (
            FakeKept(f"{name}.stdout", self.behaviour.stdout[:keep], self),
            FakeKept(f"{name}.stderr", self.behaviour.stderr[:keep], self),
        )


@dataclass
class FakeKept:
    """What was kept of a stream; gone when its program was left."""

    name: str
    data: bytes
    running: FakeRunning

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        if self.running.closed:
            raise ActionFailed("The kept output is no longer there")
        return self.data[offset : offset + length]

    async def extents(self) -> Sequence[Extent]:
        return (Extent(offset=0, length=len(self.data)),) if self.data else ()
