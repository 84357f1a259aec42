"""Reads what other kinds of init start: scripts of System V, inittab, upstart, OpenRC, and rc.local and its like."""

import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stanch.agent.host.autorun_found import Item, of_file, of_line
from stanch.agent.host.autorun_tree import Tree, joined
from stanch.agent.host.autorun_units import folders_once
from stanch.core.autoruns import Place

SCRIPTS = ("/etc/init.d", "/etc/rc.d/init.d")
LEVELS = tuple(
    f"{above}/{level}" for above in ("/etc", "/etc/rc.d", "/etc/init.d") for level in
    ("rcS.d", "rc0.d", "rc1.d", "rc2.d", "rc3.d", "rc4.d", "rc5.d", "rc6.d", "boot.d")
)  # fmt: skip
RUNLEVELS = "/etc/runlevels"
UPSTART = ("/etc/init", "/etc/event.d")
RC_FILES = (
    *("/etc/rc.local", "/etc/rc.d/rc.local", "/etc/init.d/boot.local", "/etc/init.d/rc.local", "/etc/boot.local"),
    *(
        "/etc/rc",
        "/etc/rc.d/rc",
        "/etc/rc.d/rc.sysinit",
        "/etc/rc.d/rc.modules",
        "/etc/init.d/rcS",
        "/etc/init.d/after.local",
    ),
    *("/etc/init.d/halt.local", "/etc/rc.shutdown", "/etc/rc.common", "/etc/rc.local.shutdown"),
)
RC_FOLDERS = ("/etc/local.d", "/etc/rc.local.d", "/etc/rc.boot")
INITTAB = "/etc/inittab"

_START = re.compile(r"S\d{2}.+", re.DOTALL)
_NO_SCRIPTS = frozenset(
    {
        *("README", "skeleton", "functions", "functions.sh", "rc", "rcS", "rc.local", "boot.local", "after.local"),
        "halt.local",
    }
)
_NO_PROCESS = frozenset({"off", "initdefault"})


@dataclass(frozen=True, slots=True)
class InitReader:
    """init and rc."""

    places: Collection[Place] = (Place.INIT, Place.RC)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """Init first."""
        if Place.INIT in places:
            yield from _scripts(tree)
            yield from _inittab(tree)
            yield from _upstart(tree)
        if Place.RC in places:
            yield from _rc(tree)


def _scripts(tree: Tree) -> Iterator[Item]:
    """A script is enabled when a link of a level starts it; what stands in a level itself is told, too."""
    started, own = _started(tree)
    for folder in folders_once(tree, SCRIPTS):
        for path in tree.paths(folder):
            status = tree.status(path)
            name = path.rpartition("/")[2]
            if name in _NO_SCRIPTS or status is None or not stat.S_ISREG(status.st_mode):
                continue
            enabled = name in started and bool(status.st_mode & 0o111)
            yield of_file(Place.INIT, path, command=path, program=path, user="root", enabled=enabled)
    for path in own:
        yield of_file(Place.INIT, path, command=path, program=path, user="root")


def _started(tree: Tree) -> tuple[set[str], list[str]]:
    """The names of scripts that a level starts, and the paths of programs that stand in one or are linked from afar."""
    started, own = set[str](), list[str]()
    levels = [(path, True) for path in LEVELS] + [(path, False) for path in tree.paths(RUNLEVELS)]
    for folder, by_letter in levels:
        for name in tree.names(folder):
            if by_letter and not _START.fullmatch(name):
                continue
            target = tree.target(f"{folder}/{name}")
            leads = joined(folder, target) if target is not None else ""
            if leads.startswith(tuple(f"{one}/" for one in SCRIPTS)):
                started.add(leads.rpartition("/")[2])
            elif tree.is_file(f"{folder}/{name}"):
                own.append(f"{folder}/{name}")
    return started, own


def _inittab(tree: Tree) -> Iterator[Item]:
    for line in tree.lines(INITTAB) if tree.status(INITTAB) else ():
        parts = line.text.strip().split(":", 3)
        if line.is_blank or len(parts) != 4 or parts[2] in _NO_PROCESS or not parts[3]:  # noqa: PLR2004 - inittab(5)
            continue
        command = parts[3].lstrip("+-@")
        name = f"inittab: {parts[0] or parts[2]}"
        yield of_line(Place.INIT, INITTAB, line, name=name, starts=command, user="root")


def _upstart(tree: Tree) -> Iterator[Item]:
    for folder in UPSTART:
        for path in tree.paths(folder):
            if not path.endswith(".conf") or not tree.is_file(path):
                continue
            lines = [one.text.strip() for one in tree.lines(path)]
            commands = [one[5:].strip() for one in lines if one.startswith("exec ")]
            starts_by_itself = any(one.startswith("start on") for one in lines)
            command = "; ".join(commands) or path
            yield of_file(Place.INIT, path, command=command, user="root", enabled=starts_by_itself)


def _rc(tree: Tree) -> Iterator[Item]:
    paths = [*RC_FILES, *(path for folder in RC_FOLDERS for path in tree.paths(folder))]
    seen = set[tuple[int, int]]()
    for path in paths:
        status = tree.status(path)
        if status is None or (status.st_dev, status.st_ino) in seen or path.endswith("/README"):
            continue
        seen.add((status.st_dev, status.st_ino))
        if not stat.S_ISREG(status.st_mode):
            tree.read(path)  # tells why not
            continue
        lines = [one.text.strip() for one in tree.lines(path) if not one.is_blank]
        command = "; ".join(one for one in lines if one != "exit 0")
        yield of_file(
            Place.RC, path, command=command, starts=command or "-", user="root", enabled=bool(status.st_mode & 0o111)
        )
