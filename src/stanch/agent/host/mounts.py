"""The mount that an open file or folder is on: which kind of file system it is, and what it was mounted from.

Found by the number of the mount, not of the device: btrfs and overlays show different devices for one mount.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)
_SIDES = 2
_LEFT, _RIGHT = 6, 3
"""Fields at least, before and after the lone hyphen of a line of mountinfo."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo; all empty for a mount that this process does not see."""

    kind: str = ""
    """Kind of file system, such as `ext4`."""

    source: str = ""
    """What was mounted, such as `/dev/sda1`; may be any text."""

    options: frozenset[str] = frozenset()
    """Of the mount and of the file system."""

    read_only: bool = False
    """Nothing can be written there."""


def mount_of(descriptor: int) -> Mount:
    """The mount of what is open (O_PATH too). Blocks."""
    with suppress(OSError):
        number = _ID.search(Path(f"/proc/self/fdinfo/{descriptor}").read_bytes())
        if number is not None:
            return parse_mounts(Path("/proc/self/mountinfo").read_bytes()).get(int(number[1]), Mount())
    return Mount()


def parse_mounts(text: bytes) -> dict[int, Mount]:
    """Number of a mount to the mount; a line that is none is left out."""
    found: dict[int, Mount] = {}
    for line in text.splitlines():
        sides = [side.decode(errors="replace").split() for side in line.split(b" - ", 1)]
        if len(sides) != _SIDES or len(sides[0]) < _LEFT or len(sides[1]) < _RIGHT or not sides[0][0].isdecimal():
            continue
        (number, *_), (kind, source, of_system) = sides[0], sides[1][:_RIGHT]
        options = frozenset((*sides[0][5].split(","), *of_system.split(",")))
        found[int(number)] = Mount(kind, source, options, "ro" in options)
    return found
