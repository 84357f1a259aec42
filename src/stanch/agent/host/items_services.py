"""ServiceItem and TaskItem: what systemd, init, cron, anacron and at start, by their files alone."""

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from stanch.agent.host.autorun_cron import ANACRON, RUN_PARTS, CronReader
from stanch.agent.host.autorun_found import Item as Found
from stanch.agent.host.autorun_found import Programs
from stanch.agent.host.autorun_init import InitReader
from stanch.agent.host.autorun_systemd import SystemdReader
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.autorun_unit_files import TRIGGERS, assignments, settings, starts
from stanch.agent.host.autorun_units import MAX_UNIT
from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_below import Hashes, Known, collector, item, some
from stanch.agent.host.unit_processes import Owner, pids_of_units
from stanch.core.autoruns import Place
from stanch.core.ioc.items import Item

_KINDS: Final = ("md5", "sha1", "sha256")
_SERVICE_PROGRAM: Final = {f"path{kind}sum": kind for kind in _KINDS}
_SERVICE_FILE: Final = {f"{kind}sum": kind for kind in _KINDS}
_TASK_PROGRAM: Final = {f"{kind}sum": kind for kind in _KINDS} | {
    f"ActionList/Action/ExecProgram{kind.capitalize()}sum": kind for kind in _KINDS
}
_CRONTAB_FIELDS: Final = ("crontabMinute", "crontabHour", "crontabDayOfMonth", "crontabMonth", "crontabDayOfWeek")
_CRONTAB: Final = (
    *("crontabPath", *_CRONTAB_FIELDS, "crontabEvent", "crontabCommand", "crontabPeriod"),
    *("crontabDelay", "crontabJobIdentifier"),
)
_LABEL: Final = re.compile(r"(.*) \(([^()]*)\)", re.DOTALL)
_ALL_USERS: Final = "all users"
_STAMPS: Final = "/var/lib/systemd/timers/stamp-"
_MOST_COMMANDS: Final = 50


def service_items(parts: Parts) -> Collector:
    """Units of systemd (timers are tasks), their drop-ins, and scripts of init."""
    return collector(parts, partial(_services, parts.proc))


def task_items(parts: Parts) -> Collector:
    """Timers, lines of cron and anacron, programs in folders such as cron.daily, at jobs."""
    return collector(parts, _tasks)


# --- what is started -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Commands:
    """Some command lines, and the programs in them."""

    lines: Sequence[str]
    programs: Sequence[str]
    """Of each line the one that it begins with and, of `sh FILE` and the like, the file."""

    @property
    def arguments(self) -> list[str]:
        """What stands behind the first word of each."""
        return [rest.strip() for one in self.lines if (rest := one.strip().partition(" ")[2].strip())]


def _commands(programs: Programs, lines: Sequence[str]) -> _Commands:
    kept = list(dict.fromkeys(one for one in lines if one and one != "-"))[:_MOST_COMMANDS]
    found = dict.fromkeys(path for line in kept for path in (_first(programs, line), programs.of(line)) if path)
    return _Commands(kept, list(found))


def _first(programs: Programs, line: str) -> str:
    word = next(iter(line.split()), "").strip("\"'")
    return word if word.startswith("/") else programs.found(word) if word else ""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit as its file says, drop-ins apart."""

    name: str
    label: str
    """Of the manager; empty for the system."""
    said: Mapping[str, Sequence[str]]
    """Description, Type, Group by name; the last one counts."""
    commands: Sequence[str]
    triggers: Sequence[str]
    is_known: bool
    """Could its file be read?"""

    def last(self, key: str) -> tuple[str, ...] | None:
        """Its last value; none if it has none, None if that cannot be known."""
        return some(next(reversed(self.said.get(key, ("",))), "")) if self.is_known else None

    @property
    def type(self) -> tuple[str, ...] | None:
        """Of a service as it says; of any other its kind."""
        if self.kind != "service":
            return (self.kind,)
        said = self.last("Type")
        return ("simple",) if said == () else said

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """With the suffix, and without where people leave it out."""
        stem, _, kind = self.name.rpartition(".")
        return (self.name, stem) if kind in {"service", "timer"} else (self.name,)


def _unit(tree: Tree, found: Found) -> _Unit:
    whole = _LABEL.fullmatch(found.name)
    name, label = (whole[1], whole[2]) if whole else (found.name, "")
    raw = b"" if found.is_link else tree.read(found.path, most=MAX_UNIT)
    text = (raw or b"").decode("utf-8", "surrogateescape")
    said: dict[str, list[str]] = {}
    for one in assignments(text):
        if one.key in {"Description", "Type", "Group"}:
            said.setdefault(one.key, []).append(one.value)
    own = settings([text])
    triggers = [f"{key}={value}" for key in TRIGGERS for value in own.get(key, ())]
    return _Unit(
        name.partition(": ")[0], label, said, [value for _key, value in starts(own)], triggers, raw is not None
    )


# --- services --------------------------------------------------------------------------------------------------------


@dataclass
class _ServiceLook:
    """One walk over all services."""

    tree: Tree
    wanted: frozenset[str]
    proc: Path
    programs: Programs = field(init=False)

    def __post_init__(self) -> None:
        self.programs = Programs(self.tree)
        self.of_program = Hashes(self.tree, _SERVICE_PROGRAM, self.wanted)
        self.of_file = Hashes(self.tree, _SERVICE_FILE, self.wanted)

    @cached_property
    def pids(self) -> Mapping[Owner, Sequence[int]]:
        """Read when it is first asked for."""
        return pids_of_units(self.proc)

    @cached_property
    def uids(self) -> Mapping[str, int]:
        return {one.name: one.uid for one in reversed(self.tree.accounts())}

    def unit(self, found: Found) -> Item:
        """A unit, or a drop-in of one."""
        unit = _unit(self.tree, found)
        values: Known = {
            "name": unit.names,
            "type": unit.type,
            "status": None if unit.label == _ALL_USERS else ("running" if found.running else "stopped",),
            "pid": self._pids(unit) if "pid" in self.wanted else None,
            "descriptiveName": unit.last("Description"),
            "description": unit.last("Description"),
            "groupName": unit.last("Group"),
        }
        commands = _commands(self.programs, [found.starts, *unit.commands])
        if not unit.is_known:
            values = {**values, "path": commands.programs or None, "arguments": commands.arguments or None}
        return self._item(found, commands, values)

    def _pids(self, unit: _Unit) -> Sequence[int] | None:
        if unit.label == _ALL_USERS or (unit.label and unit.label not in self.uids):
            return None
        return self.pids.get((self.uids[unit.label] if unit.label else None, unit.name), ())

    def script(self, found: Found) -> Item:
        """A script of init, or a line of inittab."""
        values: Known = {
            "name": (found.name,),
            "type": ("init",),
            **dict.fromkeys(("descriptiveName", "description", "groupName"), ()),
        }
        return self._item(found, _commands(self.programs, [found.starts or found.command]), values)

    def _item(self, found: Found, commands: _Commands, values: Known) -> Item:
        mode = "masked" if "masked" in found.notes else "enabled" if found.enabled else "disabled"
        return item(
            "ServiceItem",
            found.name,
            {
                "mode": (mode,),
                "startedAs": some(found.user),
                "userName": some(found.user),
                "path": commands.programs,
                "arguments": commands.arguments,
                "reference": (found.path,),
                **values,
                **self.of_program.of_all(commands.programs),
                **self.of_file.of("" if found.is_link else found.path),
            },
            self.wanted,
            about=_about(commands, found),
        )


def _services(proc: Path, tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    look = _ServiceLook(tree, wanted, proc)
    for found in SystemdReader().read(tree, {Place.SYSTEMD_UNIT}):
        if found.place is Place.SYSTEMD_UNIT:
            yield look.unit(found)
    yield from map(look.script, InitReader().read(tree, {Place.INIT}))


# --- tasks -----------------------------------------------------------------------------------------------------------


@dataclass
class _TaskLook:
    """One walk over all tasks."""

    tree: Tree
    wanted: frozenset[str]

    def __post_init__(self) -> None:
        self.programs = Programs(self.tree)
        self.hashes = Hashes(self.tree, _TASK_PROGRAM, self.wanted)

    @cached_property
    def anacron(self) -> Mapping[int, Sequence[str]]:
        """Number of a line to period, delay, identifier and command."""
        return {one.number: one.text.split(None, 3) for one in self.tree.lines(ANACRON)}

    def timer(self, found: Found) -> Item:
        """A timer, or a drop-in of one."""
        unit = _unit(self.tree, found)
        values: Known = {
            "Name": unit.names,
            "Comment": unit.last("Description"),
            "triggers/trigger/type": ("timer",),
            "triggers/trigger/schedule": unit.triggers if unit.is_known else None,
            "MostRecentRunTime": None if unit.label else self._ran(unit.name),
            "NextRunTime": None,
        }
        return self._item(found, [found.starts], values)

    def _ran(self, timer: str) -> tuple[int] | None:
        status = self.tree.status(f"{_STAMPS}{timer}", follow=False) if "MostRecentRunTime" in self.wanted else None
        return (status.st_mtime_ns // 10**9,) if status is not None and stat.S_ISREG(status.st_mode) else None

    def cron(self, found: Found) -> Item:
        """A line of a crontab or of the anacrontab, or a program in a folder."""
        own = self._of_anacron(found) if found.path == ANACRON else _of_line(found) if found.line else _of_folder(found)
        values: Known = {
            "Name": (found.name,),
            "triggers/trigger/type": ("anacron" if found.path == ANACRON else "cron",),
            "triggers/trigger/schedule": own.get("crontabPeriod") or some(_when(found.command)[0]),
            "crontabPath": (found.path,),
            **own,
        }
        return self._item(found, [found.starts or found.command], values)

    def _of_anacron(self, found: Found) -> Known:
        fields = self.anacron.get(found.line, ())
        if len(fields) != 4:  # noqa: PLR2004 - as anacrontab(5) has it
            return {}
        period, delay, name, command = fields
        return {
            "crontabPeriod": some(period),
            "crontabDelay": (int(delay),) if delay.isascii() and delay.isdigit() and len(delay) <= 9 else (),  # noqa: PLR2004 - as the reader has it
            "crontabJobIdentifier": some(name),
            "crontabCommand": some(command.strip()),
        }

    def at(self, found: Found) -> Item:
        """A job that waits for its hour; its file's name says which."""
        minutes = found.path.rpartition("/")[2][6:14]
        values: Known = {
            "Name": (found.name, found.path.rpartition("/")[2]),
            "triggers/trigger/type": ("at",),
            "NextRunTime": (int(minutes, 16) * 60,),
        }
        return self._item(found, found.command.split("; "), values)

    def _item(self, found: Found, lines: Sequence[str], values: Known) -> Item:
        commands = _commands(self.programs, lines)
        return item(
            "TaskItem",
            found.name,
            {
                **dict.fromkeys(_CRONTAB, ()),
                **dict.fromkeys(("Comment", "triggers/trigger/schedule"), ()),
                **dict.fromkeys(("path", "ActionList/Action/ExecProgramPath"), commands.programs),
                **dict.fromkeys(("arguments", "ActionList/Action/ExecArguments"), commands.arguments),
                **dict.fromkeys(("userName", "AccountName"), some(found.user)),
                "Creator": self._owner(found.path) if "Creator" in self.wanted else None,
                "disabled": (not found.enabled,),
                "reference": (found.path,),
                **values,
                **self.hashes.of_all(commands.programs),
            },
            self.wanted,
            about=_about(commands, found),
        )

    def _owner(self, path: str) -> tuple[str] | None:
        status = self.tree.status(path)
        return None if status is None else (self.tree.user(status.st_uid),)


def _tasks(tree: Tree, wanted: frozenset[str]) -> Iterator[Item]:
    look = _TaskLook(tree, wanted)
    for found in SystemdReader().read(tree, {Place.SYSTEMD_TIMER}):
        if found.place is Place.SYSTEMD_TIMER:
            yield look.timer(found)
    for found in CronReader().read(tree, {Place.CRON, Place.AT}):
        if found.place is Place.AT:
            yield look.at(found)
        elif found.starts != "-":  # a setting of a crontab is no task
            yield look.cron(found)


def _when(command: str) -> tuple[str, Sequence[str]]:
    """When a line of cron runs, and its five fields; none of one with an event."""
    if command.startswith(("@", "-@")):
        return command.partition(" ")[0].removeprefix("-"), ()
    fields = command.removeprefix("-").split(" ", 5)[:5]
    return " ".join(fields), fields


def _of_line(found: Found) -> Known:
    when, fields = _when(found.command)
    own: Known = {"crontabCommand": some(found.starts)}
    if not fields:
        return {**own, "crontabEvent": (when, when.removeprefix("@"))}
    return {**own, **{term: (one,) for term, one in zip(_CRONTAB_FIELDS, fields, strict=True)}}


def _of_folder(found: Found) -> Known:
    folder = found.path.rpartition("/")[0]
    period = folder.rpartition("/")[2].removeprefix("cron.") if folder in RUN_PARTS else ""
    return {"crontabPeriod": some(period), "crontabCommand": (found.path,)}


def _about(commands: _Commands, found: Found) -> Mapping[str, str]:
    """Where its program is; its file if it names none."""
    path = next((one for one in reversed(commands.programs) if one.startswith("/")), found.path)
    return {"path": path, "user": found.user}
