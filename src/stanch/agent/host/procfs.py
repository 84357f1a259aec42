"""Read what /proc says about one process, so that all of it is about the same process.

A folder below /proc stays bound to its process: once that has ended, everything below the folder fails with ESRCH,
even if the pid has been given to another. So everything is read through one descriptor of the folder, and what a
process may choose (its name, its arguments, its path) is taken as bytes and bounded.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.core.errors import ActionFailed
from stanch.core.host import Process
from stanch.core.types import EndpointPath

PROC = Path("/proc")
MAX_STAT = 4096
MAX_ARGUMENTS = 4000
"""Characters of a command line that are shown."""

_MAX_COMMAND_LINE = 4 * MAX_ARGUMENTS
"""Bytes of it that are read: what is shown, if every character took four."""

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


def read_process(pid: int, account: Callable[[int], str]) -> Process | None:
    """The process with this pid; None if there is none. `account` gives the name of a user id."""
    try:
        folder = os.open(f"{PROC}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return _describe(folder, account)
    except (FileNotFoundError, ProcessLookupError):
        return None
    finally:
        os.close(folder)


def _describe(folder: int, account: Callable[[int], str]) -> Process:
    stat = parse_stat(_read("stat", MAX_STAT, folder))
    # The main thread may have ended and others go on: the process looks like a zombie without a program, and runs.
    alive = _living_thread(folder) if stat.state == "Z" and stat.threads > 1 else ""
    return Process(
        pid=stat.pid,
        parent=stat.parent,
        started=stat.started,
        user=account(os.fstat(folder).st_uid),
        name=readable(stat.name),
        executable=None if stat.kernel_thread else _executable(folder, alive),
        arguments="" if stat.kernel_thread else _arguments(folder, alive),
        state=parse_stat(_read(f"{alive}stat", MAX_STAT, folder)).state if alive else stat.state,
        memory=max(0, stat.memory),
    )


def _living_thread(folder: int) -> str:
    """Where a thread that still runs shows what the main thread no longer does: `task/TID/`, or nothing."""
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
    return EndpointPath.of(raw) if raw.startswith(b"/") else None


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
