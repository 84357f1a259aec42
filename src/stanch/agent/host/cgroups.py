"""Control groups of version 2: where their root is, and which numbers the kernel knows them by."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stanch.core.errors import TargetGone, Unsupported

NFT_LOOKS_IN = "/sys/fs/cgroup"
"""nft takes the paths of control groups for paths below this folder."""

MOUNTS = Path("/proc/self/mountinfo")
MAX_GROUPS = 10_000
_MAX_MOUNTS = 4 * 1_048_576


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The tree of control groups."""

    root: Path

    @property
    def prefix(self) -> str:
        """What nft wants in front of a path: nothing, or `unified/` where the root belongs to version 1."""
        below = os.path.relpath(self.root, NFT_LOOKS_IN)
        return "" if below == "." else f"{below}/"

    def number(self, path: str) -> int:
        """The group's number now; 0 if there is none."""
        try:
            return (self.root / path).stat().st_ino
        except OSError:
            return 0

    def check(self, path: str) -> None:
        """TargetGone if there is no such group: the kernel knows it by its number, not by its path."""
        if not self.number(path):
            raise TargetGone(
                "There is no such control group now",
                got=path,
                expected=f"a folder below {self.root}",
                hint="A unit has a control group only while it runs.",
            )

    def numbers(self, path: str) -> frozenset[int]:
        """Of the group and of every group below it."""
        return frozenset(number for number, _ in zip(self._numbers(path), range(MAX_GROUPS), strict=False))

    def _numbers(self, path: str) -> Iterator[int]:
        for folder, _folders, _files in os.walk(self.root / path):
            number = self.number(folder)
            if number:
                yield number


def hierarchy(mounts: Path = MOUNTS) -> Hierarchy:
    """Where version 2 is mounted; Unsupported if it is not, or nft would not find it there."""
    try:
        with mounts.open("rb") as file:
            text = file.read(_MAX_MOUNTS).decode("utf-8", "backslashreplace")
    except OSError:
        text = ""
    found = [Path(one) for one in _mounted(text) if one == NFT_LOOKS_IN or one.startswith(f"{NFT_LOOKS_IN}/")]
    if not found:
        raise Unsupported(
            "Exclusions for units need control groups of version 2",
            got="no cgroup2 file system",
            expected=f"one at {NFT_LOOKS_IN} or below it",
        )
    return Hierarchy(found[0])


def _mounted(text: str) -> Iterator[str]:
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and after.split(" ")[0] == "cgroup2" and len(fields) > 4:  # noqa: PLR2004 - the mount point is the fifth
            yield fields[4]
