r"""Finds the control group of a systemd unit that runs.

Only folders that systemd made for its own tree are walked: slices, and the managers of users below `user@UID.service`.
What a service or a container makes below itself is not looked at, so that none of them can pass for another unit. For
the same reason a unit of a user's manager is found only under a name that the system itself has no unit of.
"""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stanch.agent.host.configured import lines_of, text_of

MAX_FOLDERS = 20_000
"""That are looked into, for all units of one call."""

MAX_SAME = 16
"""Users whose managers have a unit of the same name."""

MOUNTINFO = Path("proc/self/mountinfo")
UNIT_FILES = tuple(
    Path(one) for one in ("etc/systemd/system", "run/systemd/system", "run/systemd/transient", "usr/lib/systemd/system")
)
SUFFIXES = (".service", ".scope", ".slice", ".socket", ".mount", ".swap")
"""Of units that have processes."""

ROOT_SLICE = "-.slice"

_USER_MANAGER = re.compile(r"user@\d+\.service")
_OCTAL = re.compile(r"\\([0-7]{3})")


def full_name(unit: str) -> str:
    """The name with its suffix: without one, a service is meant."""
    return unit if unit.endswith(SUFFIXES) else f"{unit}.service"


class Units:
    """The units of this machine, by their control groups."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def groups(self, units: frozenset[str]) -> dict[str, list[str] | str]:
        """For each unit its control groups, as paths below the root of cgroup v2; or, in words, why there are none."""
        mount = _mount_of(self._root) if units else None
        if mount is None:
            return dict.fromkeys(units, "this machine has no control groups of version 2")
        found = _walk(mount, {full_name(one) for one in units})
        return {unit: self._judged(full_name(unit), found.get(full_name(unit), [])) for unit in units}

    def _judged(self, name: str, found: list[tuple[str, bool]]) -> list[str] | str:
        if name == ROOT_SLICE:
            return "it holds every program"
        stem, _, suffix = name.rpartition(".")
        if stem.endswith("@"):
            return f"it is a template: name one of its instances, such as {stem}NAME.{suffix}"
        systems = [path for path, of_user in found if not of_user]
        users = [path for path, of_user in found if of_user and not self._is_of_system(name)]
        return systems or users[:MAX_SAME] or "it does not run"

    def _is_of_system(self, name: str) -> bool:
        """Does the system's manager have a unit of that name, running or not?"""
        stem, _, suffix = name.rpartition(".")
        template = f"{stem.partition('@')[0]}@.{suffix}" if "@" in stem else name
        return any(os.path.lexists(self._root / folder / one) for folder in UNIT_FILES for one in (name, template))


def _walk(mount: Path, names: set[str]) -> dict[str, list[tuple[str, bool]]]:
    """Name to path and whether it belongs to a user's manager, the nearest to the root first."""
    found: dict[str, list[tuple[str, bool]]] = {}
    waiting, looked = deque([("", False)]), 0
    while waiting and looked < MAX_FOLDERS:
        above, of_user = waiting.popleft()
        looked += 1
        for folder in _folders(mount / above):
            path, name = f"{above}/{folder}".lstrip("/"), _unescaped(folder)
            if name in names and _is_populated(mount / path):
                found.setdefault(name, []).append((path, of_user))
            if name.endswith(".slice"):
                waiting.append((path, of_user))
            elif _USER_MANAGER.fullmatch(name) and not of_user:
                waiting.append((path, True))
    return found


def _folders(path: Path) -> Iterator[str]:
    with suppress(OSError), os.scandir(path) as entries:
        yield from sorted(one.name for one in entries if one.is_dir(follow_symlinks=False))


def _unescaped(folder: str) -> str:
    """The name of the unit: a `_` stands before one that the kernel could take for a file of its own."""
    return folder[1:] if folder.startswith(("__", "_.", "_cgroup.", "_tasks", "_notify_on_release")) else folder


def _is_populated(path: Path) -> bool:
    return "populated 1" in text_of(path / "cgroup.events").splitlines()


def _mount_of(root: Path) -> Path | None:
    """Where cgroup v2 is mounted; None if it is not."""
    for line in lines_of(root / MOUNTINFO):
        mount, _, kind = line.partition(" - ")
        words = mount.split(" ")
        if kind.startswith("cgroup2 ") and len(words) > 4:  # noqa: PLR2004 - id, parent, device, root, mount point
            place = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), words[4])
            return root / place.lstrip("/")
    return None
