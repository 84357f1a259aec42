"""End a process, with its tree."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Pair,
    Params,
    Plan,
    Result,
    Risk,
    Step,
    action,
)
from stanch.core.errors import ActionFailed, Protected, TargetGone
from stanch.core.host import Host, Process, ProcessId
from stanch.core.types import Pid, minutes, seconds

MAX_ROUNDS = 20
"""Rounds of stop-and-look: a tree that still grows after so many is reported, not chased for ever."""

MAX_TREE = 50_000
"""Processes of one tree; a larger one is ended as far as it is known, and reported."""


class KillProcess(Params):
    """Which process."""

    pid: Pid
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Start time from the process list; without it, whatever has the pid when the order arrives is ended."""

    tree: bool = True
    """End its descendants too."""


class Killed(Result):
    """What was ended."""

    processes: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_TREE)]
    """Every process that was ended, the named one first."""


async def _plan(host: Host, params: KillProcess) -> Plan:
    """The tree as it is now."""
    root = await _root(host, params)
    tree = _tree(await host.processes.list(), [root.id]) if params.tree else [root]
    reasons = [why for one in tree if (why := await host.processes.why_protected(one.id))]
    steps = tuple(Step(what="Kill", target=f"{one.pid} {one.arguments or one.name}"[:4000]) for one in tree[:10_000])
    return Plan(changes=not reasons, steps=steps, warnings=tuple(f"Will be refused: {why}" for why in reasons[:100]))


async def _verify(host: Host, _params: KillProcess, result: Killed | None) -> Check:
    """Does none of them run any more? After a crash, the record says which ones were meant."""
    ones = result.processes if result else _recorded(host)
    if not ones:
        return Check.of(False, "nothing was begun")
    left = [one.pid for one in ones if await host.processes.alive(one)]
    return Check.of(not left, f"still running: {left}" if left else f"{len(ones)} processes have ended")


@action(
    "kill_process",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("A process that has ended cannot be brought back; start the program again."),
    openc2=Pair("stop", "process"),
    examples=("web-01 --pid 4711 --started 123456 --wait", "web-01 --pid 4711 --no-tree --dry-run"),
)
async def kill_process(host: Host, params: KillProcess) -> Killed:
    """End a process and its descendants, and see that they are gone.

    The tree is stopped first, so that it cannot grow while it is ended; a process is recognised by pid and start
    time, so that a later process with the same pid is never hit.
    """
    targets = list(_recorded(host))
    if not targets:
        root = await _root(host, params)
        targets = [root.id]
        await _refuse_protected(host, targets)
    complete = True
    try:
        if params.tree:
            complete = await _freeze(host, targets)
        await _record(host, targets)
        for one in targets:
            await host.processes.kill(one)
    except BaseException:
        # Whoever was not killed yet goes on as if nothing had been; for the others this is nothing.
        await asyncio.shield(_let_go(host, targets))
        raise
    left = await host.processes.wait_gone(targets, within=seconds(30))
    if left:
        raise ActionFailed(
            "Some processes did not end",
            got=f"pids {', '.join(str(one.pid) for one in left)}",
            hint="A process in state D waits inside the kernel and ends when its device answers.",
        )
    if not complete:
        raise ActionFailed(
            "The tree grew faster than it could be stopped",
            got=f"{len(targets)} processes were ended after {MAX_ROUNDS} rounds, others may run",
            hint="Order it again for what is left: list-processes shows it.",
        )
    return Killed(processes=tuple(targets))


async def _root(host: Host, params: KillProcess) -> Process:
    found = await host.processes.find(params.pid)
    if found is None:
        raise TargetGone(f"There is no process {params.pid}", hint="Look again with list-processes.")
    if params.started is not None and found.started != params.started:
        raise TargetGone(
            f"Process {params.pid} is another one by now",
            got=f"started at tick {found.started} ({found.name})",
            expected=f"started at tick {params.started}",
        )
    return found


def _recorded(host: Host) -> tuple[ProcessId, ...]:
    recorded = host.journal.recorded() or {}
    return tuple(ProcessId.model_validate(one) for one in recorded.get("targets", ()))


async def _refuse_protected(host: Host, ones: Sequence[ProcessId]) -> None:
    for one in ones:
        why = await host.processes.why_protected(one)
        if why:
            raise Protected(f"Process {one.pid} must not be ended", got=why)


async def _record(host: Host, targets: Sequence[ProcessId]) -> None:
    await host.journal.record({"targets": [one.model_dump() for one in targets]})


async def _freeze(host: Host, targets: list[ProcessId]) -> bool:
    """Stop the whole tree and add it to the targets, until nothing new is found; False if it never ends growing."""
    stopped: set[ProcessId] = set()
    for _ in range(MAX_ROUNDS):
        tree = [one.id for one in _tree(await host.processes.list(), targets)]
        new = [one for one in tree if one not in stopped]
        if not new:
            return True
        if len(stopped) + len(new) > MAX_TREE:
            return False
        await _refuse_protected(host, new)
        targets[:] = dict.fromkeys([*targets, *new])
        await _record(host, targets)
        for one in new:
            await host.processes.stop(one)
        stopped.update(new)
    return False


async def _let_go(host: Host, ones: Sequence[ProcessId]) -> None:
    for one in ones:
        await host.processes.resume(one)


def _tree(processes: Sequence[Process], roots: Sequence[ProcessId]) -> list[Process]:
    """The processes below (and with) the roots, parents first."""
    children: dict[int, list[Process]] = {}
    for one in processes:
        children.setdefault(one.parent, []).append(one)
    by_id = {one.id: one for one in processes}
    starts = [by_id[one] for one in roots if one in by_id]
    return list(dict.fromkeys(_walk(starts, children)))


def _walk(starts: Sequence[Process], children: dict[int, list[Process]]) -> Iterator[Process]:
    waiting, seen = list(starts), set[int]()
    while waiting:
        one = waiting.pop(0)
        if one.pid not in seen:
            seen.add(one.pid)
            yield one
            waiting += children.get(one.pid, [])
