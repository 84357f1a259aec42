"""The text of unit files: pure functions from text to what systemd would take of it. Desktop entries look alike."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_ASSIGNMENTS = 1000
"""Assignments of one file that are looked at."""

MAX_VALUE = 16_384

STARTS = ("ExecStart",)
OTHER_STARTS = (
    *("ExecStartPre", "ExecStartPost", "ExecCondition", "ExecReload", "ExecStop", "ExecStopPost"),
    *("ExecMount", "ExecUnmount"),
)
PULLS = ("Wants", "Requires", "BindsTo", "Upholds", "OnSuccess", "OnFailure")
"""What a unit that starts lets start, too; of the last two it is possible."""

TRIGGERS = ("OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec", "OnCalendar")
LISTENS = ("ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenNetlink", "ListenSpecial")
WATCHES = ("PathExists", "PathExistsGlob", "PathChanged", "PathModified", "DirectoryNotEmpty")
_WHAT = ("What", "Where")
_KEPT = frozenset(
    {
        *(*STARTS, *OTHER_STARTS, *PULLS, *TRIGGERS, *LISTENS, *WATCHES, *_WHAT),
        *("Unit", "Service", "User", "Environment", "EnvironmentFile", "RootDirectory"),
    }
)
_SINGLE = frozenset({"Unit", "Service", "User", "What", "Where", "RootDirectory"})
_SECTION = re.compile(r"\s*\[([^\[\]]{1,200})\]\s*")
_PREFIXES = "@-:+!|"


@dataclass(frozen=True, slots=True)
class Assignment:
    """`key=value` in a section."""

    section: str
    key: str
    value: str
    number: int
    """Its first line, from 1."""
    text: str
    """That line."""


Settings = Mapping[str, Sequence[str]]
"""What matters of a unit, by key."""


def assignments(text: str) -> Iterator[Assignment]:
    """All assignments of a unit file, lines that go on joined; what is none is left out."""
    section, count = "", 0
    for number, first, line in _logical(text):
        found = _SECTION.fullmatch(line)
        if found:
            section = found[1]
            continue
        key, sign, value = line.partition("=")
        if sign and key.strip():
            count += 1
            if count > MAX_ASSIGNMENTS:
                return
            yield Assignment(section, key.strip()[:200], value.strip()[:MAX_VALUE], number, first)


def _logical(text: str) -> Iterator[tuple[int, str, str]]:
    """Number and text of the first line, and the whole; comments are left out, between lines that go on, too."""
    parts, start, first, size = list[str](), 0, "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        if line.lstrip()[:1] in {"#", ";"} or not (parts or line.strip()):
            continue
        if not parts:
            start, first, size = number, line, 0
        goes_on = line.endswith("\\")
        if size <= MAX_VALUE:
            parts.append(line[:-1] if goes_on else line)
        size += len(line)
        if not goes_on:
            yield start, first, " ".join(parts)
            parts = []
    if parts:
        yield start, first, " ".join(parts)


def settings(texts: Iterable[str]) -> Settings:
    """What a unit and its drop-ins say together: an empty value takes back what was said before."""
    found: dict[str, list[str]] = {}
    for text in texts:
        for one in assignments(text):
            if one.key not in _KEPT:
                continue
            if not one.value or one.key in _SINGLE:
                found[one.key] = []
            if one.value:
                found.setdefault(one.key, []).append(one.value)
    return found


def starts(unit: Settings) -> list[tuple[str, str]]:
    """Key and command of all that a service (or a socket) starts, the main thing first."""
    return [(key, plain(value)) for key in (*STARTS, *OTHER_STARTS) for value in unit.get(key, ())]


def plain(command: str) -> str:
    """A command without the signs that stand before it."""
    return command.lstrip(_PREFIXES).strip()


def command_of(name: str, unit: Settings) -> str:
    """What a unit does, for people."""
    kind = name.rpartition(".")[2]
    words = [value if key in STARTS else f"{key}={value}" for key, value in starts(unit)]
    if kind in {"timer", "socket", "path"}:
        occasions = {"timer": TRIGGERS, "socket": LISTENS, "path": WATCHES}[kind]
        words = [f"{key}={value}" for key in occasions for value in unit.get(key, ())] + words
        words.append(f"starts {started_by(name, unit)}")
    if kind in {"mount", "automount", "swap"}:
        words += [f"{key}={value}" for key in _WHAT for value in unit.get(key, ())]
    return "; ".join(words)


def started_by(name: str, unit: Settings) -> str:
    """The unit that a timer, socket or path starts; empty for any other."""
    base, _, kind = name.rpartition(".")
    if kind not in {"timer", "socket", "path"}:
        return ""
    named = unit.get("Service" if kind == "socket" else "Unit", ())
    return named[0] if named else f"{base}.service"


def pulled(name: str, unit: Settings) -> Iterator[str]:
    """The units that start when this one does."""
    for key in PULLS:
        for value in unit.get(key, ()):
            yield from value.split()[:1000]
    follower = started_by(name, unit)
    if follower:
        yield follower


def template_of(name: str) -> str:
    """`getty@.service` of `getty@tty1.service`; empty for a unit that has none."""
    base, _, kind = name.rpartition(".")
    prefix, at, instance = base.partition("@")
    return f"{prefix}@.{kind}" if at and instance else ""


def drop_in_folders(name: str) -> list[str]:
    """The folders from which a unit takes drop-ins, the general ones first."""
    base, _, kind = name.rpartition(".")
    parts = base.partition("@")[0].split("-")[:50]
    prefixes = [f"{'-'.join(parts[:n])}-.{kind}.d" for n in range(1, len(parts))]
    template = template_of(name)
    return [f"{kind}.d", *prefixes, *([f"{template}.d"] if template else []), f"{name}.d"]
