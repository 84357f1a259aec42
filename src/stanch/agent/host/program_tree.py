"""Who descends from a process, and signals to exactly those. Standard library only, as keepers need nothing else."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

_AT_ONCE = 5000
"""Fewer than what is read may hold: the last number could be cut."""


def children() -> list[int]:
    """Pids of the children of this process, which has one thread; zombies too. Empty where the kernel has no list."""
    with suppress(OSError):
        file = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What does not fit is a child still when those before it are gone.
            return [int(pid) for pid in os.read(file, 65_536).split()[:_AT_ONCE]]
        finally:
            os.close(file)
    return []


def descendants(root: int = 0) -> dict[int, int]:
    """Who is below a process (0: this one), pid to start time; zombies too."""
    root = root or os.getpid()
    children: dict[int, list[tuple[int, int]]] = {}
    for pid, parent, ticks in _everybody():
        children.setdefault(parent, []).append((pid, ticks))
    found: dict[int, int] = {}
    waiting = [root]
    while waiting:
        for pid, ticks in children.get(waiting.pop(), ()):
            if pid not in found and pid != root:
                found[pid] = ticks
                waiting.append(pid)
    return found


def _everybody() -> Iterator[tuple[int, int, int]]:
    """Pid, parent and start time of every process."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of paths are waste
        if name.isdecimal() and (fields := _stat(int(name))) is not None:
            yield int(name), int(fields[1]), int(fields[19])


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat behind the name, which may hold anything."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(file, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(file)


def started(pid: int) -> int:
    """The start time of a process in clock ticks since boot; 0 if there is none."""
    fields = _stat(pid)
    return 0 if fields is None else int(fields[19])


def send(pid: int, ticks: int, number: int) -> None:
    """Send a signal to exactly this process, through a pidfd; nothing if it is gone."""
    with suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            if started(pid) == ticks:
                signal.pidfd_send_signal(held, number)
        finally:
            os.close(held)
