"""End processes, with their trees, and see that they stay dead."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Pair,
    Plan,
    Result,
    Risk,
    Step,
    action,
)
from stanch.core.choosing import (
    DELETED,
    MAX_SPARED,
    MAX_TREE,
    Choice,
    Family,
    Meant,
    Spared,
    below,
    first_look,
    fitting,
    newcomers,
    wide,
)
from stanch.core.errors import ActionFailed, Protected
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.processes import Pen, Process, ProcessId, Signal
from stanch.core.taking import told
from stanch.core.types import Duration, EndpointPath, Pid, Text, minutes, seconds

MAX_ROUNDS = 20
"""Rounds of hold-and-look: a tree that still grows after so many is reported, not chased for ever."""

MAX_RESPAWNS = 5
"""How often what is started again is ended again."""

MAX_TOLD = 1000
"""Processes that are told with name, program and command line."""

MAX_TOLD_ARGUMENTS = 500
"""Characters of a command line in the result."""

MAX_RESTARTERS = 20

NEVER_ENDED = re.compile(
    r"(/usr|/lib|/bin|/sbin|/snap|/var/lib/rancher)(/[^/]+)*"
    r"/(systemd|init|containerd|containerd-shim[-\w]*|dockerd|conmon|crio)"
)
"""Programs that start others again for good reason, and are not ended for it: it is told what they keep up. By where
the program lies: anybody can call a process what he likes."""


def _at_most_a_minute(value: timedelta) -> timedelta:
    if value > minutes(1):
        raise ValueError("expected at most 1m")
    return value


Short = Annotated[Duration, AfterValidator(_at_most_a_minute)]


class KillProcess(Choice):
    """Which processes, and how."""

    signal: Signal = Signal.KILL
    """kill; term, and kill for what is left after the grace; any other is only sent, and nobody is expected to end."""

    grace: Short = seconds(10)
    """How long processes have to end after SIGTERM, up to 1m."""

    watch: Short | None = seconds(2)
    """How long to watch afterwards whether they are started again, up to 1m; `none` (in JSON: null) for not at all."""

    respawner: bool = False
    """End the process that starts them again, too; never init, systemd, what runs containers, or Stanch."""

    @model_validator(mode="after")
    def _signal_fits(self) -> Self:
        if self.respawner and not self.signal.ends:
            raise ValueError("expected --respawner only with the signal kill or term")
        return self


class EndedProcess(Model):
    """A process that was ended."""

    pid: Pid
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Start time in clock ticks since boot."""

    name: Text
    """Short name that the kernel showed."""

    executable: EndpointPath | None
    """Path of its program."""

    arguments: Annotated[str, Field(max_length=MAX_TOLD_ARGUMENTS)]
    """The beginning of its command line."""


class Restarter(Model):
    """Who has started an ended process again."""

    pid: Pid
    """Process id."""

    name: Text
    """Short name that the kernel shows."""

    unit: Text = ""
    """The systemd unit that it belongs to, or, of what init starts, the unit that was started."""

    ended: bool = False
    """Was it ended, too?"""

    @property
    def words(self) -> str:
        """For people."""
        return f"PID {self.pid} ({self.unit or self.name})"


class Killed(Result):
    """What was ended."""

    processes: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_TREE)]
    """Every process that was ended, or got the signal; the named one first."""

    ended: Annotated[tuple[EndedProcess, ...], Field(max_length=MAX_TOLD)] = ()
    """The first of them, with what they ran."""

    left: Annotated[tuple[Spared, ...], Field(max_length=MAX_SPARED)] = ()
    """Processes that fit, and were left alone."""

    respawned: Annotated[int, Field(ge=0, le=MAX_RESPAWNS)] = 0
    """How often they were started again, and ended again."""

    respawned_by: Annotated[tuple[Restarter, ...], Field(max_length=MAX_RESTARTERS)] = ()
    """Who did that."""


@dataclass(slots=True, kw_only=True)
class _Work:
    """One run of the order."""

    host: Host
    params: KillProcess
    family: Family
    respawned: int = 0
    restarters: dict[ProcessId, Restarter] = field(default_factory=dict)

    async def record(self) -> None:
        await self.family.record(self.host)


async def _plan(host: Host, params: KillProcess) -> Plan:
    """Who is meant now."""
    family = await first_look(host, params)
    what = "Kill" if params.signal.ends else f"Send SIG{params.signal.upper()} to"
    steps = told([Step(what=what, target=_target(one)) for one in family.members.values()])
    refused = [f"Will be refused: {one.got if isinstance(one, Protected) else one}" for one in family.refusals]
    if len(steps) < len(family.members):
        refused.append(f"Only {len(steps)} of {len(family.members)} processes are shown")
    spared = (f"Left alone: {one.pid} ({one.name}): {one.why}" for one in _left(params, family))
    warnings = [*refused, *wide(params, family), *spared]
    return Plan(changes=not family.refusals, steps=steps, warnings=tuple(one[:4000] for one in warnings[:100]))


def _target(one: Meant) -> str:
    return f"{one.pid} {one.arguments or one.name}"[:MAX_TOLD_ARGUMENTS]


def _left(params: KillProcess, family: Family) -> Iterable[Spared]:
    return () if params.named else family.spared.values()


async def _verify(host: Host, params: KillProcess, result: Killed | None) -> Check:
    """Does none of them run any more, nor anything else that fits? After a crash, the record says who was meant."""
    if not params.signal.ends:
        sent = (host.journal.recorded() or {}).get("sent", False) if result is None else True
        return Check.of(bool(sent), "the signal was sent" if sent else "the signal was not sent to all")
    family = Family.recorded(host)
    ones = result.processes if result else tuple(family.members if family else ())
    if not ones:
        return Check.of(False, "nothing was begun")
    left = {one.pid for one in ones if await host.processes.alive(one)} | await _others(host, params)
    return Check.of(not left, f"still running: {sorted(left)}" if left else f"{len(ones)} processes have ended")


async def _others(host: Host, params: KillProcess) -> set[int]:
    """Who else fits now, and need not be left alone."""
    found = [] if params.named else await fitting(host, params, await host.processes.list())
    return {one.pid for one in found if await host.processes.why_protected(one.id) is None}


@action(
    "kill_process",
    version=2,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(10),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("A process that has ended cannot be brought back; start the program again."),
    openc2=Pair("stop", "process"),
    examples=(
        "web-01 --pid 4711 --started 123456 --wait",
        "web-01 --pid 4711 --no-tree --dry-run",
        "--label env=prod --path /tmp/.x11/miner --respawner --watch 10s --reason 'miner that comes back'",
        f"web-01 --sha256 {'ab' * 32} --user www-data --wait",
        "web-01 --task tsk_01 --signal term --grace 5s --wait",
    ),
)
async def kill_process(host: Host, params: KillProcess) -> Killed:
    """End processes and their descendants, and see that they are gone and stay so.

    They are held still together first, so that none can fork, start another again or be orphaned while the others are
    ended; a process is recognised by pid and start time, so that a later one with the same pid is never hit. A path
    means the program that the process itself calls so, in a container the path there, and for a process in another
    mount namespace also the very file that the path leads to on the endpoint. Afterwards it is watched whether they
    are started again, and by whom: the same program with the same arguments and account below one of those who stood
    above the ended ones, or whatever fits a path, hash or task. A process that is held still has left its systemd unit
    for that moment; who is not ended is put back. After a crash of the agent a signal may be sent twice.
    """
    work = _Work(host=host, params=params, family=Family.recorded(host) or await _begin(host, params))
    if not params.signal.ends:
        return await _send_only(work)
    if params.signal is Signal.TERM:
        await _ask(work)
    await _end(work)
    await _keep_dead(work)
    return _told(work)


async def _begin(host: Host, params: KillProcess) -> Family:
    family = await first_look(host, params)
    if family.refusals:
        raise family.refusals[0]
    return family


async def _send_only(work: _Work) -> Killed:
    host, family = work.host, work.family
    if not (host.journal.recorded() or {}).get("sent"):
        await family.record(host)
        for one in family.members:
            await host.processes.send(one, work.params.signal)
        await family.record(host, sent=True)
    return _told(work)


def _told(work: _Work) -> Killed:
    return Killed(
        processes=tuple(work.family.members),
        ended=told([_row(one) for one in work.family.members.values()][:MAX_TOLD]) if work.params.signal.ends else (),
        left=tuple(work.family.spared.values())[:MAX_SPARED],
        respawned=work.respawned,
        respawned_by=tuple(work.restarters.values()),
    )


def _row(one: Meant) -> EndedProcess:
    return EndedProcess(
        pid=one.pid,
        started=one.started,
        name=one.name,
        executable=one.executable,
        arguments=one.arguments[:MAX_TOLD_ARGUMENTS],
    )


# --- ending ----------------------------------------------------------------------------------------------------------


async def _ask(work: _Work) -> None:
    """SIGTERM, and time to heed it."""
    await work.record()
    for one in work.family.members:
        await work.host.processes.send(one, Signal.TERM)
    await work.host.processes.wait_gone(tuple(work.family.members), within=work.params.grace)


async def _end(work: _Work) -> None:
    """SIGKILL to all that belong to it, and see that they are gone."""
    complete = await (_end_together(work) if work.params.tree else _end_singly(work))
    ones = tuple(work.family.members)
    work.host.progress(0, len(ones), "processes", "waiting for them to end")
    left = await work.host.processes.wait_gone(ones, within=seconds(30))
    work.host.progress(len(ones) - len(left), len(ones), "processes")
    if left:
        raise ActionFailed(
            "Some processes did not end",
            got=f"pids {', '.join(str(one.pid) for one in left[:100])}",
            hint="A process in state D waits inside the kernel and ends when its device answers.",
        )
    if not complete:
        raise ActionFailed(
            "The tree grew faster than it could be stopped",
            got=f"{len(ones)} processes were ended after {MAX_ROUNDS} rounds, others may run",
            hint="Order it again for what is left: list-processes shows it.",
        )


async def _end_together(work: _Work) -> bool:
    """Hold all still until nobody new is found, then end all; were all found? Whoever is not ended goes on."""
    async with work.host.processes.pen(work.host.task) as pen:
        complete = await _hold(work, pen)
        await pen.kill()
    # Who is root can have taken some out of the pen again; and of those that grew too fast not all were in it.
    for one in work.family.members:
        await work.host.processes.kill(one)
    return complete


async def _hold(work: _Work, pen: Pen) -> bool:
    """Put all into the pen until nobody new is found; were all found?"""
    members, sought = work.family.members, work.params.sought
    held: set[ProcessId] = set()
    written = 0
    for _ in range(MAX_ROUNDS):
        if len(members) > MAX_TREE:
            break
        if len(members) > written:
            await work.record()
            written = len(members)
        new = [one for one in members if one not in held]
        held.update(new, await pen.catch(new))
        if sought is not None:
            held.update(await pen.hunt(sought, user=work.params.user))
        await newcomers(work.host, work.params, work.family, held=held)
        if len(members) == written:
            return True
    return False


async def _end_singly(work: _Work) -> bool:
    """End those that fit, and no child of theirs that does not, until nobody new is found; were all found?"""
    ended: set[ProcessId] = set()
    for _ in range(MAX_ROUNDS):
        new = [one for one in work.family.members if one not in ended]
        if not new or len(work.family.members) > MAX_TREE:
            break
        await work.record()
        for one in new:
            await work.host.processes.kill(one)
        ended.update(new)
        await newcomers(work.host, work.params, work.family)
    return ended >= work.family.members.keys()


# --- staying dead ----------------------------------------------------------------------------------------------------


async def _keep_dead(work: _Work) -> None:
    """End again what is started again, and learn by whom; ActionFailed if it will not stay dead."""
    while again := await _started_again(work):
        await _learn_restarters(work, again)
        if work.respawned == MAX_RESPAWNS:
            raise _will_not_stay_dead(work)
        work.respawned += 1
        if work.params.respawner:
            await _aim_at_restarters(work)
        await _end(work)


def _will_not_stay_dead(work: _Work) -> ActionFailed:
    by = ", ".join(one.words for one in work.restarters.values()) or "somebody unknown"
    return ActionFailed(
        f"It was ended {MAX_RESPAWNS + 1} times, and is started again each time",
        got=f"restarted by {by}",
        expected="that it stays dead",
        hint="Disable what restarts it with disable-autorun, or end that first (--respawner).",
    )


async def _started_again(work: _Work) -> list[Process]:
    """What belongs to it and was not there before; looked for as long as it is to be watched."""
    if work.params.watch is None:
        return []
    async for _ in work.host.processes.changes(within=work.params.watch):
        found = await newcomers(work.host, work.params, work.family)
        if found:
            return found
    return []


async def _learn_restarters(work: _Work, again: Sequence[Process]) -> None:
    for one in again:
        parent = await work.host.processes.find(one.parent)
        known = parent is None or parent.id in work.restarters or parent.id in work.family.members
        if parent is None or known or len(work.restarters) == MAX_RESTARTERS:
            continue
        # Init starts for others: what it starts is named by its own unit.
        unit = one.unit if parent.pid == 1 else parent.unit
        work.restarters[parent.id] = Restarter(pid=parent.pid, name=parent.name, unit=unit)


async def _aim_at_restarters(work: _Work) -> None:
    """Those who may be ended belong to it from now on."""
    table = await work.host.processes.list()
    by_id = {one.id: one for one in table}
    for id_, told_ in list(work.restarters.items()):
        one = by_id.get(id_)
        if one is None or told_.ended or work.family.knows(id_):
            continue
        why = await _why_not(work.host, one, table)
        if why is not None:
            work.family.spare(one, why)
            continue
        work.family.add([one])
        work.restarters[id_] = told_.model_copy(update={"ended": True})


async def _why_not(host: Host, one: Process, table: Sequence[Process]) -> str | None:
    """Why a process that starts others again must not be ended, or None."""
    if NEVER_ENDED.fullmatch((one.executable or "").removesuffix(DELETED)):
        return "it starts others again for good reason: disable what it starts"
    for each in below(table, [one.id]):
        why = await host.processes.why_protected(each.id)
        if why is not None:
            return why if each.id == one.id else f"process {each.pid} below it must not be touched: {why}"
    return None
