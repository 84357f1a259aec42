"""Stop processes where they are, with their trees, and let them go on."""

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Check, Concurrency, Plan, Result, Risk, Step, Undo, action
from stanch.core.choosing import (
    MAX_NAMED,
    MAX_SPARED,
    STILL,
    STOPPED,
    Choice,
    Family,
    Meant,
    Spared,
    first_look,
    newcomers,
    wide,
)
from stanch.core.errors import ActionFailed, TargetGone
from stanch.core.host import Effect, Host
from stanch.core.model import Model
from stanch.core.processes import Process, ProcessId
from stanch.core.taking import told
from stanch.core.types import SHORTEST, Duration, Id, Instant, Pid, Text, minutes, show_duration

PREFIX = "suspend:"
"""Effects of suspensions that end by themselves are called `suspend:TASK`."""

MAX_EFFECT_NAME = 64

MAX_ROUNDS = 20
"""Rounds of stop-and-look: a tree that still grows after so many is let go, and reported."""

Most = Annotated[int, Field(ge=1, le=MAX_NAMED)]
Ids = Annotated[tuple[ProcessId, ...], Field(max_length=MAX_NAMED)]


class SuspendProcess(Choice):
    """Which processes, and for how long."""

    most: Most = 1000
    """Refuse if more processes are meant, before any is touched."""

    duration: Duration | None = None
    """Let them go on after this long, even if the server stays silent; 1 second to 9999 hours, `none` (in JSON: null)
    for not before they are resumed."""


class SuspendedProcess(Model):
    """A process that was stopped, or goes on."""

    pid: Pid
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Start time in clock ticks since boot."""

    name: Text
    """Short name that the kernel shows."""

    arguments: Text
    """Its command line."""


Rows = Annotated[tuple[SuspendedProcess, ...], Field(max_length=MAX_NAMED)]


class Suspended(Result):
    """What stands still."""

    processes: Ids
    """Those that ran, and were stopped, the named one first: an undo lets exactly these go on."""

    stopped: Rows = ()
    """The first of them, with what they run."""

    already: Annotated[int, Field(ge=0, le=2**31)] = 0
    """How many of those that are meant stood still before; an undo does not touch them."""

    left: Annotated[tuple[Spared, ...], Field(max_length=MAX_SPARED)] = ()
    """Processes that fit, and were left alone."""

    until: Instant | None = None
    """When they go on by themselves; null for never."""


class ResumeProcess(Choice):
    """Which processes."""

    most: Most = 1000
    """Refuse if more processes are meant, before any is touched."""

    suspended_by: Id | None = None
    """All that this task has suspended for a time that is not over."""

    @property
    def ways(self) -> int:
        """In how many ways it says which; one is right."""
        return super().ways + (self.suspended_by is not None)


class Resumed(Result):
    """What goes on."""

    processes: Ids
    """Those that stood still, and go on; whoever has ended is not among them."""

    resumed: Rows = ()
    """The first of them, with what they run."""

    remaining: Duration | None = None
    """How long their suspension would have lasted; null for never, or if it was not limited."""


def effect_name(task: str) -> str:
    """The effect that a task's suspension is; short enough for whatever a task is called."""
    name = f"{PREFIX}{task}"
    return name if len(name) <= MAX_EFFECT_NAME else f"{PREFIX}{hashlib.sha256(task.encode()).hexdigest()[:48]}"


def _rows(ones: Iterable[Meant | Process]) -> tuple[SuspendedProcess, ...]:
    rows = [SuspendedProcess(pid=one.pid, started=one.started, name=one.name, arguments=one.arguments) for one in ones]
    return told(rows)[:MAX_NAMED]


async def _states(host: Host, ones: Collection[ProcessId]) -> dict[ProcessId, Process]:
    """Those of them that there are, as they are now."""
    return {one.id: one for one in await host.processes.list() if one.id in ones}


def _target(one: Meant | Process) -> str:
    return f"{one.pid} {one.arguments or one.name}"[:500]


# --- suspend ---------------------------------------------------------------------------------------------------------


async def _plan_suspend(host: Host, params: SuspendProcess) -> Plan:
    """Who would be stopped."""
    family = await first_look(host, params)
    lasts = "" if params.duration is None else f" for {show_duration(params.duration)}"
    run = [one for one in family.members.values() if not one.stopped]
    warnings = [
        *(f"Will be refused: {one}" for one in family.refusals),
        *wide(params, family),
        *(f"Left alone: {one.pid} ({one.name}): {one.why}" for one in family.spared.values() if not params.named),
    ]
    return Plan(
        changes=bool(run) and not family.refusals,
        steps=told([Step(what=f"Suspend{lasts}", target=_target(one)) for one in run]),
        warnings=tuple(one[:4000] for one in warnings[:100]),
    )


async def _verify_suspend(host: Host, params: SuspendProcess, result: Suspended | None) -> Check:
    """Do all of them that still live stand still? After a crash, the record says who was meant."""
    family = Family.recorded(host)
    ones = result.processes if result else _ours(family) if family else ()
    if result is None and not ones:
        return Check.of(family is not None, "nothing was begun" if family is None else "all stood still before")
    states = await _states(host, set(ones))
    run = sorted(one.pid for one in states.values() if one.state not in (*STILL, "Z", "X"))
    unheld = params.duration is not None and bool(ones) and host.effects.current(effect_name(host.task)) is None
    if result is None and unheld:
        return Check.of(False, "its end is not written down")
    return Check.of(not run, f"not stopped: {run}" if run else f"{len(states)} of {len(ones)} stand still")


def _ours(family: Family) -> tuple[ProcessId, ...]:
    return tuple(id_ for id_, one in family.members.items() if not one.stopped)


def _resume_again(_params: SuspendProcess, result: Suspended) -> ResumeProcess | None:
    return ResumeProcess(processes=result.processes, tree=False) if result.processes else None


@action(
    "suspend_process",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan_suspend,
    verify=_verify_suspend,
    undo=Undo("resume_process", _resume_again),
    examples=(
        "web-01 --pid 4711 --started 123456 --wait",
        "web-01 --path /tmp/.x11/miner --duration 30m --reason 'until its memory is taken'",
        "--label env=prod --user intruder --path /usr/bin/bash --dry-run",
    ),
)
async def suspend_process(host: Host, params: SuspendProcess) -> Suspended:
    """Stop processes and their descendants where they are, so that they can be looked at and go on later.

    By SIGSTOP: they stand still (state T) whatever becomes of the agent, until they are resumed, by an order or by
    anybody else on the endpoint who may send them a signal, or until their time is over. Connections stay open.
    Processes that stood still before are left as they are.
    """
    family = Family.recorded(host) or await first_look(host, params)
    if family.refusals:
        raise family.refusals[0]
    try:
        await _stop_all(host, params, family)
    except BaseException:
        await asyncio.shield(_let_go(host, family))
        raise
    ours = _ours(family)
    effect = host.effects.current(effect_name(host.task))
    return Suspended(
        processes=ours,
        stopped=_rows(family.members[one] for one in ours),
        already=len(family.members) - len(ours),
        left=tuple(family.spared.values())[:MAX_SPARED],
        until=None if effect is None else effect.until,
    )


async def _stop_all(host: Host, params: SuspendProcess, family: Family) -> None:
    """Stop those that belong to it, until nobody new is found."""
    seen: set[ProcessId] = set()
    for _ in range(MAX_ROUNDS):
        new = [one for one in family.members if one not in seen]
        if not new:
            return
        if len(family.members) > MAX_NAMED:
            break
        await family.record(host)
        await _hold_effect(host, params, _ours(family))
        for one in new:
            if not family.members[one].stopped:
                await host.processes.stop(one)
        seen.update(new)
        host.progress(len(seen), None, "processes", "stopped")
        await newcomers(host, params, family)
    raise ActionFailed(
        "The tree grew faster than it could be stopped",
        got=f"{len(family.members)} processes after {MAX_ROUNDS} rounds; all go on",
        hint="Isolate the endpoint, or end it with kill-process.",
    )


async def _hold_effect(host: Host, params: SuspendProcess, ours: Sequence[ProcessId]) -> None:
    """Write down who is let go, and when, before any is stopped; a later round and a later run keep the deadline."""
    if params.duration is None or not ours:
        return
    name, private = effect_name(host.task), {"processes": [one.model_dump() for one in ours]}
    detail = {"processes": len(ours), "first": ours[0].pid}
    if host.effects.current(name) is not None:
        await host.effects.amend(name, detail=detail, private=private)
        return
    await host.effects.hold(
        name,
        lift_action="resume_process",
        lift_params={"suspended_by": host.task},
        detail=detail,
        private=private,
        lasts=params.duration,
    )


async def _let_go(host: Host, family: Family) -> None:
    for one in _ours(family):
        await host.processes.resume(one)
    if host.effects.current(effect_name(host.task)) is not None:
        await host.effects.drop(effect_name(host.task))


# --- resume ----------------------------------------------------------------------------------------------------------


def _held_by(effect: Effect) -> tuple[ProcessId, ...]:
    return tuple(ProcessId.model_validate(one) for one in effect.private.get("processes", ()))


async def _standing(host: Host, params: ResumeProcess) -> tuple[list[Process], timedelta | None]:
    """Who is meant and stands still, and how long the suspension would last."""
    if params.suspended_by is not None:
        name = effect_name(params.suspended_by)
        effect = host.effects.current(name)
        ones = () if effect is None else _held_by(effect)
        remaining = host.effects.remaining(name)
    else:
        ones, remaining = await _chosen(host, params), None
    states = await _states(host, set(ones))
    standing = [states[one] for one in ones if one in states and states[one].state in STILL]
    return [one for one in standing if params.user in (None, one.user)], remaining


async def _chosen(host: Host, params: ResumeProcess) -> tuple[ProcessId, ...]:
    try:
        family = await first_look(host, params)
    except TargetGone:
        # Whoever has ended by now need not go on: a late undo is done.
        if params.processes:
            return ()
        raise
    if family.refusals:
        raise family.refusals[0]
    return tuple(family.members)


async def _plan_resume(host: Host, params: ResumeProcess) -> Plan:
    """Who stands still and would go on."""
    standing, _ = await _standing(host, params)
    steps = told([Step(what="Resume", target=_target(one)) for one in standing])
    return Plan(changes=bool(standing), steps=steps)


async def _verify_resume(host: Host, params: ResumeProcess, result: Resumed | None) -> Check:
    """Does none of them stand still any more? After a crash, the record says who was meant."""
    recorded = host.journal.recorded()
    if result is None and recorded is None:
        return Check.of(False, "nothing was begun")
    ones = (result or Resumed.model_validate(recorded)).processes
    standing = sorted(one.pid for one in (await _states(host, set(ones))).values() if one.state == STOPPED)
    if standing:
        return Check.of(False, f"still stopped: {standing}")
    whole = params.suspended_by is not None and params.user is None
    if whole and host.effects.current(effect_name(params.suspended_by or "")) is not None:
        return Check.of(False, "the suspension is still written down")
    return Check.of(True, f"{len(ones)} go on")


def _suspend_again(_params: ResumeProcess, result: Resumed) -> SuspendProcess | None:
    if not result.processes:
        return None
    return SuspendProcess(processes=result.processes, tree=False, duration=result.remaining)


@action(
    "resume_process",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan_resume,
    verify=_verify_resume,
    undo=Undo("suspend_process", _suspend_again),
    examples=(
        "web-01 --pid 4711 --started 123456 --wait",
        "web-01 --suspended-by tsk_01 --wait",
        "web-01 --path /tmp/.x11/miner --no-tree --dry-run",
    ),
)
async def resume_process(host: Host, params: ResumeProcess) -> Resumed:
    """Let processes go on that were suspended, or stopped by anybody else.

    Those that run already are left as they are; those that have ended are left out.
    """
    recorded = host.journal.recorded()
    if recorded is not None:
        resumed = Resumed.model_validate(recorded)
    else:
        standing, remaining = await _standing(host, params)
        resumed = Resumed(
            processes=tuple(one.id for one in standing),
            resumed=_rows(standing),
            remaining=None if remaining is None else max(SHORTEST, remaining),
        )
        await host.journal.record(resumed.model_dump(mode="json"))
    for one in resumed.processes:
        await host.processes.resume(one)
    await _drop_what_is_over(host, params)
    return resumed


async def _drop_what_is_over(host: Host, params: ResumeProcess) -> None:
    """Suspensions of which nobody stands still any more are in force no longer."""
    effects = [one for one in host.effects.all() if one.name.startswith(PREFIX)]
    states = await _states(host, {one for effect in effects for one in _held_by(effect)})
    meant = None if params.suspended_by is None else effect_name(params.suspended_by)
    for effect in effects:
        standing = [one for one in _held_by(effect) if one in states and states[one].state in STILL]
        if (effect.name == meant and params.user is None) or not standing:
            await host.effects.drop(effect.name)
