"""Reads what systemd starts: units of the system and of users, timers, drop-ins, generators."""

import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from stanch.agent.host.autorun_found import MAX_COMMAND, Item, of_line
from stanch.agent.host.autorun_libraries import is_preload, library_of
from stanch.agent.host.autorun_tree import MAX_ACCOUNTS, Line, Tree
from stanch.agent.host.autorun_unit_files import assignments, command_of, settings, started_by, starts, template_of
from stanch.agent.host.autorun_units import KINDS, MAX_UNIT, Scope, Units, folders_once, units_of
from stanch.core.autoruns import Place, autorun_id

SYSTEM = (
    *("/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient"),
    *("/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached"),
    *("/run/systemd/system", "/run/systemd/system.attached", "/run/systemd/generator"),
    *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"),
    "/run/systemd/generator.late",
)
ALL_USERS = (
    *("/etc/systemd/user", "/run/systemd/user", "/usr/local/share/systemd/user", "/usr/share/systemd/user"),
    *("/usr/local/lib/systemd/user", "/usr/lib/systemd/user", "/lib/systemd/user"),
)
_OF_HOME = (".config/systemd/user.control", ".config/systemd/user", ".local/share/systemd/user")
_OF_RUN = ("user.control", "transient", "generator.early", "user", "generator", "generator.late")

GENERATORS = (
    *("system-generators", "user-generators", "system-environment-generators", "user-environment-generators"),
    *("system-shutdown", "system-sleep"),
)
_ABOVE_GENERATORS = ("/run/systemd", "/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")

_TOLD = frozenset({"service", "socket", "timer", "path", "mount", "automount", "swap"})
_ETC = ("/etc/", "/run/")
_GROUPS = _TOLD | {"slice", "scope"}
_MANAGER = re.compile(r"user@(\d{1,10})\.service", re.ASCII)

MAX_GROUPS = 20_000
"""Control groups that are looked at."""
DEEPEST = 12
"""How deep."""
_PROCESSES = 1_048_576
_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


@dataclass(frozen=True, slots=True)
class SystemdReader:
    """Units, timers and generators."""

    places: Collection[Place] = (
        *(Place.SYSTEMD_UNIT, Place.SYSTEMD_TIMER, Place.SYSTEMD_GENERATOR),
        Place.PRELOAD,
    )

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """All managers, one after the other; then the generators."""
        if set(places) - {Place.SYSTEMD_GENERATOR}:
            running = running_units(tree)
            for scope in scopes(tree):
                yield from _of_scope(tree, scope, running, preload=Place.PRELOAD in places)
        if Place.SYSTEMD_GENERATOR in places:
            yield from _generators(tree)


def scopes(tree: Tree) -> Iterator[Scope]:
    """The system's manager, what all users' managers share, and those of each user alone."""
    yield Scope("", SYSTEM, "/etc/systemd/system", "root")
    yield Scope("all users", ALL_USERS, "/etc/systemd/user", "")
    for one in tree.homes()[:MAX_ACCOUNTS]:
        run = f"/run/user/{one.uid}/systemd"
        folders = [f"{one.home}/{folder}" for folder in _OF_HOME] + [f"{run}/{folder}" for folder in _OF_RUN]
        yield Scope(one.name, folders, f"{one.home}/.config/systemd/user", one.name, one.uid)


# --- units -----------------------------------------------------------------------------------------------------------


def _of_scope(tree: Tree, scope: Scope, running: "Running", *, preload: bool) -> Iterator[Item]:
    look = _Look(tree, units := units_of(tree, scope), units.starting(tree), running)
    for name, paths in units.files.items():
        if name not in units.aliases and _kind(name) in _TOLD:
            yield look.unit(name, paths)
        if preload and name not in units.masked:
            yield from _preloads(tree, paths[0], enabled=look.starts(name))
    for name, link in units.wanted.items():
        if name not in units.files and _kind(name) in _TOLD:
            yield look.instance(name, link)
    for folder, paths in units.drop_ins.items():
        for path in paths:
            yield look.drop_in(folder.removesuffix(".d"), path)
            if preload:
                yield from _preloads(tree, path, enabled=True)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _place(name: str) -> Place:
    return Place.SYSTEMD_TIMER if _kind(name) == "timer" else Place.SYSTEMD_UNIT


@dataclass(frozen=True, slots=True)
class _Look:
    """One manager's units, and which of them start and run."""

    tree: Tree
    units: Units
    starting: frozenset[str]
    running: "Running"

    def starts(self, name: str) -> bool:
        """A template starts if one of its instances does."""
        return name in self.starting or (
            "@." in name and any(template_of(one) == name for one in self.units.wanted if one in self.starting)
        )

    def unit(self, name: str, paths: Sequence[str]) -> Item:
        """A unit with a file."""
        masked = name in self.units.masked
        notes = ["masked"] if masked else []
        notes += [f"a link to {self.units.links[paths[0]]}"] if paths[0] in self.units.links else []
        notes += [f"stands in front of {one}" for one in paths[1:2] if paths[0].startswith(_ETC)]
        enabled = not masked and self.starts(name)
        return self._item(name, paths[0], enabled=enabled, notes=notes, is_link=masked)

    def instance(self, name: str, link: str) -> Item:
        """A unit that a link wants: of a template, or one that is nowhere."""
        template = self.units.files.get(template_of(name), [])
        notes = [] if template else ["its unit is not there"]
        path = template[0] if template else link
        return self._item(name, path, enabled=name in self.starting, notes=notes, is_link=not template)

    def _item(self, name: str, path: str, *, enabled: bool, notes: Sequence[str], is_link: bool) -> Item:
        scope, unit = self.units.scope, self.units.settings(self.tree, name)
        follower = started_by(name, unit)
        service = self.units.settings(self.tree, follower) if follower else unit
        commands = starts(unit) + starts(service)
        user = unit.get("User") or service.get("User") or [scope.user]
        return Item(
            place=_place(name),
            name=f"{name} ({scope.label})" if scope.label else name,
            path=path,
            id=autorun_id(_place(name), scope.mask, name),
            command=command_of(name, unit)[:MAX_COMMAND],
            starts=commands[0][1][:MAX_COMMAND] if commands else "-",
            user=user[0],
            enabled=enabled,
            running=self.running.has(scope, name),
            notes=tuple(notes),
            is_link=is_link,
        )

    def drop_in(self, unit: str, path: str) -> Item:
        """A file that says more of a unit, or of all units of a kind."""
        masked = self.tree.is_mask(path)
        own = settings([] if masked else [self.tree.text(path, most=MAX_UNIT)])
        commands, scope, file = starts(own), self.units.scope, path.rpartition("/")[2]
        name = f"{unit}: {file}"
        return Item(
            place=_place(unit),
            name=f"{name} ({scope.label})" if scope.label else name,
            path=path,
            id=autorun_id(_place(unit), f"{scope.mask}/{unit}.d", file),
            command="; ".join(f"{key}={value}" for key, values in own.items() for value in values)[:MAX_COMMAND],
            starts=commands[0][1][:MAX_COMMAND] if commands else "-",
            user=(own.get("User") or [scope.user])[0],
            enabled=not masked and unit not in self.units.masked and self._concerns(unit),
            notes=("masked",) if masked else (),
            is_link=masked,
        )

    def _concerns(self, unit: str) -> bool:
        """Does it start, or does anything of this kind?"""
        return "." not in unit or unit.endswith(tuple(f"-.{kind}" for kind in KINDS)) or self.starts(unit)


def _preloads(tree: Tree, path: str, *, enabled: bool) -> Iterator[Item]:
    """What a unit has the loader of its programs load."""
    for one in assignments(tree.text(path, most=MAX_UNIT)):
        if one.key == "Environment" and is_preload(one.value):
            yield of_line(
                Place.PRELOAD,
                path,
                Line(one.number, one.text),
                name=path.rpartition("/")[2],
                command=one.value,
                program=library_of(one.value),
                enabled=enabled,
            )


# --- what runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """The units that have processes, by the user whose manager started them; None for the system."""

    units: frozenset[tuple[int | None, str]]

    def has(self, scope: Scope, name: str) -> bool:
        """Does it run? Of all users' units nobody can tell, nor of templates."""
        return not (scope.label and scope.uid is None) and (scope.uid, name) in self.units


def running_units(tree: Tree) -> Running:
    """By the control groups, without asking systemd."""
    found = set[tuple[int | None, str]]()
    waiting: list[tuple[str, int | None, int]] = [(one, None, 0) for one in folders_once(tree, _HIERARCHIES)]
    looks = 0
    while waiting and looks < MAX_GROUPS:
        folder, uid, depth = waiting.pop()
        for name in tree.names(folder):
            looks += 1
            if _kind(name) not in _GROUPS or depth >= DEEPEST:
                continue
            path = f"{folder}/{name}"
            manager = _MANAGER.fullmatch(name)
            if _kind(name) != "slice" and _has_processes(tree, path):
                found.add((uid, name))
            waiting.append((path, int(manager[1]) if manager else uid, depth + 1))
    return Running(frozenset(found))


def _has_processes(tree: Tree, group: str) -> bool:
    """In it or, where the kernel tells it (cgroup v2), below it."""
    if (tree.read(f"{group}/cgroup.procs", most=_PROCESSES) or b"").strip():
        return True
    return b"populated 1" in (tree.read(f"{group}/cgroup.events", most=_PROCESSES) or b"")


# --- generators ------------------------------------------------------------------------------------------------------


def _generators(tree: Tree) -> Iterator[Item]:
    """Of each name the first counts; a link to /dev/null stands in its way."""
    for kind in GENERATORS:
        seen = set[str]()
        for folder in folders_once(tree, [f"{above}/{kind}" for above in _ABOVE_GENERATORS]):
            for name in tree.names(folder):
                one = None if name in seen else _generator(tree, kind, f"{folder}/{name}")
                if one is not None:
                    seen.add(name)
                    yield one


def _generator(tree: Tree, kind: str, path: str) -> Item | None:
    name, masked, status = path.rpartition("/")[2], tree.is_mask(path), tree.status(path)
    if not masked and (status is None or stat.S_ISDIR(status.st_mode)):
        return None
    runs = status is not None and stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)
    return Item(
        place=Place.SYSTEMD_GENERATOR,
        name=f"{kind}: {name}",
        path=path,
        id=autorun_id(Place.SYSTEMD_GENERATOR, f"/etc/systemd/{kind}", name),
        command=path[:MAX_COMMAND],
        program="" if masked else path,
        starts="-",
        user="" if kind.startswith("user-") else "root",
        enabled=runs and not masked,
        notes=("masked",) if masked else (),
        is_link=masked,
    )
