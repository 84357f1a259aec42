"""The other names of a file (hard links): looked for near the name that is known first, then ever farther from it.

Only a search of the whole file system finds them, and it may be huge: so the search is bounded, and says how many names
it has not found. It follows no link and leaves no file system, also not through a bind mount. It blocks: call it in a
thread.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from stanch.agent.host.path_calls import path_of
from stanch.agent.host.pinned import Pinned, leads_to, same_file
from stanch.core.errors import Cancelled
from stanch.core.types import MAX_PATH_BYTES, EndpointPath

MOST_LOOKED_AT = 2_000_000
"""Entries of folders that are looked at: some seconds."""

_MOST_WAITING = 50_000
"""Folders that are remembered for later; of more, the names are not found."""

_OFTEN = 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def other_names(
    pinned: Pinned,
    *,
    most_looked_at: int = MOST_LOOKED_AT,
    cancelled: Callable[[], bool] = lambda: False,
    aside: bytes | None = None,
) -> tuple[list[EndpointPath], int]:
    """The other names of the pinned file on its file system, the nearest first, and how many were not found.

    First its own folder is looked through, then what is below each folder above it, up to the root of the mount; it
    ends once all names are known, or after `most_looked_at` entries. If the pinned name was moved `aside`, as this name
    in its folder, that is none of the others. A folder has no other names. Cancelled.
    """
    status = pinned.status
    if stat.S_ISDIR(status.st_mode) or status.st_nlink <= 1:
        return [], 0
    own = pinned.path.raw
    if aside is not None and leads_to(pinned.folder, aside, pinned.descriptor):
        own = _parent(own).rstrip(b"/") + b"/" + aside
    search = _Search(
        status,
        os.fstat(pinned.folder).st_dev,
        own,
        mount_points(),
        wanted=status.st_nlink - 1,
        budget=most_looked_at,
        cancelled=cancelled,
    )
    search.run(_parent(own))
    return [EndpointPath.of(one) for one in search.found], max(0, search.wanted - len(search.found))


@dataclass(slots=True)
class _Search:
    """One search."""

    file: os.stat_result
    device: int
    """Of the folders: an overlay file system gives its files other numbers than its folders."""
    own: bytes
    mounts: frozenset[bytes]
    wanted: int = field(kw_only=True)
    budget: int = field(kw_only=True)
    cancelled: Callable[[], bool] = field(kw_only=True)
    found: list[bytes] = field(default_factory=list)

    def run(self, start: bytes) -> None:
        """From its folder upwards."""
        done = b""
        for top in _upwards(start, self.mounts):
            waiting = [top]
            while waiting:
                folder = waiting.pop()
                for below in self._look_through(folder):
                    # Depth first: what waits is a few folders, not a whole level of the tree.
                    if below != done and len(waiting) < _MOST_WAITING:
                        waiting.append(below)
                if self.is_over:
                    return
            done = top

    @property
    def is_over(self) -> bool:
        """Nothing more is to be found, or may be looked at."""
        return len(self.found) >= self.wanted or self.budget <= 0

    def _look_through(self, folder: bytes) -> Iterator[bytes]:
        """Note the names of the file in one folder; the folders in it. What cannot be read has no names."""
        with suppress(OSError), _held(folder) as descriptor:
            if descriptor is None or os.fstat(descriptor).st_dev != self.device:
                return
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    self._count()
                    if self.is_over:
                        return
                    path = folder.rstrip(b"/") + b"/" + os.fsencode(entry.name)
                    if path in self.mounts or len(path) > MAX_PATH_BYTES:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        yield path
                    elif entry.inode() == self.file.st_ino and path != self.own:
                        self._note(path, os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False))

    def _count(self) -> None:
        self.budget -= 1
        if self.budget % _OFTEN == 0 and self.cancelled():
            raise Cancelled("The search for the other names of a file was cancelled")

    def _note(self, path: bytes, status: os.stat_result) -> None:
        if same_file(status, self.file):
            self.found.append(path)


def _upwards(folder: bytes, mounts: frozenset[bytes]) -> Iterator[bytes]:
    """A folder and those above it, up to the root of its mount."""
    while True:
        yield folder
        if folder == b"/" or folder in mounts:
            return
        folder = _parent(folder)


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"


@contextmanager
def _held(path: bytes) -> Iterator[int | None]:
    """A folder, opened; None if a link on the way leads elsewhere by now."""
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor if path_of(descriptor) == path else None
    finally:
        os.close(descriptor)


def mount_points() -> frozenset[bytes]:
    """Where file systems, folders or files are mounted: below, other files are, or the same ones a second time."""
    with Path("/proc/thread-self/mountinfo").open("rb") as lines:
        return frozenset(_ESCAPED.sub(_unescaped, line.split(b" ")[4]) for line in lines)


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])
