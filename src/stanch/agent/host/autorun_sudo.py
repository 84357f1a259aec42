"""Reads who may do what as whom: sudoers, and what it includes; doas."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from stanch.agent.host.autorun_found import Item, of_line
from stanch.agent.host.autorun_tree import Line, Tree, joined_lines
from stanch.core.autoruns import Place

SUDOERS = "/etc/sudoers"
ALWAYS = "/etc/sudoers.d"
"""Looked at even if sudoers does not include it: then it is told as not enabled."""
DOAS = ("/etc/doas.conf", "/etc/doas.d")

MAX_FILES = 300

_INCLUDE = re.compile(r"\s*[@#](include|includedir)\s+(\"[^\"]{1,1000}\"|\S{1,1000})\s*")
_NUMBER = re.compile(r"\s*#\d+[\s,]", re.ASCII)
_QUIET = re.compile(r"\s*(?:Host_Alias|Cmnd_Alias|User_Alias|Runas_Alias|Cmd_Alias)\b")
_DEFAULTS = re.compile(r"\s*Defaults\b")
_DANGEROUS_DEFAULTS = ("!authenticate", "env_keep", "setenv", "exempt_group", "!env_reset", "visiblepw")
_RULE = re.compile(r"\s*([^\s=,]+(?:\s*,\s*[^\s=,]+)*)\s+[^=]{1,500}=(.*)", re.DOTALL)
_RUNAS = re.compile(r"\(\s*([^():]{0,200})(?::[^()]{0,200})?\)")
_TAG = re.compile(r"\b(?:NO)?[A-Z_]{3,20}\s*:")


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of sudoers that gives somebody a right."""

    who: str
    as_whom: str
    commands: str
    without_password: bool


def parse_rule(text: str) -> Rule | None:
    """A rule; None for aliases, defaults, includes and comments."""
    if text.lstrip()[:1] in {"", "@"} or _is_comment(text) or _QUIET.match(text) or _DEFAULTS.match(text):
        return None
    found = _RULE.match(text[:16_384])
    if found is None:
        return None
    runas = _RUNAS.search(found[2])
    commands = " ".join(_TAG.sub(" ", _RUNAS.sub(" ", found[2])).split())
    as_whom = (runas[1].strip() or found[1]) if runas else "root"
    return Rule(found[1], as_whom, commands, "NOPASSWD" in found[2])


def _is_comment(text: str) -> bool:
    """An account may be named by its number, with the sign of a comment before it: `#1000 ALL=(ALL) ALL`."""
    return text.lstrip().startswith("#") and _NUMBER.match(text) is None


@dataclass(frozen=True, slots=True)
class SudoReader:
    """sudo and doas."""

    places: Collection[Place] = (Place.SUDO,)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:  # noqa: ARG002 - as Reader has it
        """Sudoers with what it includes, each file once; what nobody includes; doas."""
        seen = set[str]()
        yield from _included(tree, SUDOERS, seen, enabled=True)
        for path in _of_folder(tree, ALWAYS):
            yield from _included(tree, path, seen, enabled=False)
        for path in (DOAS[0], *tree.paths(DOAS[1])):
            for line in tree.lines(path) if tree.status(path) else ():
                if not line.is_blank:
                    notes = ("without a password",) if "nopass" in line.text.split() else ()
                    yield of_line(
                        Place.SUDO, path, line, name=f"doas: {line.text.strip()[:100]}", starts="-", notes=notes
                    )


def _included(tree: Tree, start: str, seen: set[str], *, enabled: bool) -> Iterator[Item]:
    waiting = [start]
    while waiting and len(seen) < MAX_FILES:
        path = waiting.pop()
        if path in seen or not tree.status(path):
            continue
        seen.add(path)
        lines = list(tree.lines(path))
        for line in lines:
            found = _INCLUDE.fullmatch(line.text)
            if found and not line.disabled_by:
                named = found[2].strip('"').replace("%h", "")
                more = named if named.startswith("/") else f"/etc/{named}"
                waiting += [more] if found[1] == "include" else _of_folder(tree, more)
        yield from _rules(path, lines, enabled=enabled)


def _of_folder(tree: Tree, folder: str) -> list[str]:
    """The files that sudo would read there: none with a dot in its name, or a tilde at its end."""
    return [path for path in tree.paths(folder) if "." not in path.rpartition("/")[2] and not path.endswith("~")]


def _rules(path: str, lines: Sequence[Line], *, enabled: bool) -> Iterator[Item]:
    for line, text in joined_lines(lines, is_blank=lambda one: not one.text.strip() or _is_comment(one.text)):
        rule = parse_rule(text)
        if rule is not None:
            yield of_line(
                Place.SUDO,
                path,
                line,
                name=rule.who,
                command=" ".join(text.split()),
                starts=rule.commands.partition(",")[0],
                user=rule.as_whom,
                enabled=enabled,
                notes=("without a password",) if rule.without_password else (),
            )
        elif _DEFAULTS.match(text) and any(one in text for one in _DANGEROUS_DEFAULTS):
            yield of_line(
                Place.SUDO, path, line, name="Defaults", command=" ".join(text.split()), starts="-", enabled=enabled
            )
