"""What is mapped into the memory of a process, as indicators ask for it: `ProcessItem/SectionList`."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stanch.agent.host.items_hashes import KINDS, Hashes, kinds_of
from stanch.core.ioc.items import CUT, Value

SECTION: Final = "SectionList/MemorySection/"

MAX_MAPS = 8 * 1_048_576
"""Bytes of the list of a process's memory."""
MAX_REGIONS = 65_536
"""The kernel's own bound, where nobody has changed it (vm.max_map_count)."""

_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][ps]) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ ([0-9]+)[ ]*(.*)", re.DOTALL
)
_DELETED = b" (deleted)"
_ESCAPED_NEWLINE = b"\\012"


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of memory."""

    start: int
    end: int
    protection: str
    """As the kernel shows it: r-xp, ..."""
    inode: int
    """Of the file; 0 if it is of none."""
    name: bytes
    """Path of the file, with the kernel's remark if it was deleted; [heap], [stack], ... or nothing."""

    @property
    def link(self) -> str:
        """Where in the folder of its process the file is to be had."""
        return f"map_files/{self.start:x}-{self.end:x}"

    @property
    def names(self) -> Iterator[str]:
        """Path of the file, with and without the remark."""
        if self.name.startswith(b"/"):
            if self.name.endswith(_DELETED):
                yield os.fsdecode(self.name.removesuffix(_DELETED))
            yield os.fsdecode(self.name)


def read_regions(folder: int, at: str = "") -> tuple[list[Region], bool]:
    """The memory of the process with this folder, and is that all? OSError.

    May wait for as long as the process likes.
    """
    with os.fdopen(os.open(f"{at}maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        raw = file.read(MAX_MAPS)
    lines = raw.split(b"\n")
    found = [one for line in lines[:MAX_REGIONS] if (one := parse_region(line)) is not None]
    return found, len(raw) < MAX_MAPS and len(lines) <= MAX_REGIONS + 1  # behind the last line end there is nothing


def parse_region(line: bytes) -> Region | None:
    """Read a line of /proc/PID/maps; None if it is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    start, end, protection, inode, name = found.groups()
    return Region(
        int(start, 16), int(end, 16), protection.decode("ascii"), int(inode), name.replace(_ESCAPED_NEWLINE, b"\n")
    )


def sections(
    folder: int, at: str, wanted: frozenset[str], *, hashes: Hashes, sign: Callable[[], None]
) -> Mapping[str, Sequence[Value]]:
    """What is mapped into the process with this folder; OSError if that cannot be known."""
    ones, whole = read_regions(folder, at)
    rest: Sequence[Value] = () if whole else (CUT,)
    values: dict[str, Sequence[Value]] = {
        "Name": list(dict.fromkeys(name for one in ones for name in one.names)),
        "Protection": list(dict.fromkeys(one.protection for one in ones)),
        "RegionStart": [one.start for one in ones],
        "RegionSize": list(dict.fromkeys(one.end - one.start for one in ones)),
        "Mapped": list(dict.fromkeys(one.inode != 0 for one in ones)),
    }
    kinds = kinds_of(SECTION, wanted)
    found = _digests(folder, ones, kinds, hashes, sign) if kinds else {}
    return {SECTION + path: [*value, *rest] for path, value in {**values, **found}.items()}


def _digests(
    folder: int, ones: Sequence[Region], kinds: tuple[str, ...], hashes: Hashes, sign: Callable[[], None]
) -> Mapping[str, Sequence[Value]]:
    """Kind to the hashes of what is mapped as a program is; without those that cannot be read."""
    found: dict[str, dict[Value, None]] = {kind: {} for kind in KINDS}
    programs = {one.name: one for one in ones if one.inode and "x" in one.protection}
    missed = 0
    for one in programs.values():
        try:
            digests = hashes.of(one.link, folder, kinds, sign)
        except OSError:
            missed += 1
            continue
        missed += not digests
        for kind, digest in digests.items():
            found[kind][digest] = None
    if programs and missed == len(programs):  # no right to do so: nothing is known
        return {}
    return {kind: [*values, *((CUT,) if missed else ())] for kind, values in found.items()}
