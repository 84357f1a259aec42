"""Read what /proc says about one process, so that all of it is about the same process.

A folder below /proc stays bound to its process: once that has ended, everything below the folder fails with ESRCH,
even if the pid has been given to another. So everything is read through one descriptor of the folder, and what a
process may choose (its name, its arguments, its path) is taken as bytes and bounded.
"""

import errno
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.agent.host.cgroup_names import MAX_TEXT, NOTHING, GroupNames, names_of
from stanch.core.errors import ActionFailed
from stanch.core.processes import Process
from stanch.core.types import MAX_PID, EndpointPath

PROC = Path("/proc")
MAX_STAT = 4096
MAX_STATUS = 16_384
DELETED = " (deleted)"
"""What the kernel adds to the name of a program that is gone."""
MAX_ARGUMENTS = 4000
"""Characters of a command line that are shown."""

_MAX_COMMAND_LINE = 4 * MAX_ARGUMENTS
"""Bytes of it that are read: what is shown, if every character took four."""

_NSPID = re.compile(rb"^NSpid:[ \t]*([0-9][0-9 \t]*)$", re.MULTILINE)
_DIGITS = len(str(MAX_PID))

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KERNEL_THREAD = 0x0020_0000
"""PF_KTHREAD among the flags of a task."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that we use."""

    pid: int
    name: bytes
    state: str
    parent: int
    kernel_thread: bool
    threads: int
    started: int
    """Clock ticks since boot."""
    memory: int
    """Bytes."""
    session: int = 0
    """Session id: the pid that made the session."""
    terminal: int = 0
    """Device number of the controlling terminal; 0 for none."""


def parse_stat(raw: bytes) -> Stat:
    """Read a line of /proc/PID/stat; ActionFailed if it is none.

    The name stands in parentheses and may hold anything, parentheses, spaces and newlines included; what follows the
    last parenthesis is the kernel's own.
    """
    head, found, tail = raw.rpartition(b")")
    pid, opened, name = head.partition(b" (")
    fields = tail.split()
    try:
        if not (found and opened):
            raise ValueError(raw)
        return Stat(
            pid=int(pid),
            name=name,
            state=fields[0].decode("ascii")[:1],
            parent=int(fields[1]),
            kernel_thread=bool(int(fields[6]) & _KERNEL_THREAD),
            threads=int(fields[17]),
            started=int(fields[19]),
            memory=int(fields[21]) * _PAGE,
            session=int(fields[3]),
            terminal=int(fields[4]),
        )
    except (ValueError, IndexError):
        raise ActionFailed("/proc shows a process in a form that we do not know", got=repr(raw[:200])) from None


def pids() -> Iterator[int]:
    """The number of every process that there is now, in rising order."""
    return (int(name) for name in os.listdir(PROC) if name.isdecimal())  # noqa: PTH208 - thousands of paths are waste


def read_stat(pid: int) -> Stat | None:
    """What the kernel says about the process with this pid; None if there is none."""
    try:
        return parse_stat(_read(f"{PROC}/{pid}/stat", MAX_STAT))
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_threads(pid: int) -> Iterator[Stat]:
    """What the kernel says about each thread of the process with this pid; nothing if there is none."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"{PROC}/{pid}/task"):  # noqa: PTH208 - see pids
            with suppress(FileNotFoundError, ProcessLookupError):
                yield parse_stat(_read(f"{PROC}/{pid}/task/{thread}/stat", MAX_STAT))


@contextmanager
def opened(pid: int) -> Iterator[int]:
    """The folder of the process with this pid, which stays with this process; OSError if there is none."""
    folder = os.open(f"{PROC}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def read_process(
    pid: int, account: Callable[[int], str], names: Callable[[bytes], GroupNames] = names_of
) -> Process | None:
    """The process with this pid; None if there is none.

    `account` gives the name of a user id, `names` what control groups say (a caller of many remembers it).

    May wait for as long as the process likes: its command line lies in its own memory, behind its own lock, and its
    program perhaps on a server that is gone. Who reads many asks through `patience`.
    """
    with suppress(FileNotFoundError, ProcessLookupError), opened(pid) as folder:
        return _describe(folder, account, names)
    return None


def read_outline(
    pid: int, note: str, account: Callable[[int], str] = str, names: Callable[[bytes], GroupNames] = names_of
) -> Process | None:
    """What the kernel says of a process without asking the process or a disk; None if there is none.

    The name of its program is there: it comes from the kernel's memory. Whether that was deleted is the kernel's
    remark, which a file may be called by, too.
    """
    with suppress(FileNotFoundError, ProcessLookupError), opened(pid) as folder:
        stat = read_stat_in(folder)
        executable = None if stat.kernel_thread else _executable(folder, "")
        groups = NOTHING if stat.kernel_thread else names(_group_text(folder))
        return Process(
            pid=stat.pid,
            parent=stat.parent,
            started=stat.started,
            user=account(os.fstat(folder).st_uid),
            name=readable(stat.name),
            executable=executable,
            arguments="",
            state=stat.state,
            memory=max(0, stat.memory),
            deleted=executable is not None and executable.endswith(DELETED),
            unit=groups.unit,
            container=groups.container,
            note=note,
        )
    return None


def read_stat_in(folder: int) -> Stat:
    """What the kernel says about the process whose folder this is; OSError if it has ended."""
    return parse_stat(_read("stat", MAX_STAT, folder))


def _describe(folder: int, account: Callable[[int], str], names: Callable[[bytes], GroupNames]) -> Process:
    stat = read_stat_in(folder)
    alive = living_thread(folder, stat)
    executable = None if stat.kernel_thread else _executable(folder, alive)
    groups = NOTHING if stat.kernel_thread else names(_group_text(folder))
    return Process(
        pid=stat.pid,
        parent=stat.parent,
        started=stat.started,
        user=account(os.fstat(folder).st_uid),
        name=readable(stat.name),
        executable=executable,
        arguments="" if stat.kernel_thread else _arguments(folder, alive),
        state=parse_stat(_read(f"{alive}stat", MAX_STAT, folder)).state if alive else stat.state,
        memory=max(0, stat.memory),
        deleted=executable is not None and executable.endswith(DELETED) and _is_deleted(folder, alive, executable),
        unit=groups.unit,
        container=groups.container,
        inner_pid=0 if stat.kernel_thread else _inner_pid(folder),
    )


def living_thread(folder: int, stat: Stat) -> str:
    """Where in its folder a process is looked at: nowhere else, or at `task/TID/` of a thread that still runs.

    The main thread may have ended and others go on: the process looks like a zombie without a program, and runs.
    """
    if stat.state != "Z" or stat.threads <= 1:
        return ""
    task = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        threads = os.listdir(task)  # noqa: PTH208 - a descriptor, not a path
    finally:
        os.close(task)
    for thread in threads:
        with suppress(FileNotFoundError, ProcessLookupError):
            if parse_stat(_read(f"task/{thread}/stat", MAX_STAT, folder)).state not in "ZX":
                return f"task/{thread}/"
    return ""


def _executable(folder: int, thread: str) -> EndpointPath | None:
    """The path that the kernel gives, with ` (deleted)` after it if the file has been; None where it gives none."""
    try:
        raw = os.fsencode(os.readlink(f"{thread}exe", dir_fd=folder))
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # longer than a page: started from a folder deep down
            return None
        raise
    return EndpointPath.of(raw) if raw.startswith(b"/") else None


def _is_deleted(folder: int, thread: str, executable: EndpointPath) -> bool:
    """Is the kernel's remark true? A file may be called so, and one that was removed may have other names.

    The name is looked up below the process's own root.
    """
    with suppress(OSError):
        runs = os.stat(f"{thread}exe", dir_fd=folder)
        if runs.st_nlink == 0:
            return True
        there = os.stat(f"{thread}root".encode() + executable.raw, dir_fd=folder)
        return (there.st_dev, there.st_ino) != (runs.st_dev, runs.st_ino)
    return True


def parse_inner_pid(raw: bytes) -> int:
    """The innermost number in the line NSpid of /proc/PID/status; 0 if there is but one, or (before Linux 4.1) none."""
    found = _NSPID.search(raw)
    numbers = found[1].split() if found else []
    inner = int(numbers[-1]) if len(numbers) > 1 and len(numbers[-1]) <= _DIGITS else 0
    return inner if inner <= MAX_PID else 0


def _inner_pid(folder: int) -> int:
    with suppress(OSError):  # much faster than the whole of `status`
        if os.readlink("ns/pid", dir_fd=folder) == os.readlink(f"{PROC}/self/ns/pid"):  # noqa: PTH115 - no path
            return 0
    return parse_inner_pid(_read("status", MAX_STATUS, folder))


def _group_text(folder: int) -> bytes:
    with suppress(FileNotFoundError):  # a kernel without control groups
        return _read("cgroup", MAX_TEXT, folder)
    return b""


def _arguments(folder: int, thread: str) -> str:
    raw = _read(f"{thread}cmdline", _MAX_COMMAND_LINE, folder).rstrip(b"\0")
    line = shlex.join(map(readable, raw.split(b"\0"))) if raw else ""
    return line if len(line) <= MAX_ARGUMENTS else line[: MAX_ARGUMENTS - 1] + "…"


def readable(raw: bytes) -> str:
    r"""Bytes that a process chose, as text; odd ones as `\xff`."""
    return raw.decode("utf-8", "backslashreplace")


def _read(path: str, limit: int, folder: int | None = None) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(file, limit)
    finally:
        os.close(file)
