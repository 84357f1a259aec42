"""Where a scan looks: what the areas are on Linux, as names for the worker.

Everything here blocks: call it in a thread.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from stanch.core.scan_wire import MAX_BATCH, Targets
from stanch.core.scanning import Area, Files

SYSTEM: Final = (
    *("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/srv", "/usr"),
    *("/dev/shm", "/home", "/root", "/run", "/tmp", "/var/spool", "/var/tmp", "/var/www", "/var/lib/systemd"),  # noqa: S108 - where malware likes to be
)
"""Where programs, libraries and configuration of the system are, and where everybody may write."""

PRELOAD: Final = "/etc/ld.so.preload"
MAX_PRELOAD: Final = 65_536

_SPACES = re.compile(rb"[\s:]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder to look at."""

    path: str
    below: bool
    """All that is below it, too."""


def places(files: Files, root: Path = Path("/")) -> Iterator[Place]:
    """Of an area; of the critical one, what is on the disk by name: what runs comes from `scanner_processes`."""
    match files.area:
        case Area.ALL:
            # One walk: it goes on into whatever is mounted below, if the scan says so.
            yield Place(os.fspath(root), below=True)
        case Area.SYSTEM:
            yield from _folders(SYSTEM, root)
        case Area.CUSTOM:
            # What a name leads to, once: the worker follows no link, so that nobody swaps it later.
            yield from (Place(os.path.realpath(os.fsdecode(one.raw)), below=True) for one in files.paths)
        case Area.CRITICAL:
            yield from _folders(("/boot", f"/lib/modules/{os.uname().release}"), root)
            yield from (Place(one, below=False) for one in _preloaded(root))


def targets(some: Iterator[Place]) -> Iterator[Targets]:
    """As messages, in the same order."""
    for below, group in groupby(some, key=lambda one: one.below):
        while batch := [one.path for one in islice(group, MAX_BATCH)]:
            yield Targets(type="targets", paths=batch, below=below)


def _folders(paths: Sequence[str], root: Path) -> Iterator[Place]:
    """Those that are there, each once: on most systems /bin is a link to /usr/bin, which is looked at anyway."""
    inside = [root / one.lstrip("/") for one in paths]
    real = [os.path.realpath(one) for one in inside if one.is_dir()]
    for one in dict.fromkeys(real):
        if not any(one != other and one.startswith(f"{other.rstrip('/')}/") for other in real):
            yield Place(one, below=True)


def _preloaded(root: Path) -> Iterator[str]:
    """What every program loads first, and the file that says so."""
    path = root / PRELOAD.lstrip("/")
    with suppress(OSError), path.open("rb") as file:
        yield os.fspath(path)
        names = _SPACES.split(file.read(MAX_PRELOAD))
        yield from (os.path.realpath(os.fsdecode(one)) for one in names if one.startswith(b"/"))
