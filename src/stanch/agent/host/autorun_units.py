"""The units that one systemd manager sees, of the system or of a user: which there are, which count, which start."""

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from stanch.agent.host.autorun_tree import Tree, joined
from stanch.agent.host.autorun_unit_files import (
    Settings,
    drop_in_folders,
    pulled,
    settings,
    template_of,
)

MAX_UNITS = 5000
"""Units of one manager that are looked at."""

MAX_UNIT = 65_536
"""Bytes of a unit that are looked at."""

MAX_KNOWN = 4 * 1_048_576
"""Bytes of what units say that are remembered, about."""

_OVERHEAD = 64
"""Bytes of a short text, beside its characters."""

KINDS = frozenset(
    "service socket timer path mount automount swap target slice scope device".split()  # noqa: SIM905 - one line
)
_PULLING = (".wants", ".requires", ".upholds")
_ALWAYS = (
    *("default.target", "sysinit.target", "basic.target", "multi-user.target", "graphical.target", "timers.target"),
    *("sockets.target", "paths.target", "local-fs.target", "network.target", "graphical-session.target"),
)
_MASK = "/dev/null"
_ENABLING = ("/etc/", "/run/", "/home/", "/root/")
"""Below these, an alias was made by whoever enabled the unit; below /usr, by its package."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A manager, and where it looks."""

    label: str
    """What people call it; empty for the system."""
    folders: Sequence[str]
    """In the order in which they count."""
    mask: str
    """The folder in which a unit is masked."""
    user: str
    """As whom its units run if they do not say."""
    uid: int | None = None
    """Of the user; None for the system, and for all users."""


@dataclass(slots=True)
class Units:
    """What is in the folders of a scope."""

    scope: Scope
    files: dict[str, list[str]] = field(default_factory=dict)
    """Unit to the paths of its files, the one that counts first."""
    masked: set[str] = field(default_factory=set)
    drop_ins: dict[str, list[str]] = field(default_factory=dict)
    """Folder name to the paths of its files, general ones first; one of each name."""
    wanted: dict[str, str] = field(default_factory=dict)
    """Unit to the link that wants it."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other name to unit."""
    links: dict[str, str] = field(default_factory=dict)
    """Path of a linked unit to where it leads."""
    _said: dict[str, Settings] = field(default_factory=dict)
    _kept: int = 0

    def settings(self, tree: Tree, name: str) -> Settings:
        """What a unit says, drop-ins included; of a masked one, what it would say."""
        found = self._said.get(name)
        if found is None:
            paths = self.files.get(name) or self.files.get(template_of(name)) or []
            paths = paths[1:] if name in self.masked else paths
            more = [one for folder in drop_in_folders(name) for one in self.drop_ins.get(folder, ())]
            found = settings(tree.text(one, most=MAX_UNIT) for one in [*paths[:1], *more[:20]])
            self._kept += sum(len(value) + _OVERHEAD for values in found.values() for value in values)
            if self._kept <= MAX_KNOWN:
                self._said[name] = found
        return found

    def starting(self, tree: Tree) -> frozenset[str]:
        """Those that start by themselves: wanted by a link, and what these pull in; nothing that is masked."""
        waiting = [*_ALWAYS, *self.wanted, *(unit for other, unit in self.aliases.items() if self._enables(other))]
        found, met = set[str](), set(waiting)
        while waiting:
            name = waiting.pop()
            name = self.aliases.get(name, name)
            if name in found or name in self.masked or template_of(name) in self.masked:
                continue
            found.add(name)
            more = set(islice(pulled(name, self.settings(tree, name)), MAX_UNITS)) - met
            if len(met) < 2 * MAX_UNITS:
                met |= more
                waiting += more
        return frozenset(found)

    def _enables(self, alias: str) -> bool:
        """Was an alias made to enable the unit?"""
        return self.files.get(alias, [""])[0].startswith(_ENABLING)


def units_of(tree: Tree, scope: Scope) -> Units:
    """What is there for one manager."""
    found = Units(scope)
    for folder in folders_once(tree, scope.folders):
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            if name.endswith(_PULLING):
                _add_wanted(tree, found, path)
            elif name.endswith(".d") and name.removesuffix(".d").rpartition(".")[2] in KINDS:
                _add_drop_ins(tree, found, name, path)
            elif name.rpartition(".")[2] in KINDS and len(found.files) < MAX_UNITS:
                found.files.setdefault(name, []).append(path)
    for name, paths in found.files.items():
        _look_at(tree, found, name, paths[0])
    for name, link in found.wanted.items():
        _adopt(tree, found, name, link)
    return found


def folders_once(tree: Tree, folders: Iterable[str]) -> Iterator[str]:
    """Those that are there, each once: with a merged /usr, /lib is /usr/lib."""
    seen = set[tuple[int, int]]()
    for folder in folders:
        status = tree.status(folder)
        if status is not None and stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield folder


def _add_wanted(tree: Tree, found: Units, folder: str) -> None:
    for name in tree.names(folder):
        if name.rpartition(".")[2] in KINDS and len(found.wanted) < MAX_UNITS:
            found.wanted.setdefault(name, f"{folder}/{name}")


def _add_drop_ins(tree: Tree, found: Units, name: str, folder: str) -> None:
    there = found.drop_ins.setdefault(name, []) if len(found.drop_ins) < MAX_UNITS else []
    names = {one.rpartition("/")[2] for one in there}
    more = [f"{folder}/{one}" for one in tree.names(folder) if one.endswith(".conf") and one not in names]
    there += more[: MAX_UNITS - len(there)]


def _look_at(tree: Tree, found: Units, name: str, path: str) -> None:
    """Is the file that counts a mask, an alias, or a link to a unit elsewhere?"""
    target = tree.target(path)
    if target is None:
        status = tree.status(path, follow=False)
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size == 0:
            found.masked.add(name)
        return
    leads = joined(path.rpartition("/")[0], target)
    other = leads.rpartition("/")[2]
    if leads == _MASK:
        found.masked.add(name)
    elif other != name and _is_alias(tree, found, leads):
        found.aliases[name] = other
    else:
        found.links[path] = leads


def _is_alias(tree: Tree, found: Units, leads: str) -> bool:
    """Is it another name of a unit? A file elsewhere that only has the name of one is a unit of its own."""
    folder, _, other = leads.rpartition("/")
    if other not in found.files and template_of(other) not in found.files:
        return False
    return folder in found.scope.folders or tree.real(folder) in map(tree.real, found.scope.folders)


def _adopt(tree: Tree, found: Units, name: str, link: str) -> None:
    """A unit of all users that one user's link wants is one of this user, too."""
    target = tree.target(link)
    if name in found.files or template_of(name) in found.files or target is None:
        return
    path = joined(link.rpartition("/")[0], target)
    if tree.is_file(path):
        found.files[name] = [path]
