"""Where processes are held still together: a frozen control group of version 2, or SIGSTOP where there is none.

A group that is frozen before the first process comes in catches whatever that forks from then on, be it orphaned or the
leader of a session: a child is born in the group of its parent. All in it end by one write, while none of them runs.

- What was forked before its parent was moved is found by the caller, who looks at the tree until nobody is new.
- A pen is named after its task, so that the next run of the task finds it. `free_left` empties what a killed agent has
  left behind: the agent calls it at its start, before anything else, since an innocent process may be in it. An agent
  that lives holds a lock on its pens: another one on the same machine leaves them alone.
- Whoever is let go is moved back to where it was. A pen has one cell for each group that somebody came from, and the
  name of the cell says which one, by the numbers of the groups from the root down, which the kernel never gives twice.
  Children go where their parents came from. If that group is gone, they go to the nearest one above it.
- While a process is in a pen, systemd does not see it in its unit. If all processes of a scope are in one, systemd
  takes the scope for ended; a service goes on as long as its main process does.

Without such groups, processes are stopped by SIGSTOP, and those that are let go get SIGCONT, also if they had been
stopped before: after a crash nobody knows.
"""

import asyncio
import fcntl
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from stanch.agent.host import pidfds
from stanch.agent.host.cgroups import hierarchy
from stanch.agent.host.process_details import Accounts
from stanch.agent.host.procfs import PROC, read_stat
from stanch.agent.host.running_programs import RunningPrograms
from stanch.core.errors import Unsupported
from stanch.core.processes import ProcessId, Sought

PREFIX = "stanch-pen-"
"""A pen's name is this, and its task's."""

_TASK = re.compile(r"[0-9A-Za-z_-]{1,64}")
_CELL = re.compile(r"\d{1,20}(\.\d{1,20})*")
_MAX_NAME = 200
_MAX_MEMBERS = 8 * 1_048_576
"""Bytes of a group's list of members: four million have such long numbers."""
_MAX_GROUP = 65_536
_MAX_CHILDREN = 100_000
_ROUNDS = 100
"""How often to look again whether a pen is empty."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Where pens are made."""

    root: Path
    """Where version 2 is mounted."""
    parent: Path
    """The group that pens are made in."""


def usual_groups() -> Groups | None:
    """Pens stand at the root, outside of every unit: systemd leaves them alone. None if there is no version 2."""
    try:
        root = hierarchy().root
    except Unsupported:
        return None
    return Groups(root=root, parent=root)


@asynccontextmanager
async def pen(
    task: str,
    groups: Groups | None,
    *,
    may: Callable[[ProcessId], bool],
    programs: RunningPrograms | None = None,
) -> AsyncIterator["LinuxPen"]:
    """A pen for a task, and nobody is in it afterwards. `may`: may this one be touched?"""
    with ExitStack() as stack:
        made = LinuxPen(_frozen_group(task, groups, stack), may, programs or RunningPrograms())
        try:
            yield made
        finally:
            # A second cancel must not leave anybody frozen.
            await asyncio.shield(made.free())


def _frozen_group(task: str, groups: Groups | None, stack: ExitStack) -> "_Group | None":
    """The group of a task, frozen, and locked until the stack is left; None if there cannot be one."""
    if groups is None or not _TASK.fullmatch(task):
        return None
    group = _Group(root=groups.root, folder=groups.parent / f"{PREFIX}{task}")
    try:
        group.folder.mkdir(exist_ok=True)
        stack.enter_context(_locked(group.folder))
        _write(group.folder / "cgroup.freeze", "1")
    except OSError as error:
        log.info("processes are held by SIGSTOP: no control group can be made", error=str(error))
        if not isinstance(error, BlockingIOError):  # then it is somebody else's
            with suppress(OSError):
                group.folder.rmdir()
        return None
    return group


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While it is ours; BlockingIOError if it is somebody else's. The kernel unlocks what a killed agent had locked."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


async def free_left(groups: Groups | None) -> int:
    """Let all go who are in a pen that an agent has left behind; how many such pens there were."""
    if groups is None:
        return 0
    freed = 0
    for folder in _pens(groups.parent):
        with suppress(OSError), _locked(folder):
            group = _Group(root=groups.root, folder=folder)
            members = len(list(group.members()))
            await group.free()
            freed += 1
            log.warning("a pen was left behind; its processes go on", pen=folder.name, processes=members)
    return freed


def _pens(parent: Path) -> list[Path]:
    with suppress(OSError):
        return [one for one in parent.iterdir() if one.name.startswith(PREFIX) and one.is_dir()]
    return []


# --- the pen ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LinuxPen:
    """Holds still who is put in: in the group, or, who cannot be moved there, stopped."""

    group: "_Group | None"
    may: Callable[[ProcessId], bool]
    programs: RunningPrograms = field(default_factory=RunningPrograms)
    stopped: dict[ProcessId, None] = field(default_factory=dict)
    snatched: set[ProcessId] = field(default_factory=set)

    async def catch(self, ones: Sequence[ProcessId]) -> tuple[ProcessId, ...]:
        """Put these in and hold them still; everybody in it by now."""
        for one in ones:
            if not self.may(one) or one in self.stopped:
                continue
            if (self.group is None or not self.group.take(one)) and await pidfds.stop(one):
                self.stopped[one] = None
        if self.group is not None:
            await self.group.stands_still()
        return await self.members()

    async def hunt(self, sought: Sought, *, user: str | None) -> tuple[ProcessId, ...]:
        """Put in whoever runs this program the moment that it is seen; everybody in it by now."""
        accounts = Accounts()
        await self.programs.hunt(sought, lambda one: _is_of(user, one, accounts) and self._snatch(one))
        if self.group is not None:
            await self.group.stands_still()
        return await self.members()

    def _snatch(self, one: ProcessId) -> bool:
        """Hold it; is it one more?"""
        if one in self.snatched or not self.may(one):
            return False
        if self.group is None or not self.group.take(one):
            if not pidfds.send(one, signal.SIGSTOP):
                return False
            self.stopped[one] = None
        self.snatched.add(one)
        return True

    async def members(self) -> tuple[ProcessId, ...]:
        """Who is in it now."""
        inside = [] if self.group is None else list(self.group.members())
        return (*inside, *(one for one in self.stopped if _is_there(one)))

    async def kill(self) -> None:
        """End all of them at once."""
        if self.group is not None:
            self.group.kill()
        for one in self.stopped:
            pidfds.send(one, signal.SIGKILL)
        self.stopped.clear()

    async def free(self) -> None:
        """Whoever is left in it goes on."""
        for one in self.stopped:
            pidfds.send(one, signal.SIGCONT)
        self.stopped.clear()
        if self.group is not None:
            await self.group.free()


def _is_of(user: str | None, one: ProcessId, accounts: Mapping[int, str]) -> bool:
    with suppress(OSError):
        return user is None or accounts[os.stat(PROC / str(one.pid)).st_uid] == user  # noqa: PTH116 - see procfs
    return False


def _is_headless(one: ProcessId) -> bool:
    """Has its main thread ended, while others go on? A group neither lists nor kills such a process."""
    stat = read_stat(one.pid)
    return stat is not None and stat.started == one.started and stat.state == "Z" and stat.threads > 1


def _is_there(one: ProcessId) -> bool:
    with pidfds.hold(one) as pidfd:
        return pidfd is not None


# --- the group -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A frozen control group with its cells."""

    root: Path
    folder: Path

    def take(self, one: ProcessId) -> bool:
        """Move it in; False if it must be held in another way. One that has ended needs no holding."""
        with pidfds.hold(one) as pidfd:
            if pidfd is None:
                return True
            origin = group_of(one.pid)
            if origin is None or _is_headless(one):
                return False
            try:
                self._take_from(origin, one.pid)
            except ProcessLookupError:
                return True
            except OSError:
                return False
            if pidfds.has_ended(pidfd):
                self._give_back(one)
            return not _is_headless(one)

    def _take_from(self, origin: str, pid: int) -> None:
        if not (self.root / origin).is_relative_to(self.folder):
            _move(pid, self._cell(origin))

    def _cell(self, origin: str) -> Path:
        cell = self.folder / _numbers(self.root, origin)
        cell.mkdir(exist_ok=True)
        return cell

    def _give_back(self, one: ProcessId) -> None:
        """It ended while it was moved: if another has its pid by now, that one goes back to where it was born."""
        now = read_stat(one.pid)
        if now is None or now.started == one.started:
            return
        born = group_of(now.parent)
        with suppress(OSError):
            _move(one.pid, self.root / (born or ""))

    async def stands_still(self) -> None:
        """Wait until all in it do; not for long for one that waits inside the kernel."""
        for pause in pidfds.PAUSES:
            if "frozen 1" in _read(self.folder / "cgroup.events"):
                return
            await asyncio.sleep(pause)

    def members(self) -> Iterator[ProcessId]:
        """Who is in it."""
        for cell in self._cells():
            started = {pid: stat.started for pid in _pids(cell) if (stat := read_stat(pid)) is not None}
            # Whoever is still in it now was so when its start time was read.
            yield from (ProcessId(pid=pid, started=started[pid]) for pid in _pids(cell) if pid in started)

    def _cells(self) -> list[Path]:
        with suppress(OSError):
            return sorted(one for one in self.folder.iterdir() if _CELL.fullmatch(one.name))
        return []

    def kill(self) -> None:
        """End all in it."""
        try:
            _write(self.folder / "cgroup.kill", "1")
        except OSError:  # before Linux 5.14; none of them runs, so none is new
            for one in self.members():
                pidfds.send(one, signal.SIGKILL)

    async def free(self) -> None:
        """Move everybody back, and take the group away."""
        for n in range(_ROUNDS):
            for cell in self._cells():
                self._empty(cell)
                with suppress(OSError):
                    cell.rmdir()
            with suppress(OSError):
                self.folder.rmdir()
            if not self.folder.exists():
                return
            await asyncio.sleep(0.001 * n)
        # Whoever cannot be moved, or ends slowly, must at least not stand still.
        with suppress(OSError):
            _write(self.folder / "cgroup.freeze", "0")
        log.warning("a pen is not empty; it is no longer frozen", pen=self.folder.name)

    def _empty(self, cell: Path) -> None:
        places = _places(self.root, cell.name)
        # Of one whose main thread ended while it was moved, only the threads are listed; any of them stands for it.
        for pid in _pids(cell) or _pids(cell, "cgroup.threads"):
            for place in places:
                try:
                    _move(pid, place)
                except ProcessLookupError:
                    break
                except OSError:  # it is gone, or takes no processes any more: the one above it does
                    continue
                break


def group_of(pid: int) -> str | None:
    """The control group of version 2 that a process is in, below the root; None if it cannot be told or reached."""
    for line in _read(PROC / str(pid) / "cgroup").splitlines():
        path = line.removeprefix("0::/")
        if line.startswith("0::/"):
            gone = ".." in path.split("/")  # outside of what this namespace of groups shows
            return None if gone else path.removesuffix(" (deleted)")
    return None


def _numbers(root: Path, origin: str) -> str:
    """The numbers of the groups from the root to this one, as far as they fit into a name."""
    at, found = root, str(root.stat().st_ino)
    for part in origin.split("/") if origin else ():
        at = at / part
        try:
            longer = f"{found}.{at.stat().st_ino}"
        except OSError:
            break
        if len(longer) > _MAX_NAME:
            break
        found = longer
    return found


def _places(root: Path, name: str) -> list[Path]:
    """The groups that are left of those that a cell's name tells, the lowest first."""
    found = [root]
    for number in name.split(".")[1:]:
        below = _child(found[-1], int(number))
        if below is None:
            break
        found.append(below)
    return found[::-1]


def _child(folder: Path, number: int) -> Path | None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(_MAX_CHILDREN), strict=False):
            if entry.inode() == number and entry.is_dir(follow_symlinks=False):
                return Path(entry.path)
    return None


def _pids(group: Path, name: str = "cgroup.procs") -> list[int]:
    return [int(one) for one in _read(group / name, _MAX_MEMBERS).split() if one != "0"]


def _move(pid: int, group: Path) -> None:
    _write(group / "cgroup.procs", str(pid))


def _read(path: Path, limit: int = _MAX_GROUP) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(limit).decode("utf-8", "surrogateescape")
    return ""


def _write(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
