"""Processes in memory: the fake of `core.processes`."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from stanch.core.files import FileId
from stanch.core.processes import Detail, Held, Holder, Process, ProcessId, Signal, Sought, Told
from tests.fakes.life import Life

_FIELDS = {Detail.HASH: "sha256", Detail.SOCKETS: "sockets", Detail.PACKAGE: "package"}


def _plain(one: Process) -> Process:
    """Without what must be asked for."""
    return one.model_copy(update={"sha256": None, "sockets": (), "package": ""})


class Stopped(set[ProcessId]):
    """A set that shows itself in the same order, whenever who came in: worlds are compared by what they show."""

    def __repr__(self) -> str:
        return repr(sorted(self, key=lambda one: one.pid))


@dataclass
class FakeProcesses:
    """Processes in a table; `add` them, and say which of them fight back."""

    life: Life = field(default_factory=Life)
    table: dict[int, Process] = field(default_factory=dict)
    stopped: set[ProcessId] = field(default_factory=Stopped)
    protected: dict[int, str] = field(default_factory=dict)
    """Pid to the reason."""
    forks: dict[int, int] = field(default_factory=dict)
    """Pid to how many children it still makes, each just before it is stopped: the race that a look always loses."""
    forks_inside: dict[int, int] = field(default_factory=dict)
    """Pid to how many children it makes in a pen, where they are caught with it."""
    orphans: set[int] = field(default_factory=set)
    """Pids whose new children are init's at once: those between have ended."""
    respawns: set[int] = field(default_factory=set)
    """Pids that replace a child that was killed, while they run."""
    times: dict[int, int] = field(default_factory=dict)
    """Pid to how often it does so; those that are not here never tire."""
    hopping: set[int] = field(default_factory=set)
    """Pids that, whenever they have been seen, have started the next one and ended before anything can be done."""
    slow: set[int] = field(default_factory=set)
    """Pids that do so only after a while."""
    later: list[dict[str, Any]] = field(default_factory=list)
    """Processes that will be started, one by one, while somebody waits for changes."""
    deaf: set[int] = field(default_factory=set)
    """Pids that ignore SIGTERM."""
    sent: list[tuple[ProcessId, Signal]] = field(default_factory=list)
    """Signals that were sent by name."""
    pens: dict[str, list[ProcessId]] = field(default_factory=dict)
    """Task to who is held still for it."""
    hashes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Path of a program to its SHA-256 and MD5."""
    outside: dict[int, str] = field(default_factory=dict)
    """Pid of a process of a container to where its program lies as the endpoint sees it."""
    undying: set[int] = field(default_factory=set)
    """Pids that are inside the kernel and take no signal."""
    killed: list[ProcessId] = field(default_factory=list)
    """In order, each only once unless it was killed twice."""
    held: list[tuple[ProcessId, FileId, Held]] = field(default_factory=list)
    """Who holds which file, and how."""
    started_by: dict[int, str] = field(default_factory=dict)
    """Pid to the task that started it."""
    tick: int = 1000

    def __post_init__(self) -> None:
        if not self.table:
            self.add(1, parent=0, name="init")

    def add(self, pid: int, *, parent: int = 1, **fields: Any) -> ProcessId:
        """A new process, or another one with the same pid."""
        self.tick += 1
        known = {"user": "root", "name": f"p{pid}", "executable": f"/bin/p{pid}", "arguments": f"p{pid}", "memory": 0}
        row = {"pid": pid, "parent": parent, "started": self.tick, "state": "S", **known, **fields}
        self.table[pid] = Process.model_validate(row)
        return self.table[pid].id

    def running(self, one: ProcessId) -> bool:
        """Is it this process, and does it take CPU time?"""
        return self._is_there(one) and one not in self.stopped and one not in self.frozen

    @property
    def frozen(self) -> set[ProcessId]:
        """Who is in a pen."""
        return {one for members in self.pens.values() for one in members}

    def _is_there(self, one: ProcessId) -> bool:
        found = self.table.get(one.pid)
        return found is not None and found.id == one

    async def list(self, *, details: Collection[Detail] = ()) -> Sequence[Process]:
        roots = [one for one in self.table.values() if one.parent not in self.table]
        rows = [_plain(one) for root in roots for one in self._below(root, 0)]
        return await self.detailed(rows, details) if details else rows

    async def detailed(
        self, ones: Sequence[Process], details: Collection[Detail], *, told: Told = lambda _done, _total: None
    ) -> Sequence[Process]:
        names = [_FIELDS[one] for one in details]
        told(len(ones), len(ones))
        return [
            one.model_copy(update={name: getattr(self.table[one.pid], name) for name in names})
            if self._is_there(one.id)
            else one
            for one in ones
        ]

    def _below(self, one: Process, depth: int) -> Iterator[Process]:
        yield one.model_copy(update={"depth": depth})
        for child in [child for child in self.table.values() if child.parent == one.pid]:
            yield from self._below(child, depth + 1)

    async def find(self, pid: int) -> Process | None:
        return self.table.get(pid)

    async def alive(self, one: ProcessId) -> bool:
        return self._is_there(one) and self.table[one.pid].state != "Z"

    async def why_protected(self, one: ProcessId) -> str | None:
        return self.protected.get(one.pid)

    async def that_run(self, sought: Sought) -> Sequence[Process]:
        found = self._that_run(sought)
        for one in found:
            if one.pid in self.hopping and self.running(one.id):
                self.hopping.add(self.fork(one.pid).pid)
                self._end(self.table.pop(one.pid))
        return found

    def _that_run(self, sought: Sought) -> Sequence[Process]:
        return [one for one in self.table.values() if one.executable is not None and self._fits(one, sought)]

    def _fits(self, one: Process, sought: Sought) -> bool:
        program = (one.executable or "").removesuffix(" (deleted)")
        sha256, md5 = self.hashes.get(program, ("", ""))
        if sought.path is not None:
            return sought.path in {one.executable, program, self.outside.get(one.pid)}
        return sha256 == sought.sha256 if sought.sha256 is not None else md5 == sought.md5

    async def changes(self, *, within: timedelta) -> AsyncIterator[None]:
        yield
        while self.later:
            self.add(**self.later.pop(0))
            yield

    async def stop(self, one: ProcessId) -> bool:
        self.life.step(f"processes.stop {one.pid}")
        if not self._is_there(one):
            return False
        self._fork_once_more(one)
        self._set_state(one, "T")
        self.stopped.add(one)
        return True

    def _set_state(self, one: ProcessId, state: str) -> None:
        self.table[one.pid] = self.table[one.pid].model_copy(update={"state": state})

    def _fork_once_more(self, one: ProcessId) -> None:
        if self.running(one) and self.forks.get(one.pid, 0) > 0:
            self.forks[one.pid] -= 1
            self.fork(one.pid)

    def fork(self, parent: int) -> ProcessId:
        """A process makes another one of its kind."""
        child = max(self.table) + 1
        self.forks[child] = self.forks.get(parent, 0)
        if parent in self.orphans:
            self.orphans.add(child)
        return self.add(child, parent=1 if parent in self.orphans else parent, **self._look(self.table[parent]))

    def _look(self, one: Process) -> dict[str, Any]:
        return {key: getattr(one, key) for key in ("user", "name", "executable", "arguments", "unit")}

    async def resume(self, one: ProcessId) -> bool:
        self.life.step(f"processes.resume {one.pid}")
        self.stopped.discard(one)
        if self._is_there(one) and self.table[one.pid].state == "T":
            self._set_state(one, "S")
        return self._is_there(one)

    async def kill(self, one: ProcessId) -> bool:
        self.life.step(f"processes.kill {one.pid}")
        if not self._is_there(one):
            return False
        self.killed.append(one)
        if one.pid not in self.undying:
            self._end(self.table.pop(one.pid))
        return True

    def _end(self, dead: Process) -> None:
        self.stopped.discard(dead.id)
        for orphan in [child for child in self.table.values() if child.parent == dead.pid]:
            self.table[orphan.pid] = orphan.model_copy(update={"parent": 1})
        parent = self.table.get(dead.parent)
        if parent is not None and parent.pid in self.respawns and self.running(parent.id):
            self._respawn(parent, dead)

    def _respawn(self, parent: Process, dead: Process) -> None:
        if self.times.setdefault(parent.pid, 1_000_000) == 0:
            return
        self.times[parent.pid] -= 1
        new = {"pid": max([*self.table, dead.pid]) + 1, "parent": parent.pid, **self._look(dead)}
        if parent.pid in self.slow:
            self.later.append(new)
        else:
            self.add(**new)

    async def send(self, one: ProcessId, what: Signal) -> bool:
        self.life.step(f"processes.send {one.pid} {what}")
        if not self._is_there(one):
            return False
        self.sent.append((one, what))
        if what is Signal.TERM and one.pid not in self.deaf | self.undying and self.running(one):
            self._end(self.table.pop(one.pid))
        return True

    async def of_task(self, task: str) -> Sequence[ProcessId]:
        return [one.id for pid, one in self.table.items() if self.started_by.get(pid) == task]

    @asynccontextmanager
    async def pen(self, task: str) -> "AsyncIterator[FakePen]":
        pen = FakePen(self, task)
        try:
            yield pen
        finally:
            for one in list(self.pens.get(task, ())):
                self.life.step(f"pen.free {one.pid}")
                self.pens[task].remove(one)
            self.pens.pop(task, None)

    async def wait_gone(self, ones: Sequence[ProcessId], *, within: timedelta) -> tuple[ProcessId, ...]:
        return tuple([one for one in ones if await self.alive(one)])

    def hold(self, one: ProcessId, file: FileId, how: Held) -> None:
        """Let a process run, map or have open a file, as long as it lives."""
        self.held.append((one, file, how))

    async def holders(self, files: Collection[FileId]) -> Sequence[Holder]:
        held = dict.fromkeys([one for one in self.held if one[1] in files and self._is_there(one[0])])
        return [Holder(process=one, name=self.table[one.pid].name, file=file, how=how) for one, file, how in held]


class FakePen:
    """Holds still what is put in, and what that forks from then on."""

    def __init__(self, processes: FakeProcesses, task: str) -> None:
        self._processes, self._task = processes, task

    async def catch(self, ones: Sequence[ProcessId]) -> tuple[ProcessId, ...]:
        known = self._processes
        for one in ones:
            if await known.alive(one) and one not in known.frozen:
                known.life.step(f"pen.catch {one.pid}")
                known._fork_once_more(one)
                known.pens.setdefault(self._task, []).append(one)
                for _ in range(known.forks_inside.pop(one.pid, 0)):
                    known.pens[self._task].append(known.fork(one.pid))
        return await self.members()

    async def hunt(self, sought: Sought, *, user: str | None) -> tuple[ProcessId, ...]:
        fit = [one.id for one in self._processes._that_run(sought) if user in (None, one.user)]
        return await self.catch([one for one in fit if one.pid not in self._processes.protected])

    async def members(self) -> tuple[ProcessId, ...]:
        return tuple([one for one in self._processes.pens.get(self._task, ()) if await self._processes.alive(one)])

    async def kill(self) -> None:
        for one in await self.members():
            await self._processes.kill(one)
            if one.pid not in self._processes.undying:
                self._processes.pens[self._task].remove(one)
