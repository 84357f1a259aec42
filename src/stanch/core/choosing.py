"""Which processes an action is about: by number, program, hash or task; and who else belongs to them by now.

The parameters are the same for every action on processes. A tree may grow while it is looked at, and a child whose
parents have ended is not below them any more. So a `Family` is asked again and again who belongs to it that it does not
know yet: whom the order means, what is below its members, and what looks like one of them.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import Field, model_validator

from stanch.core.action import Params
from stanch.core.errors import Protected, StanchError, TargetGone, TooLarge
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.processes import Process, ProcessId, Sought
from stanch.core.types import EndpointPath, Id, Md5, Pid, Sha256, Text

MAX_TREE = 50_000
"""Processes of one family; what there is beyond is left, and reported."""

MAX_SPARED = 1000
"""Processes that are left out and told."""

MAX_NAMED = 1000
"""Processes that one order names one by one."""

DELETED = " (deleted)"
"""What the kernel adds to the name of a program that is gone."""

STOPPED = "T"
"""State of what SIGSTOP has stopped."""

STILL = "Tt"
"""States of what stands still: SIGSTOP to one that is traced stops it for its tracer, under another letter."""

_ENDED = "ZX"
"""States of what has ended already."""

LOOKS = 20
"""How often it is looked for a program that nobody seems to run: each process of it may live for a moment only."""

MAX_DESCRIBED = 2 * 1_048_576
"""Characters of the record in which members are described. Who has a longer command line than others would need must
not thereby escape: those beyond are written down by their identity alone."""

_RUNS_ANYTHING = re.compile(
    r"(ba|da|z|k|mk|a|c|tc|fi)?sh|busybox|toybox|(python|perl|ruby|node|nodejs|php|lua|java|pypy)[-.\d]*|sshd(-session)?"
)
"""Names of programs of which one may be bad and the next good: it depends on what each was told."""

_NAMES_FEW = 10
"""Processes that an error names."""


class Choice(Params):
    """Which processes."""

    pid: Pid | None = None
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Start time from the process list; without it, whatever has the pid when the order arrives is meant."""

    path: EndpointPath | None = None
    """All that run the program of this path, deleted or not; a link to a program is not followed, and one to a folder
    only where root alone could have put it."""

    sha256: Sha256 | None = None
    """All that run a program with this SHA-256."""

    md5: Md5 | None = None
    """All that run a program with this MD5."""

    task: Id | None = None
    """All that this task has started with run-process and that still run."""

    processes: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_NAMED)] = ()
    """Exactly these, by pid and start time; whoever has ended is left out."""

    user: Text | None = None
    """Only those of this account."""

    tree: bool = True
    """Their descendants too."""

    most: Annotated[int, Field(ge=1, le=MAX_TREE)] = 1000
    """Refuse if more processes are meant, before any is touched."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.ways != 1:
            raise ValueError("expected one of --pid, --path, --sha256, --md5, --task or --processes")
        if self.started is not None and self.pid is None:
            raise ValueError("expected --started only with --pid")
        return self

    @property
    def ways(self) -> int:
        """In how many ways it says which; one is right."""
        return sum(map(bool, (self.pid is not None, self.path, self.sha256, self.md5, self.task, self.processes)))

    @property
    def sought(self) -> Sought | None:
        """The program, if it is chosen by one."""
        if self.path or self.sha256 or self.md5:
            return Sought(path=self.path, sha256=self.sha256, md5=self.md5)
        return None

    @property
    def named(self) -> bool:
        """Does it mean certain processes, and not whatever fits?"""
        return self.pid is not None or bool(self.processes)

    @property
    def words(self) -> str:
        """What it asks for, for people."""
        asked = {"path": self.path, "sha256": self.sha256, "md5": self.md5, "task": self.task, "user": self.user}
        return ", ".join(f"{name} {value}" for name, value in asked.items() if value)


class Meant(LooseModel):
    """A process that is meant, as it is written down."""

    pid: Pid
    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    name: Text = ""
    executable: EndpointPath | None = None
    arguments: Text = ""
    user: Text = ""
    stopped: bool = False
    """Did it stand still already when it was looked at?"""

    @classmethod
    def of(cls, one: Process) -> Self:
        """What is written down of a process."""
        return cls(
            pid=one.pid,
            started=one.started,
            name=one.name,
            executable=one.executable,
            arguments=one.arguments,
            user=one.user,
            stopped=one.state == STOPPED,
        )

    @property
    def id(self) -> ProcessId:
        """Its identity."""
        return ProcessId(pid=self.pid, started=self.started)


class Spared(Model):
    """A process that fits, and is left alone."""

    pid: Pid
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Start time in clock ticks since boot."""

    name: Text
    """Short name that the kernel shows."""

    why: Text
    """Why."""


class _Written(LooseModel):
    """A family in a task's record; of before there were families, only the targets."""

    targets: Annotated[tuple[Meant, ...], Field(max_length=MAX_TREE)] = ()
    spared: Annotated[tuple[Spared, ...], Field(max_length=MAX_SPARED)] = ()
    ancestors: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_TREE)] = ()
    since: int = 2**63 - 1


@dataclass(slots=True, kw_only=True)
class Family:
    """Who is meant, as far as it is known by now."""

    members: dict[ProcessId, Meant] = field(default_factory=dict)
    """The named one, or those that fit, first."""
    spared: dict[ProcessId, Spared] = field(default_factory=dict)
    """Those that fit and must not be touched."""
    refusals: list[StanchError] = field(default_factory=list)
    """Why nothing may be done, if it must not."""
    ancestors: set[ProcessId] = field(default_factory=set)
    """Who stood above the members at the first look: who might start them again, or inherit what they leave."""
    since: int = 0
    """The start time of the youngest process at the first look."""
    fit: set[ProcessId] = field(default_factory=set)
    """Who fitted by itself at the first look, and not by its parents."""
    present: set[ProcessId] = field(default_factory=set)
    """Who was there at the first look."""

    @classmethod
    def recorded(cls, host: Host) -> Self | None:
        """As an earlier run of the task wrote it down; None if that had not begun."""
        recorded = host.journal.recorded()
        if recorded is None:
            return None
        was = _Written.model_validate(recorded)
        return cls(
            members={one.id: one for one in was.targets},
            spared={ProcessId(pid=one.pid, started=one.started): one for one in was.spared},
            ancestors=set(was.ancestors),
            since=was.since,
        )

    async def record(self, host: Host, **more: object) -> None:
        """Write it down."""
        written = _Written.model_construct(
            targets=_that_fit(self.members.values()),
            spared=tuple(self.spared.values())[:MAX_SPARED],
            ancestors=tuple(self.ancestors),
            since=self.since,
        )
        await host.journal.record({**written.model_dump(mode="json"), **more})

    def add(self, ones: Iterable[Process]) -> None:
        """These belong to it."""
        self.members.update((one.id, Meant.of(one)) for one in ones)

    def spare(self, one: Process, why: str) -> None:
        """This one fits, and is left alone."""
        self.spared[one.id] = Spared(pid=one.pid, started=one.started, name=one.name, why=why)

    def knows(self, one: ProcessId) -> bool:
        """Is it decided what becomes of it?"""
        return one in self.members or one in self.spared


def _that_fit(members: Iterable[Meant]) -> tuple[Meant, ...]:
    """All of them, the first ones described, the others only named."""
    written, left = list[Meant](), MAX_DESCRIBED
    for one in members:
        left -= len(json.dumps(one.model_dump(mode="json"))) if left > 0 else 0
        written.append(one if left > 0 else Meant(pid=one.pid, started=one.started, stopped=one.stopped))
    return tuple(written)


# --- the first look --------------------------------------------------------------------------------------------------


async def first_look(host: Host, which: Choice) -> Family:
    """Who is meant now; TargetGone if nobody is. What must be refused stands in `refusals`. Changes nothing."""
    table, roots = await _found(host, which)
    if not roots:
        raise TargetGone(
            "No process fits", got=f"{len(table)} processes, none of {which.words or 'those'}", hint=_look_again(which)
        )
    family = Family(
        ancestors=_above(roots, table),
        since=max(one.started for one in table),
        present={one.id for one in (*table, *roots)},
        fit={one.id for one in roots},
    )
    await _take_in(host, which, family, roots)
    if which.tree:
        await _take_in(host, which, family, below(table, family.members, family.spared), tree=True)
    if len(family.members) > which.most and not family.refusals:
        family.refusals.append(_too_many(which, len(family.members)))
    if not family.members and not family.refusals:
        family.refusals.append(_all_spared(family))
    return family


def wide(which: Choice, family: Family) -> Iterator[str]:
    """What a person should know before all that run a program are touched: that it is more than one bad thing."""
    fit = [one for id_, one in family.members.items() if id_ in family.fit]
    if which.sought is None or not fit:
        return
    programs = sorted({(one.executable or "unknown").removesuffix(DELETED) for one in fit})
    accounts = Counter(one.user for one in family.members.values())
    anything = [one for one in programs if _RUNS_ANYTHING.fullmatch(one.rpartition("/")[2])]
    if anything:
        yield f"{', '.join(anything[:_NAMES_FEW])} runs whatever it is told: all that run it are meant, good ones too"
    if len(programs) > 1:
        yield f"It runs from {len(programs)} paths: {', '.join(programs[:_NAMES_FEW])}"
    if len(accounts) > 1:
        most = ", ".join(f"{user} ({count})" for user, count in accounts.most_common(_NAMES_FEW))
        yield f"Processes of {len(accounts)} accounts are meant: {most}"


async def _found(host: Host, which: Choice) -> tuple[Sequence[Process], list[Process]]:
    """Everybody, and those who are meant; looked for again if what runs a program may only have been too quick."""
    table = await host.processes.list()
    if which.named:
        return table, await _named(host, which, table)
    for _ in range(LOOKS if which.sought is not None else 1):
        if roots := await fitting(host, which, table):
            return table, roots
    return table, []


def _look_again(which: Choice) -> str:
    if which.path is not None:
        return "The path is that of the program itself, without links, as list-processes shows it."
    return "Look again with list-processes."


def _too_many(which: Choice, count: int) -> StanchError:
    return TooLarge(
        "More processes are meant than allowed; nothing was touched",
        got=count,
        expected=f"at most {which.most}",
        hint="Narrow it, or raise --most.",
    )


def _all_spared(family: Family) -> StanchError:
    told = [f"{one.pid} ({one.name}): {one.why}" for one in family.spared.values()]
    return Protected("All that fit must not be touched", got="; ".join(told[:_NAMES_FEW]))


async def _named(host: Host, which: Choice, table: Sequence[Process]) -> list[Process]:
    if which.pid is not None:
        return [await _the_one(host, which, which.pid)]
    by_id = {one.id: one for one in table}
    return [by_id[one] for one in which.processes if one in by_id and _is_of(which, by_id[one])]


async def _the_one(host: Host, which: Choice, pid: int) -> Process:
    found = await host.processes.find(pid)
    if found is None:
        raise TargetGone(f"There is no process {pid}", hint="Look again with list-processes.")
    if which.started is not None and found.started != which.started:
        raise TargetGone(
            f"Process {pid} is another one by now",
            got=f"started at tick {found.started} ({found.name})",
            expected=f"started at tick {which.started}",
        )
    if not _is_of(which, found):
        raise TargetGone(f"Process {pid} is of another account", got=found.user, expected=which.user)
    if found.state in _ENDED:
        raise TargetGone(
            f"Process {pid} has ended already, and is a zombie",
            got=f"state {found.state} ({found.name})",
            hint=f"It goes when its parent, process {found.parent}, asks for its status or ends.",
        )
    return found


async def fitting(host: Host, which: Choice, table: Sequence[Process]) -> list[Process]:
    """All that run the program, or that the task has started; of the latter, those of the table."""
    if which.sought is not None:
        found = await host.processes.that_run(which.sought)
    else:
        wanted = set(await host.processes.of_task(which.task or ""))
        found = [one for one in table if one.id in wanted]
    return [one for one in found if one.state not in _ENDED and _is_of(which, one)]


def _is_of(which: Choice, one: Process) -> bool:
    return which.user is None or one.user == which.user


async def _take_in(
    host: Host, which: Choice, family: Family, ones: Iterable[Process], *, tree: bool = False
) -> list[Process]:
    """Those that it does not know, and that may be touched, belong to it now.

    Of a named one, a protected process saves the whole tree; of others, itself and, in a `tree`, what is below it.
    """
    taken, cut = [], set[int]()
    for one in ones:
        if tree and one.parent in cut:
            cut.add(one.pid)
            continue
        if one.state in _ENDED or family.knows(one.id):
            continue
        why = await host.processes.why_protected(one.id)
        if why is None:
            taken.append(one)
            continue
        cut.add(one.pid)
        family.spare(one, why)
        if which.named:
            family.refusals.append(Protected(f"Process {one.pid} must not be touched", got=why))
    family.add(taken)
    return taken


# --- who else --------------------------------------------------------------------------------------------------------


async def newcomers(host: Host, which: Choice, family: Family, *, held: Collection[ProcessId] = ()) -> list[Process]:
    """Who belongs to it that it did not know, and does now; Protected as at the first look.

    `held`: who is in its pen by now.
    """
    table = await host.processes.list()
    taken = [] if which.named else await _take_in(host, which, family, await fitting(host, which, table))
    if which.tree:
        taken += await _take_in(host, which, family, below(table, [*family.members, *held], family.spared), tree=True)
    if family.refusals:
        raise family.refusals[0]
    if which.tree:
        for one in look_alikes(family, table):
            if not family.knows(one.id) and await host.processes.why_protected(one.id) is None:
                taken.append(one)
                family.add([one])
    return taken


def look_alikes(family: Family, table: Sequence[Process]) -> list[Process]:
    """What was started since the first look and is the same as a member: program, arguments, account.

    And stands where a member stood, below one of those above them: as what was started again, or was orphaned. Not
    anywhere else: to end a shell must not end the shells that others open meanwhile.
    """
    likenesses = {_likeness(one) for one in family.members.values()} - {None}
    by_pid = {one.pid: one.id for one in table}
    return [
        one
        for one in table
        if (one.id not in family.present if family.present else one.started > family.since)
        and by_pid.get(one.parent) in family.ancestors
        and _likeness(one) in likenesses
    ]


def _likeness(one: Process | Meant) -> tuple[str, str, str] | None:
    """What makes two processes the same; None if nothing is known of it."""
    program = (one.executable or "").removesuffix(DELETED)
    return (program, one.arguments, one.user) if program or one.arguments else None


# --- trees -----------------------------------------------------------------------------------------------------------


def below(table: Sequence[Process], roots: Collection[ProcessId], without: Collection[ProcessId] = ()) -> list[Process]:
    """The processes below (and with) the roots, parents first; not those `without`, and not what is below them."""
    children: dict[int, list[Process]] = {}
    for one in table:
        if one.id not in without:
            children.setdefault(one.parent, []).append(one)
    by_id = {one.id: one for one in table}
    return list(_walk([by_id[one] for one in roots if one in by_id], children))


def _walk(starts: Sequence[Process], children: Mapping[int, Sequence[Process]]) -> Iterator[Process]:
    waiting, seen, at = list(starts), set[int](), 0
    while at < len(waiting):
        one, at = waiting[at], at + 1
        if one.pid not in seen:
            seen.add(one.pid)
            yield one
            waiting += children.get(one.pid, ())


def _above(roots: Iterable[Process], table: Sequence[Process]) -> set[ProcessId]:
    """Everybody above them."""
    by_pid = {one.pid: one for one in table}
    found: set[ProcessId] = set()
    for root in roots:
        one = by_pid.get(root.parent)
        while one is not None and one.id not in found:
            found.add(one.id)
            one = by_pid.get(one.parent)
    return found
