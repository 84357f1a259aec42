"""Who runs, maps or has open a file: by looking at every process, deleted files too.

A file is recognised by device and inode. The kernel's links in /proc lead to the file itself, whatever it is called by
now, and asking through them (stat) gives the same numbers as asking the file does; the numbers that `maps` prints do
not on some file systems, so each mapping is asked through its own link where that is allowed.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from stanch.agent.host.procfs import PROC, pids, read_stat, readable
from stanch.core.files import FileId
from stanch.core.processes import Held, Holder, ProcessId

File = tuple[int, int]
"""Device and inode."""

MOST = 10_000
"""Holders that are told."""

_FLAGS = re.compile(rb"^flags:\s*([0-7]+)", re.MULTILINE)
_WRITES = os.O_WRONLY | os.O_RDWR


def holders(files: Collection[FileId]) -> list[Holder]:
    """Every process that holds one of these files, once for each file and way. Blocks; one that ends is left out."""
    wanted = {(one.device, one.inode): one for one in files}
    found: list[Holder] = []
    for pid in pids() if wanted else ():
        found += _of(pid, wanted)
        if len(found) >= MOST:
            break
    return found[:MOST]


def _of(pid: int, wanted: Mapping[File, FileId]) -> list[Holder]:
    before = read_stat(pid)
    held = dict.fromkeys(_held(PROC / str(pid), set(wanted)))
    if before is None or not held or _started(pid) != before.started:
        return []
    who = ProcessId(pid=pid, started=before.started)
    return [Holder(process=who, name=readable(before.name), file=wanted[file], how=how) for file, how in held]


def _started(pid: int) -> int | None:
    now = read_stat(pid)
    return None if now is None else now.started


def _held(process: Path, wanted: set[File]) -> Iterator[tuple[File, Held]]:
    program = _file(process / "exe")
    if program in wanted:
        yield program, Held.RUNS
    for link in _links(process / "map_files"):
        mapped = _file(link)
        if mapped in wanted and mapped != program:
            yield mapped, Held.MAPS
    for link in _links(process / "fd"):
        opened = _file(link)
        if opened in wanted:
            yield opened, Held.WRITES if _is_writing(process / "fdinfo" / link.name) else Held.READS


def _links(folder: Path) -> Iterator[Path]:
    """Its entries; none of a process that ended, or of another's that must not be looked into."""
    with suppress(OSError):
        yield from folder.iterdir()


def _file(link: Path) -> File | None:
    with suppress(OSError):
        status = os.stat(link)  # noqa: PTH116 - a magic link, not a path to walk
        return status.st_dev, status.st_ino
    return None


def _is_writing(info: Path) -> bool:
    with suppress(OSError):
        flags = _FLAGS.search(info.read_bytes())
        return flags is not None and bool(int(flags[1], 8) & _WRITES)
    return False
