"""The processes of the endpoint: listed, recognised for good, stopped and ended through pidfds.

A pid alone names nobody: once its owner has ended, another process may get it. So a signal is sent in three steps:

1. Open a pidfd: it stays with one process for ever.
2. Read the start time of whoever has the pid now. If it is the right one, it was so when the pidfd was opened, too.
3. Send through the pidfd.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from stanch.agent.host import marks, pidfds
from stanch.agent.host.births import births
from stanch.agent.host.holders import holders
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.pen import Groups, pen, usual_groups
from stanch.agent.host.process_details import ProcessReader
from stanch.agent.host.procfs import PROC, Stat, read_stat
from stanch.agent.host.running_programs import RunningPrograms
from stanch.core.errors import Unsupported
from stanch.core.files import FileId
from stanch.core.processes import Detail, Holder, Pen, Process, ProcessId, Signal, Sought, Told

MAX_DEPTH = 10_000
INIT = 1


class LinuxProcesses:
    """The processes of one pid namespace, by /proc and pidfds.

    `supervisor` is the pid whose children are all Stanch's own; without it, only the agent and its ancestors are.
    `groups` tells where control groups may be made to hold processes still; None for nowhere.
    """

    def __init__(
        self,
        namespace: Namespace,
        *,
        supervisor: int | None = None,
        groups: Callable[[], Groups | None] = usual_groups,
    ) -> None:
        self._namespace = namespace
        self._supervisor = supervisor
        self._groups = groups
        self._programs = RunningPrograms()
        self._table = ProcessReader()

    async def list(self, *, details: Collection[Detail] = ()) -> Sequence[Process]:
        """All processes, parents before children, in tree order with `depth` set."""
        self._check()
        rows = await asyncio.to_thread(in_tree_order, await self._table.all())
        return await self._table.detailed(rows, details) if details else rows

    async def detailed(
        self, ones: Sequence[Process], details: Collection[Detail], *, told: Told = lambda _done, _total: None
    ) -> Sequence[Process]:
        """The same ones with these details."""
        self._check()
        return await self._table.detailed(ones, details, told)

    async def find(self, pid: int) -> Process | None:
        """The process that has this pid now; None if there is none, or if it is the number of a mere thread."""
        self._check()
        with pidfds.pidfd_of(pid) as pidfd:  # /proc/TID exists for threads too; a pidfd does not
            return None if pidfd is None else await self._table.one(pid)

    async def alive(self, one: ProcessId) -> bool:
        """Does exactly this process still run, be it in a single thread?"""
        self._check()
        with pidfds.hold(one) as pidfd:
            return pidfd is not None

    async def why_protected(self, one: ProcessId) -> str | None:
        """The reason why it must not be ended, or None; None too if it is gone."""
        self._check()
        stat = read_stat(one.pid)
        if stat is None or stat.started != one.started:
            return None
        return self._why_protected(stat)

    def _why_protected(self, stat: Stat) -> str | None:
        if stat.pid == INIT:
            return "it is init: the machine or container ends with it"
        if stat.kernel_thread:
            return "it is a thread of the kernel"
        if stat.pid == os.getpid():
            return "it is Stanch's agent"
        if stat.pid in _ancestors():
            return "it started Stanch's agent, which may end with it"
        return self._why_ours(stat)

    def _why_ours(self, stat: Stat) -> str | None:
        if self._supervisor is not None and stat.parent == self._supervisor:
            return "it is a part of Stanch"
        task = marks.kept_task(stat.pid) if stat.parent == os.getpid() else None
        return None if task is None else f"it keeps what task {task[:64]} runs: kill-process --task ends that"

    async def that_run(self, sought: Sought) -> Sequence[Process]:
        """Whose program it is."""
        self._check()
        found = set(await self._programs.that_run(sought))
        return [one for one in await self._table.some([one.pid for one in found]) if one.id in found]

    def changes(self, *, within: timedelta) -> AsyncIterator[None]:
        """Comes back at once, and then each time that a process was started, or began to run another program."""
        self._check()
        return births(within=within)

    async def stop(self, one: ProcessId) -> bool:
        """SIGSTOP it and wait until it stands still, so that it can fork no more; False if it is gone."""
        self._check()
        return await pidfds.stop(one)

    async def resume(self, one: ProcessId) -> bool:
        """SIGCONT it; False if it is gone."""
        return self._signal(one, signal.SIGCONT)

    async def kill(self, one: ProcessId) -> bool:
        """SIGKILL it; False if it was gone."""
        return self._signal(one, signal.SIGKILL)

    async def send(self, one: ProcessId, what: Signal) -> bool:
        """Send it a signal; False if it was gone."""
        return self._signal(one, signal.Signals[f"SIG{what.upper()}"])

    async def of_task(self, task: str) -> Sequence[ProcessId]:
        """What a task has started, and what descends from it."""
        self._check()
        return await asyncio.to_thread(marks.of_task, task)

    def pen(self, task: str) -> AbstractAsyncContextManager[Pen]:
        """Where processes are held still together."""
        self._check()
        return pen(task, self._groups(), may=self._may, programs=self._programs)

    def _may(self, one: ProcessId) -> bool:
        """Is it not protected? Asked again where it is done: to freeze the agent would be the end of the order."""
        stat = read_stat(one.pid)
        return stat is None or stat.started != one.started or self._why_protected(stat) is None

    def _signal(self, one: ProcessId, number: signal.Signals) -> bool:
        self._check()
        return pidfds.send(one, number)

    async def wait_gone(self, ones: Sequence[ProcessId], *, within: timedelta) -> tuple[ProcessId, ...]:
        """Wait until they have ended; those that have not."""
        self._check()
        return await pidfds.wait_gone(ones, asyncio.get_running_loop().time() + within.total_seconds())

    async def holders(self, files: Collection[FileId]) -> Sequence[Holder]:
        """Who runs, maps or has open any of these files."""
        self._check()
        return await asyncio.to_thread(holders, tuple(files))

    def _check(self) -> None:
        """The right namespace, and a /proc that shows it: a chroot or container may see the one of its host."""
        self._namespace.check()
        shown = (PROC / "self").readlink().name
        if shown != str(os.getpid()):
            raise Unsupported(
                "/proc shows the processes of another pid namespace",
                got=f"pid {shown}",
                expected=f"pid {os.getpid()}",
                hint="Mount the right one: `mount -t proc proc /proc`.",
            )


# --- listing ---------------------------------------------------------------------------------------------------------


def in_tree_order(processes: Sequence[Process]) -> list[Process]:
    """Every process once, parents before children, with its depth.

    They were read one after another while the tree changed, so that a parent may be missing, or a circle may close
    when a pid was given away meanwhile: none is lost for that.
    """
    children: dict[int, list[Process]] = {}
    present = {one.pid for one in processes}
    for one in processes:
        children.setdefault(one.parent, []).append(one)
    seen: set[int] = set()
    roots = [one for one in processes if one.parent not in present]
    return [row for start in (*roots, *processes) for row in _below(start, children, seen)]


def _below(start: Process, children: dict[int, list[Process]], seen: set[int]) -> Iterator[Process]:
    waiting = [(start, 0)]
    while waiting:
        one, depth = waiting.pop()
        if one.pid not in seen:
            seen.add(one.pid)
            yield one if depth == 0 else one.model_copy(update={"depth": min(depth, MAX_DEPTH)})
            waiting += [(child, depth + 1) for child in reversed(children.get(one.pid, []))]


def _ancestors() -> set[int]:
    """The pids above the agent; they cannot change while it lives, unless they end."""
    found: set[int] = set()
    pid = os.getppid()
    while pid > INIT and pid not in found and (stat := read_stat(pid)) is not None:
        found.add(pid)
        pid = stat.parent
    return found
