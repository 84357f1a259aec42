"""Reads what starts by the clock: crontabs of the system and of users, the folders of run-parts, anacron, at."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from stanch.agent.host.autorun_found import Item, of_file, of_line
from stanch.agent.host.autorun_libraries import is_preload
from stanch.agent.host.autorun_tree import Line, Tree
from stanch.agent.host.autorun_units import folders_once
from stanch.core.autoruns import Place

SYSTEM_TABS = ("/etc/crontab",)
SYSTEM_FOLDERS = ("/etc/cron.d", "/usr/lib/cron.d")
ANACRON = "/etc/anacrontab"
SPOOLS = ("/var/spool/cron/crontabs", "/var/spool/cron/tabs", "/var/spool/cron", "/etc/crontabs")
"""One file for each user; what is below another of these is not a user."""

RUN_PARTS = tuple(f"/etc/cron.{one}" for one in ("hourly", "daily", "weekly", "monthly", "yearly")) + tuple(
    f"/etc/periodic/{one}" for one in ("15min", "hourly", "daily", "weekly", "monthly")
)
AT_SPOOLS = ("/var/spool/cron/atjobs", "/var/spool/atjobs", "/var/spool/at")
_NOT_USERS = frozenset({"crontabs", "tabs", "atjobs", "atspool", "lastrun", "spool", "cron.update", ".SEQ"})

_SETTING = re.compile(r"""\s*(?:"[^"]{1,200}"|'[^']{1,200}'|[A-Za-z_][A-Za-z0-9_]*)\s*=""")
_NICK = re.compile(r"\s*(-?@[A-Za-z_]{1,20})(?:\s+(.*))?", re.DOTALL)
_TIMES = re.compile(r"\s*(-?(?:\S+\s+){4}\S+)\s+(.*)", re.DOTALL)
_ANACRON = re.compile(r"\s*(@?\w{1,20})\s+(\d{1,9})\s+(\S{1,200})\s+(.*)", re.DOTALL | re.ASCII)
_RUN_PARTS_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_PACKAGED_LEFTOVERS = (".dpkg-old", ".dpkg-dist", ".dpkg-new", ".rpmsave", ".rpmorig", ".rpmnew", "~", ".bak", ".swp")
_AT_NAME = re.compile(r"[a-zA-Z=][0-9a-f]{13}")
_AT_USER = re.compile(r"# atrun uid=(\d{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Job:
    """A line of a crontab."""

    when: str
    user: str
    command: str


@dataclass(frozen=True, slots=True)
class CronReader:
    """cron, anacron and at."""

    places: Collection[Place] = (Place.CRON, Place.AT)

    def read(self, tree: Tree, places: Collection[Place]) -> Iterator[Item]:
        """The system's, the users', and what waits for its hour once."""
        if Place.CRON in places:
            yield from _system(tree)
            yield from _users(tree)
            yield from _anacron(tree)
            yield from _run_parts(tree)
        if Place.AT in places:
            yield from _at(tree)


def parse_job(text: str, *, has_user: bool) -> Job | None:
    """A line of a crontab; None for one that starts nothing: blank, a setting, or wrong."""
    if text.lstrip()[:1] in {"", "#"} or _SETTING.match(text):
        return None
    found = _NICK.fullmatch(text) or _TIMES.fullmatch(text)
    if found is None:
        return None
    rest, user = (found[2] or "").strip(), ""
    if has_user:
        user, _, rest = (rest.replace("\t", " ", 1) if "\t" in rest.split(" ", 1)[0] else rest).partition(" ")
        rest = rest.strip()
    return Job(" ".join(found[1].split()), user, rest) if rest else None


def _jobs(tree: Tree, path: str, *, user: str | None = None) -> Iterator[Item]:
    """The jobs of a crontab; of one of the system (no `user`) each line names its user."""
    for line in tree.lines(path):
        job = parse_job(line.text, has_user=user is None)
        if job is not None:
            yield of_line(
                Place.CRON,
                path,
                line,
                name=f"{path.rpartition('/')[2]}: {job.when}",
                command=f"{job.when} {job.command}",
                starts=job.command,
                user=job.user if user is None else user,
            )
        elif _is_told(line):
            yield of_line(
                Place.CRON, path, line, name=f"{path.rpartition('/')[2]}: setting", starts="-", user=user or ""
            )


def _is_told(line: Line) -> bool:
    """A setting that decides which programs the jobs are: PATH, SHELL, or what the loader loads."""
    name = line.text.partition("=")[0].strip().strip("\"'")
    return _SETTING.match(line.text) is not None and (is_preload(line.text) or name in {"SHELL", "BASH_ENV", "ENV"})


def _system(tree: Tree) -> Iterator[Item]:
    for path in SYSTEM_TABS:
        if tree.status(path):
            yield from _jobs(tree, path)
    for folder in SYSTEM_FOLDERS:
        for path in tree.paths(folder):
            if not path.endswith(_PACKAGED_LEFTOVERS) and not path.rpartition("/")[2].startswith("."):
                yield from _jobs(tree, path)


def _users(tree: Tree) -> Iterator[Item]:
    for folder in folders_once(tree, SPOOLS):
        for name in tree.names(folder):
            if name not in _NOT_USERS and not name.startswith("tmp.") and tree.is_file(f"{folder}/{name}"):
                yield from _jobs(tree, f"{folder}/{name}", user=name)


def _anacron(tree: Tree) -> Iterator[Item]:
    for line in tree.lines(ANACRON) if tree.status(ANACRON) else ():
        found = None if line.is_blank or _SETTING.match(line.text) else _ANACRON.fullmatch(line.text)
        if found is not None:
            yield of_line(
                Place.CRON,
                ANACRON,
                line,
                name=f"anacrontab: {found[3]}",
                command=f"every {found[1]} days: {found[4].strip()}",
                starts=found[4],
                user="root",
            )


def _run_parts(tree: Tree) -> Iterator[Item]:
    """Each program of these folders; run-parts passes over what may not be executed or has an odd name."""
    for folder in RUN_PARTS:
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            status = tree.status(path)
            if name == ".placeholder" or status is None or not tree.is_file(path):
                continue
            runs = bool(status.st_mode & 0o111) and _RUN_PARTS_NAME.fullmatch(name) is not None
            label = f"{folder.rpartition('/')[2]}: {name}"
            yield of_file(Place.CRON, path, name=label, command=path, program=path, user="root", enabled=runs)


# --- at --------------------------------------------------------------------------------------------------------------


def _at(tree: Tree) -> Iterator[Item]:
    for folder in folders_once(tree, AT_SPOOLS):
        for name in tree.names(folder):
            path = f"{folder}/{name}"
            if not _AT_NAME.fullmatch(name) or not tree.is_file(path):
                continue
            lines = [one.text for one in tree.lines(path)]
            status = tree.status(path)
            found = next((one for one in map(_AT_USER.match, lines[:5]) if one), None)
            uid = int(found[1]) if found else status.st_uid if status else 0
            yield of_file(
                Place.AT,
                path,
                name=f"at job {int(name[1:6], 16)}",
                command=at_commands(lines),
                user=tree.user(uid),
                enabled=name[0] != "=",  # it runs at this moment
            )


def at_commands(lines: Sequence[str]) -> str:
    """What an at job does, without what at writes before it: that ends with the `}` of its `cd ... || {`."""
    cd = next((n for n, one in enumerate(lines) if one.startswith("cd ") and one.rstrip().endswith("{")), len(lines))
    end = next((n for n in range(cd, len(lines)) if lines[n].strip() == "}"), -1)
    own = [one.strip() for one in lines[end + 1 :] if one.strip() and not one.lstrip().startswith("#")]
    return "; ".join(own)[:4000]
