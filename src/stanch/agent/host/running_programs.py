"""Which processes run a program: by the path that they call it by, by the file that lies there, or by its hash.

- A path is what the kernel shows as the process's program: in a container the path there, and with ` (deleted)` after
  it if the file has gone. Links in the folders of the path that was asked for are followed, the last name is not; and
  only links that root alone could put there. Else whoever runs a bad program could give its folder away for a link to
  where the good ones lie.
- Of a process in another mount namespace it is also compared by device and inode with the file that the path leads to
  here. Of those in our own it is not: another name of a good program, put where a bad one was, must not end the good.
- A hash is taken of what runs, through the process, so that a deleted program is found too; once for each content.

What starts itself anew and ends, again and again, is gone when a look at all processes is over. So `hunt` looks at the
youngest first, and hands over each one the moment that it is seen.
"""

import asyncio
import hashlib
import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import TypeVar

from stanch.agent.host.births import last_pid
from stanch.agent.host.patience import Patience
from stanch.agent.host.procfs import PROC, living_thread, opened, pids, read_stat, read_stat_in
from stanch.core.files import HashKind
from stanch.core.processes import ProcessId, Sought
from stanch.core.types import EndpointPath

MAX_PROGRAM = 2 * 1_073_741_824
"""Bytes of a program that is hashed."""

MAX_KNOWN = 8192
"""Hashes that are remembered."""

MAX_TRIED = 5
"""Processes that are tried in turn for the content of one program."""

PATIENCE, READ_PATIENCE = 2.0, 15.0
"""Seconds that a process, and a block of its program, may take to answer."""

MAX_HUNTS, QUIET_HUNTS = 300, 5
"""Looks of a hunt at most; it is over after so many in a row that find nobody new."""

T = TypeVar("T")

_DELETED = b" (deleted)"
_BLOCK = 1_048_576
_MAX_LINKS = 40

Sign = Callable[[], None]
"""Tells that it goes on."""

File = tuple[int, int]
"""Device and inode."""

Place = tuple[set[bytes], File | None]
"""What the kernel may call a path, and which file lies there, if one does."""

Version = tuple[int, int, int, int, int]
"""Device, inode, size, and the two times that change when the content does: one content of one file."""


@dataclass(frozen=True, slots=True)
class _Program:
    """What a process runs."""

    one: ProcessId
    path: bytes
    elsewhere: bool
    """Is it in another mount namespace?"""
    at: str
    """Where its program is looked at."""
    version: Version | None = None


class RunningPrograms:
    """Finds who runs a program; remembers the hashes of what runs."""

    def __init__(self) -> None:
        self._known: dict[tuple[HashKind, Version], str] = {}
        self._looking: Patience[int] = Patience("running-program", seconds=PATIENCE)
        self._placing: Patience[EndpointPath] = Patience("running-program-place", seconds=PATIENCE)
        self._hashing: Patience[Version] = Patience("running-program-hash", seconds=READ_PATIENCE)

    async def that_run(self, sought: Sought) -> list[ProcessId]:
        """Whose program it is."""
        return await _in_thread(lambda stop: [one.one for one in self._that_run(sought, stop)])

    async def hunt(self, sought: Sought, take: Callable[[ProcessId], bool]) -> None:
        """Hand over whoever runs it at once, until no more are found; `take` says whether it took a new one."""
        await _in_thread(lambda stop: self._hunt(sought, take, stop))

    def _hunt(self, sought: Sought, take: Callable[[ProcessId], bool], stop: Event) -> None:
        names, versions = self._marks(sought, stop)
        quiet = 0
        for _ in range(MAX_HUNTS):
            if names:  # a link of the kernel always answers; a file need not
                found = [_snatch(pid, names, versions, take) for pid in _youngest_first()]
            else:
                do = self._looking.each(
                    _youngest_first(), lambda pid, _sign: _snatch(pid, names, versions, take), stop=stop
                )
                found = list(do.values.values())
            quiet = 0 if any(found) else quiet + 1
            if quiet == QUIET_HUNTS or stop.is_set():
                return

    def _marks(self, sought: Sought, stop: Event) -> tuple[frozenset[bytes], frozenset[Version]]:
        """How one who runs it is known at a glance: by what the kernel calls its program, or by its content."""
        if sought.path is not None:
            names, _file = self._place(sought.path, stop)
            return frozenset({*names, *(name + _DELETED for name in names)}), frozenset()
        self._that_run(sought, stop)
        kind, wanted = _hash_of(sought)
        return frozenset(), frozenset(one for (of, one), found in self._known.items() if (of, found) == (kind, wanted))

    def _that_run(self, sought: Sought, stop: Event) -> list[_Program]:
        by_hash = sought.path is None
        done = self._looking.each(list(pids()), lambda pid, _sign: _look(pid, by_hash=by_hash), stop=stop)
        programs = [one for one in done.values.values() if one is not None]
        if sought.path is not None:
            names, file = self._place(sought.path, stop)
            return [one for one in programs if _is_called(one, names) or _is_file(one, file)]
        kind, wanted = _hash_of(sought)
        hashes = self._hashes(kind, programs, stop)
        return [one for one in programs if one.version is not None and hashes.get(one.version) == wanted]

    def _place(self, path: EndpointPath, stop: Event) -> Place:
        done = self._placing.each([path], lambda _path, _sign: _place(path.raw), stop=stop)
        return done.values.get(path) or ({path.raw}, None)

    def _hashes(self, kind: HashKind, programs: Sequence[_Program], stop: Event) -> Mapping[Version, str]:
        runs: dict[Version, list[_Program]] = {}
        for one in programs:
            if one.version is not None and one.version[2] <= MAX_PROGRAM:
                runs.setdefault(one.version, []).append(one)
        new = [version for version in runs if (kind, version) not in self._known]
        done = self._hashing.each(
            new, lambda version, sign: _hash(kind, version, runs[version], stop, sign), stop=stop, at_once=2
        )
        if len(self._known) + len(new) > MAX_KNOWN:
            self._known.clear()
        self._known.update(((kind, version), found) for version, found in done.values.items() if found)
        return {version: self._known[kind, version] for version in runs if (kind, version) in self._known}


def _is_called(one: _Program, names: set[bytes]) -> bool:
    return bool({one.path, one.path.removesuffix(_DELETED)} & names)


def _is_file(one: _Program, file: File | None) -> bool:
    return one.elsewhere and file is not None and one.version is not None and one.version[:2] == file


def _hash_of(sought: Sought) -> tuple[HashKind, str | None]:
    return (HashKind.MD5, sought.md5) if sought.sha256 is None else (HashKind.SHA256, sought.sha256)


async def _in_thread(work: Callable[[Event], T]) -> T:
    stop = Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


def _youngest_first() -> list[int]:
    """All pids, from the one that was given last back to it."""
    found, last = sorted(pids()), last_pid()
    at = bisect_right(found, last)
    return [*reversed(found[:at]), *reversed(found[at:])]


def _snatch(pid: int, names: frozenset[bytes], versions: frozenset[Version], take: Callable[[ProcessId], bool]) -> bool:
    with suppress(OSError):
        link = f"{PROC}/{pid}/exe"
        if names and os.fsencode(os.readlink(link)) not in names:  # noqa: PTH115 - a link of the kernel, not a path
            return False
        if versions and _version(os.stat(link)) not in versions:  # noqa: PTH116 - the same
            return False
        found = read_stat(pid) if names or versions else None
        return found is not None and take(ProcessId(pid=pid, started=found.started))
    return False


def _look(pid: int, *, by_hash: bool) -> _Program | None:
    """What the process with this pid runs; None if it has ended, or runs nothing that can be told.

    The file is asked only where it is needed: one that does not answer must not hide who runs it.
    """
    with suppress(OSError), opened(pid) as folder:
        found = read_stat_in(folder)
        if found.kernel_thread:
            return None
        thread = living_thread(folder, found)
        path = os.fsencode(os.readlink(f"{thread}exe", dir_fd=folder))
        elsewhere = _namespace(f"{thread}ns/mnt", folder) != _namespace(f"{PROC}/self/ns/mnt")
        return _Program(
            one=ProcessId(pid=pid, started=found.started),
            path=path,
            elsewhere=elsewhere,
            at=f"{PROC}/{pid}/{thread}exe",
            version=_version(os.stat(f"{thread}exe", dir_fd=folder)) if by_hash or elsewhere else None,
        )
    return None


def _namespace(link: str, folder: int | None = None) -> str:
    with suppress(OSError):
        return os.readlink(link, dir_fd=folder)
    return ""


def _version(status: os.stat_result) -> Version:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _place(path: bytes) -> Place:
    folder, _, name = path.rpartition(b"/")
    real = os.path.join(os.path.realpath(folder or b"/"), name)  # noqa: PTH118 - pathlib knows no bytes
    if real != path and not _led_by_root(folder):
        return {path}, None
    with suppress(OSError):
        status = os.lstat(path)
        return {path, real}, (status.st_dev, status.st_ino)
    return {path, real}, None


def _led_by_root(folder: bytes) -> bool:
    """Could nobody but root, or our own account, have put the links on the way there?"""
    at, rest, links = b"/", folder.split(b"/")[::-1], 0
    while rest:
        name = rest.pop()
        here = os.path.normpath(os.path.join(at, name))  # noqa: PTH118 - pathlib knows no bytes
        try:
            found = os.lstat(here)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MAX_LINKS or found.st_uid not in {0, os.geteuid()} or not _is_roots(at):
                    return False
                target = os.readlink(here)  # noqa: PTH115 - see above
                here = b"/" if target.startswith(b"/") else at
                rest += target.split(b"/")[::-1]
        except OSError:
            return False
        at = here
    return True


def _is_roots(folder: bytes) -> bool:
    """Can nobody else rename or remove what lies here? OSError."""
    while True:
        found = os.lstat(folder)
        open_to_others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if open_to_others or found.st_uid not in {0, os.geteuid()}:
            return False
        if folder == b"/":
            return True
        folder = os.path.dirname(folder)  # noqa: PTH120 - see above


def _hash(kind: HashKind, version: Version, runs: Sequence[_Program], stop: Event, sign: Sign) -> str | None:
    """The hash of this content, read through one of those who run it; None if nobody does any more."""
    for one in islice(runs, MAX_TRIED):
        with suppress(OSError):
            program = os.open(one.at, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _version(os.fstat(program)) == version:
                    return _digest(kind, program, version[2], stop, sign)
            finally:
                os.close(program)
    return None


def _digest(kind: HashKind, program: int, size: int, stop: Event, sign: Sign) -> str | None:
    digest, left = hashlib.new(kind.value, usedforsecurity=False), size
    while left > 0 and not stop.is_set():
        block = os.read(program, min(_BLOCK, left))
        if not block:
            return None
        digest.update(block)
        left -= len(block)
        sign()
    return None if left else digest.hexdigest()
