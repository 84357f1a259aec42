"""Which processes belong to which unit of systemd, by the control groups that /proc tells of. Blocks."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_PROCESSES: Final = 100_000
_MAX_TEXT: Final = 16_384
_MANAGER: Final = re.compile(r"user@(\d{1,10})\.service", re.ASCII)
_UNITS: Final = (".service", ".scope", ".socket", ".mount", ".swap")

Owner = tuple[int | None, str]
"""The user whose manager started it (None for the system), and the unit."""


def pids_of_units(proc: Path) -> Mapping[Owner, Sequence[int]]:
    """Unit to its processes, in ascending order. Those that end meanwhile are left out."""
    found: dict[Owner, list[int]] = {}
    with suppress(OSError):
        pids = sorted(int(one.name) for one in proc.iterdir() if one.name.isascii() and one.name.isdigit())
        for pid in pids[:MAX_PROCESSES]:
            with suppress(OSError), (proc / str(pid) / "cgroup").open("rb") as file:
                owner = unit_of(file.read(_MAX_TEXT).decode("utf-8", "surrogateescape"))
                if owner is not None:
                    found.setdefault(owner, []).append(pid)
    return found


def unit_of(groups: str) -> Owner | None:
    """The unit that a process is in, by its /proc/PID/cgroup; None for none. What a container has inside is no unit."""
    for line in groups.split("\n"):
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers in {"", "name=systemd"} and path.startswith("/"):
            owner = _of_path(path)
            if owner is not None:
                return owner
    return None


def _of_path(path: str) -> Owner | None:
    uid: int | None = None
    for step in path.split("/"):
        manager = _MANAGER.fullmatch(step)
        if manager and uid is None:
            uid = int(manager[1])
        elif step.endswith(_UNITS):
            return uid, step
    return None if uid is None else (None, f"user@{uid}.service")
