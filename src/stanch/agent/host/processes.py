"""The processes of the endpoint: listed, recognised for good, stopped and ended through pidfds.

A pid alone names nobody: once its owner has ended, another process may get it. So a signal is sent in three steps:

1. Open a pidfd: it stays with one process for ever.
2. Read the start time of whoever has the pid now. If it is the right one, it was so when the pidfd was opened, too.
3. Send through the pidfd.

Whether a process has ended is asked of its pidfd as well. The state letter does not tell: if the main thread has ended
and others go on, /proc shows a zombie that runs.
"""

import asyncio
import errno
import os
import pwd
import select
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

from stanch.agent.host.holders import holders
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.procfs import PROC, Stat, pids, read_process, read_stat, read_threads
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.files import FileId
from stanch.core.host import Holder, Process, ProcessId

MAX_DEPTH = 10_000
INIT = 1

_BATCH = 256
"""Descriptors held at a time while waiting: a tree may be larger than what a process may open."""

_QUICK_LOOKS, _SLOW_LOOKS = 25, 250
"""How often to look whether a signalled process stands still: first at once, then each millisecond."""


class LinuxProcesses:
    """The processes of one pid namespace, by /proc and pidfds.

    `supervisor` is the pid whose children are all Stanch's own; without it, only the agent and its ancestors are.
    """

    def __init__(self, namespace: Namespace, *, supervisor: int | None = None) -> None:
        self._namespace = namespace
        self._supervisor = supervisor

    async def list(self) -> Sequence[Process]:
        """All processes, parents before children, in tree order with `depth` set."""
        self._check()
        return await asyncio.to_thread(_list)

    async def find(self, pid: int) -> Process | None:
        """The process that has this pid now; None if there is none, or if it is the number of a mere thread."""
        self._check()
        return await asyncio.to_thread(_find, pid)

    async def alive(self, one: ProcessId) -> bool:
        """Does exactly this process still run, be it in a single thread?"""
        self._check()
        with _hold(one) as pidfd:
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
        if self._supervisor is not None and stat.parent == self._supervisor:
            return "it is a part of Stanch"
        return None

    async def stop(self, one: ProcessId) -> bool:
        """SIGSTOP it and wait until it stands still, so that it can fork no more; False if it is gone."""
        if not self._signal(one, signal.SIGSTOP):
            return False
        for pause in (*[0.0] * _QUICK_LOOKS, *[0.001] * _SLOW_LOOKS):
            if _stands_still(one):
                break
            await asyncio.sleep(pause)
        # One that waits inside the kernel for long (a device, a frozen group, the child of a vfork) is left at that.
        return True

    async def resume(self, one: ProcessId) -> bool:
        """SIGCONT it; False if it is gone."""
        return self._signal(one, signal.SIGCONT)

    async def kill(self, one: ProcessId) -> bool:
        """SIGKILL it; False if it was gone."""
        return self._signal(one, signal.SIGKILL)

    def _signal(self, one: ProcessId, number: signal.Signals) -> bool:
        self._check()
        with _hold(one) as pidfd:
            if pidfd is None:
                return False
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return False
            except PermissionError:
                raise ActionFailed(
                    f"Process {one.pid} takes no signal from the agent",
                    got=f"user id {os.geteuid()}",
                    expected="root, with CAP_KILL",
                ) from None
            return True

    async def wait_gone(self, ones: Sequence[ProcessId], *, within: timedelta) -> tuple[ProcessId, ...]:
        """Wait until they have ended; those that have not."""
        self._check()
        deadline = asyncio.get_running_loop().time() + within.total_seconds()
        left: list[ProcessId] = []
        for start in range(0, len(ones), _BATCH):
            left += await _wait(ones[start : start + _BATCH], deadline)
        return tuple(left)

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


class _Accounts(dict[int, str]):
    """Account names by user id, each asked for once: the name service may be slow."""

    def __missing__(self, uid: int) -> str:
        try:
            self[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            self[uid] = str(uid)
        return self[uid]


def _list() -> list[Process]:
    account = _Accounts().__getitem__
    return in_tree_order([one for pid in pids() if (one := read_process(pid, account)) is not None])


def _find(pid: int) -> Process | None:
    with _pidfd(pid) as pidfd:  # /proc/TID exists for threads too; a pidfd does not
        return None if pidfd is None else read_process(pid, _Accounts().__getitem__)


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


# --- pidfds ----------------------------------------------------------------------------------------------------------


@contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """A descriptor of the process that has this pid; None if there is none."""
    pidfd = _open_pidfd(pid)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.ESRCH, errno.EINVAL, errno.ENOENT}:  # the latter two: a thread's number
            return None
        if error.errno == errno.ENOSYS:
            raise Unsupported("This kernel has no pidfds", expected="Linux 5.3 or newer") from error
        raise ActionFailed(f"Process {pid} cannot be held", got=error.strerror) from error


@contextmanager
def _hold(one: ProcessId) -> Iterator[int | None]:
    """A descriptor of exactly this process; None if it has ended or its pid has been given to another."""
    with _pidfd(one.pid) as pidfd:
        stat = None if pidfd is None or _has_ended(pidfd) else read_stat(one.pid)
        yield pidfd if stat is not None and stat.started == one.started else None


def _has_ended(pidfd: int) -> bool:
    """Have all its threads ended? Whether anybody has asked for its exit status does not matter."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _stands_still(one: ProcessId) -> bool:
    # Not D: a thread that waits inside fork is past the point where a signal would have stopped it.
    return all(thread.state in "TtZX" for thread in read_threads(one.pid))


async def _wait(ones: Sequence[ProcessId], deadline: float) -> list[ProcessId]:
    with ExitStack() as held:
        pidfds = {one: held.enter_context(_hold(one)) for one in ones}
        left = {one: pidfd for one, pidfd in pidfds.items() if pidfd is not None}
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                for pidfd in left.values():
                    await _readable(pidfd)
        return [one for one, pidfd in left.items() if not _has_ended(pidfd)]


async def _readable(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
