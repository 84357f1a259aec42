"""Where a scan looks: what the areas are on Linux, as names for the worker.

Everything here blocks: call it in a thread. To ask where a name leads may take for ever, on a file system that does not
answer: so that is asked through whoever has the patience.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from stanch.agent.host.patience import Patience
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


Ask = Callable[[str], str]
Lead = Callable[[Sequence[str], Ask], Mapping[str, str]]
"""Names to what is said of each, without those that do not answer."""


def patiently(patience: Patience[str], hangs: Callable[[str], None]) -> Lead:
    """Whoever does not answer is left out, and `hangs` hears of it."""

    def lead(paths: Sequence[str], ask: Ask) -> Mapping[str, str]:
        done = patience.each(paths, lambda path, _sign: ask(path), stop=threading.Event())
        for one in (*done.hanging, *done.skipped):
            hangs(one)
        return done.values

    return lead


def _at_once(paths: Sequence[str], ask: Ask) -> Mapping[str, str]:
    return {one: ask(one) for one in paths}


def places(files: Files, root: Path = Path("/"), lead: Lead = _at_once) -> Iterator[Place]:
    """Of an area; of the critical one, what is on the disk by name: what runs comes from `scanner_processes`."""
    match files.area:
        case Area.ALL:
            # One walk: it goes on into whatever is mounted below, if the scan says so.
            yield Place(os.fspath(root), below=True)
        case Area.SYSTEM:
            yield from _folders(SYSTEM, root, lead)
        case Area.CUSTOM:
            # What a name leads to, once: the worker follows no link, so that nobody swaps it later.
            named = [os.fsdecode(one.raw) for one in files.paths]
            yield from (Place(one, below=True) for one in lead(named, os.path.realpath).values())
        case Area.CRITICAL:
            yield from _folders(("/boot", f"/lib/modules/{os.uname().release}"), root, lead)
            yield from (Place(one, below=False) for one in _preloaded(root, lead))


def targets(some: Iterator[Place]) -> Iterator[Targets]:
    """As messages, in the same order."""
    for below, group in groupby(some, key=lambda one: one.below):
        while batch := [one.path for one in islice(group, MAX_BATCH)]:
            yield Targets(type="targets", paths=batch, below=below)


def _folders(paths: Sequence[str], root: Path, lead: Lead) -> Iterator[Place]:
    """Those that are there, each once: on most systems /bin is a link to /usr/bin, which is looked at anyway."""
    inside = [os.fspath(root / one.lstrip("/")) for one in paths]
    real = [one for one in lead(inside, _real_folder).values() if one]
    for one in dict.fromkeys(real):
        if not any(one != other and one.startswith(f"{other.rstrip('/')}/") for other in real):
            yield Place(one, below=True)


def _real_folder(path: str) -> str:
    """Where it leads; empty for what is no folder."""
    return os.path.realpath(path) if Path(path).is_dir() else ""


def _preloaded(root: Path, lead: Lead) -> Iterator[str]:
    """What every program loads first, and the file that says so."""
    path = root / PRELOAD.lstrip("/")
    with suppress(OSError), path.open("rb") as file:
        yield os.fspath(path)
        names = _SPACES.split(file.read(MAX_PRELOAD))
        named = [os.fsdecode(one) for one in names if one.startswith(b"/")]
        yield from lead(named, os.path.realpath).values()
