"""What runs, for a scan: processes whose memory is looked into, and the programs and libraries that they have mapped.

Another process may hold its own lock for good, or lie on a server that is gone: each is asked in a thread that can be
given up. Everything here blocks: call it in a thread.
"""

import os
import re
import stat
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from stanch.agent.host.patience import Patience
from stanch.agent.host.procfs import DELETED, PROC, Stat, pids, read_stat
from stanch.core.scan_wire import OpenedFile, WireProcess
from stanch.core.scanning import Skip, SkipReason

SECONDS: Final = 10
"""For one process to answer."""
MAX_MAPS: Final = 4 * 2**20
"""Bytes of a process's list of mappings."""
MAX_OPENED: Final = 200
"""Files that are held open for the worker at a time."""

_MAPPED = re.compile(rb"^\S+ ..(.). \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)$", re.MULTILINE)
_ESCAPED = re.compile(rb"\\012")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Inode = tuple[int, int]


@dataclass(kw_only=True)
class Running:
    """What runs. Whoever has it closes it."""

    paths: list[str] = field(default_factory=list)
    """Programs and mapped libraries that a path leads to."""
    opened: list[OpenedFile] = field(default_factory=list)
    """Those to which none leads: deleted, or of another mount namespace."""
    skips: list[Skip] = field(default_factory=list)

    def close(self) -> None:
        """Close what is open."""
        for one in self.opened:
            os.close(one["fd"])
        self.opened.clear()


@dataclass(frozen=True, slots=True)
class _Mapped:
    inode: Inode
    path: bytes


@dataclass(frozen=True, slots=True)
class _Seen:
    """One process, as it was read."""

    stat: Stat
    exe: str
    inode: Inode | None
    mapped: tuple[_Mapped, ...]
    here: bool
    """Does it see the files that we see?"""


def memory_of(
    wanted: Collection[int], names: Collection[str], ours: Collection[int]
) -> tuple[list[WireProcess], list[Skip]]:
    """The processes whose memory is to be looked into; never our own, and no thread of the kernel.

    All of them if neither numbers nor names are wanted. A number or name that is wanted and that nobody has is told.
    """
    found, called = list[WireProcess](), set[str]()
    chosen = [one for one in (sorted(wanted) if wanted else pids()) if one not in ours]
    for pid in chosen:
        seen = read_stat(pid)
        if seen is None or seen.kernel_thread or seen.state in "ZX":
            continue
        path = _exe(pid)
        fitting = {os.fsdecode(seen.name), path.removesuffix(DELETED).rpartition("/")[2]} & set(names)
        called |= fitting
        if not names or fitting:
            found.append(WireProcess(pid=pid, started=seen.started, name=_text(seen.name), path=path))
    missing = set(wanted) - {one["pid"] for one in found} if not names else set[int]()
    nobody = [_skip(one, SkipReason.GONE, "nobody is called so") for one in dict.fromkeys(names) if one not in called]
    return found, [*(_missing(one, ours) for one in sorted(missing)), *nobody]


def _missing(pid: int, ours: Collection[int]) -> Skip:
    why = "it is Stanch's own" if pid in ours else "no process that has memory of its own"
    return _skip(pid, SkipReason.OTHER if pid in ours else SkipReason.GONE, why)


def _skip(process: int | str, reason: SkipReason, why: str) -> Skip:
    return Skip(name=f"process {process}", reason=reason, detail=why)


def running(ours: Collection[int], patience: Patience[int]) -> Running:
    """Programs and libraries of all processes, each once."""
    found, stop = Running(), threading.Event()
    chosen = [one for one in pids() if one not in ours]
    done = patience.each(chosen, lambda pid, _sign: _look(pid), stop=stop, at_once=2)
    for pid in (*done.hanging, *done.skipped):
        found.skips.append(Skip(name=f"process {pid}", reason=SkipReason.HANGS, detail="its mappings cannot be read"))
    known = set[Inode]()
    for pid, seen in done.values.items():
        if isinstance(seen, _Seen):
            _take(pid, seen, known, found)
        elif seen:
            found.skips.append(Skip(name=f"process {pid}", reason=SkipReason.UNREADABLE, detail=seen))
    return found


def _look(pid: int) -> "_Seen | str":
    """A process; why it could not be looked at, empty if there is nothing to see."""
    seen = read_stat(pid)
    if seen is None or seen.kernel_thread or seen.state in "ZX":
        return ""
    try:
        maps = _read(f"{PROC}/{pid}/maps")
        here = os.readlink(f"{PROC}/{pid}/ns/mnt") == os.readlink(f"{PROC}/self/ns/mnt")  # noqa: PTH115 - no path
        inode = (PROC / str(pid) / "exe").stat()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return _Seen(seen, _exe(pid), (inode.st_dev, inode.st_ino), tuple(_mapped(maps)), here)


def _mapped(maps: bytes) -> Iterator[_Mapped]:
    """Files of which something is mapped to be run, each once. One without such a mapping is data."""
    found = dict[Inode, bytes]()
    for runs, major, minor, inode, path in _MAPPED.findall(maps):
        if runs == b"x":
            device = os.makedev(int(major, 16), int(minor, 16))
            found.setdefault((device, int(inode)), _ESCAPED.sub(b"\n", path))
    yield from (_Mapped(inode, path) for inode, path in found.items())


def _take(pid: int, seen: _Seen, known: set[Inode], found: Running) -> None:
    for one in seen.mapped:
        is_program = os.fsencode(seen.exe) == one.path
        if one.inode in known:
            continue
        known.add(one.inode)
        gone = one.path.endswith(DELETED.encode())
        if seen.here and not gone:
            found.paths.append(os.fsdecode(one.path))
        elif is_program or not gone:
            _hold(pid, seen, one, found, program=is_program)
        elif not one.path.startswith((b"/memfd:", b"/dev/zero", b"/SYSV", b"/[aio]")):
            name = f"{_text(one.path)} of process {pid}"
            found.skips.append(Skip(name=name, reason=SkipReason.GONE, detail="it was deleted and is still mapped"))


def _hold(pid: int, seen: _Seen, one: _Mapped, found: Running, *, program: bool) -> None:
    """Open it through the process itself."""
    name = f"{_text(one.path)} of process {pid}"
    if len(found.opened) >= MAX_OPENED:
        detail = f"more than {MAX_OPENED} files that have no path here"
        found.skips.append(Skip(name=name, reason=SkipReason.OTHER, detail=detail))
        return
    where = f"{PROC}/{pid}/exe".encode() if program else f"{PROC}/{pid}/root".encode() + one.path
    try:
        # The exe link is followed, as it leads to the very file that runs; a library must be the one that is mapped.
        file = os.open(where, _OPEN & ~os.O_NOFOLLOW if program else _OPEN)
    except OSError as error:
        found.skips.append(Skip(name=name, reason=SkipReason.UNREADABLE, detail=error.strerror or ""))
        return
    what = os.fstat(file)
    if not stat.S_ISREG(what.st_mode) or (not program and what.st_ino != one.inode[1]):
        os.close(file)
        found.skips.append(Skip(name=name, reason=SkipReason.CHANGED, detail="another file is at its path"))
        return
    path = _text(one.path) if not program else _text(os.fsencode(seen.exe))
    found.opened.append(OpenedFile(fd=file, name=name, path=path, pid=pid if program else 0, started=seen.stat.started))


def _exe(pid: int) -> str:
    """The program of a process, as the kernel names it; empty if it does not say."""
    with suppress(OSError):
        return os.readlink(f"{PROC}/{pid}/exe")  # noqa: PTH115 - no path that leads anywhere
    return ""


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts, size = [], 0
        while size < MAX_MAPS and (piece := os.read(file, 65_536)):
            parts.append(piece)
            size += len(piece)
        return b"".join(parts)
    finally:
        os.close(file)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")[:4000]


def ours(more: Collection[int] = ()) -> frozenset[int]:
    """Our own processes: this one, and those that are named."""
    return frozenset({os.getpid(), *more})
