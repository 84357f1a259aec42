"""Who holds the agent's state folder: the pid of its supervisor. Nothing is locked to find out, and nothing made."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from stanch.agent.host.procfs import PROC
from stanch.agent.supervisor import LOCK_FILE

_MAX_LOCKS = 100_000
_MAX_FILES = 4096
_PID, _FILE = 4, 5
"""Fields of a line of /proc/locks: `1: FLOCK ADVISORY WRITE 123 fe:01:4711 0 EOF`."""


def agent_pid(state: Path, *, proc: Path = PROC) -> int | None:
    """The process that holds this state folder; None if nobody does, or if it is in another pid namespace."""
    lock = state / LOCK_FILE
    try:
        wanted = lock.lstat()
    except OSError:
        return None
    for pid in _holders(proc, wanted.st_ino):
        if _has_open(proc / str(pid) / "fd", (wanted.st_dev, wanted.st_ino)):
            return pid
    return None


def _holders(proc: Path, inode: int) -> Iterator[int]:
    """Of locks on a file of that number, on any file system: what its device is called depends on who asks."""
    with suppress(OSError), (proc / "locks").open() as locks:
        for line in islice(locks, _MAX_LOCKS):
            fields = line.split()
            if "->" in fields or len(fields) <= _FILE or fields[1] != "FLOCK" or not fields[_PID].isdecimal():
                continue
            if fields[_FILE].rpartition(":")[2] == str(inode):
                yield int(fields[_PID])


def _has_open(descriptors: Path, file: tuple[int, int]) -> bool:
    with suppress(OSError):
        for one in islice(descriptors.iterdir(), _MAX_FILES):
            with suppress(OSError):
                found = one.stat()
                if (found.st_dev, found.st_ino) == file:
                    return True
    return False
