"""Carries out what was promised: from the journal's line of a task to its outcome and the report of it.

    accepted -> waits for its lane -> begun -> attempted under its limit -> finished and told, in one transaction

Each step is on the disk before the next one begins, so that `recovery` can go on from any of them. A task may be
cancelled while it waits or runs. One that ignores that, or its limit, is abandoned: it is reported as unknown, frees
its lane, and corrects its report if it ends after all.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import structlog

from stanch.agent import attempt, recovery
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.lanes import WIDTHS, Lanes
from stanch.agent.policy_watch import PolicyWatch
from stanch.agent.running import GRACE, Running, Stopped
from stanch.agent.spool import Spool, Spooled
from stanch.agent.tasks import Known, Ledger, Outcome, Phase, Task, TaskContext, TaskJournal, TaskProgress
from stanch.core.action import AnyAction, Concurrency, Params
from stanch.core.errors import ActionFailed, Expired, StanchError, TimedOut, Unavailable
from stanch.core.frames import ProgressFrame, Report
from stanch.core.host import Host, Record
from stanch.core.task import State
from stanch.core.types import Id, seconds, show_duration

HostFactory = Callable[[TaskContext], Host]

LOOK_LIMIT = seconds(30)
"""For looking what a task that was cut short has left."""

_NOT_BEGUN = recovery.cancelled("it had not begun")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the agent never exceeds."""

    open_tasks: int = 10_000
    widths: Mapping[Concurrency, int] = field(default_factory=lambda: WIDTHS)
    grace: timedelta = GRACE
    started_after: timedelta = seconds(0.5)
    """A task that ends sooner does not report that it has begun: one commit less."""
    refusals_per_minute: int = 10
    """Notices about envelopes that were refused."""


class Carrier:
    """Runs tasks. `async with` it: leaving stops what runs, to go on at the next start."""

    def __init__(
        self,
        *,
        host_for: HostFactory,
        ledger: Ledger,
        clock: AgentClock,
        spool: Spool,
        effects: Effects,
        policy: PolicyWatch,
        progress: Callable[[ProgressFrame], None],
        bounds: Bounds,
    ) -> None:
        self._host_for = host_for
        self._ledger = ledger
        self._clock = clock
        self._spool = spool
        self._effects = effects
        self._policy = policy
        self._progress = progress
        self._bounds = bounds
        self._lanes = Lanes(bounds.widths)
        self._group = asyncio.TaskGroup()
        self.running: dict[Id, Running] = {}
        """What was promised and has no outcome yet, by task."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Stopped, not ended: what runs keeps its lines in the journal, and goes on at the next start.
        try:
            await self._group.__aexit__(Leaving, Leaving(), None)
        except* Leaving:
            pass
        try:
            await self._ledger.forgive()
        except Unavailable as unavailable:
            log.warning("the journal could not be told of a clean stop", error=str(unavailable))

    async def start(self, task: Task, action: AnyAction, params: Params) -> Running:
        """Put a new task on the disk and let it run; begun at once if its lane is free, which saves a commit."""
        lane = _lane(task, action)
        at_once = self._lanes.is_free(lane)
        if at_once:
            await self._lanes.enter(lane)
        try:
            # (5) Promised.
            await self._ledger.accept(task, Phase.BEGUN if at_once else Phase.ACCEPTED)
        except BaseException:
            if at_once:
                self._lanes.leave(lane)
            raise
        running = self._track(task, action, params)
        self._group.create_task(self._carry_out(running, None, entered=at_once))
        return running

    def resume(self, known: Known, action: AnyAction, params: Params) -> None:
        """Let a task of an earlier start of the agent go on from where its lines in the journal say that it is."""
        running = self._track(known.task, action, params, earlier=known.record)
        begun = known if known.phase is Phase.BEGUN else None
        self._group.create_task(self._carry_out(running, begun, entered=False))

    def _track(self, task: Task, action: AnyAction, params: Params, earlier: Record | None = None) -> Running:
        journal = TaskJournal(self._ledger, task.id, earlier)
        running = Running(task, action, params, group=self._group, journal=journal, grace=self._bounds.grace)
        self.running[task.id] = running
        return running

    async def _carry_out(self, running: Running, known: Known | None, *, entered: bool) -> None:
        """Wait for its lane, attempt it, finish it; `known` if an earlier start of the agent had begun it."""
        lane = _lane(running.task, running.action)
        begun = entered
        if known is not None:
            # A cancel does not end the wait: what it has left behind must be looked at, in its lane.
            await self._lanes.enter(lane)
            entered = True
        elif not entered:
            entered = await running.wait_for(self._lanes.enter(lane))
        try:
            outcome = await self._begin_and_attempt(running, known, begun=begun) if entered else _NOT_BEGUN
        finally:
            if entered:
                self._lanes.leave(lane)
        await self._finish(running, outcome)
        if running.abandoned is not None:
            await self._correct(running, running.abandoned)

    async def _begin_and_attempt(self, running: Running, known: Known | None, *, begun: bool) -> Outcome:
        try:
            if not begun:
                # (6) Waiting may have taken long: judged again.
                if known is None:
                    await self._check_still_allowed(running)
                await self._ledger.begin(running.task.id)
        except Unavailable as error:
            return attempt.failure(error)
        except StanchError as error:
            return Outcome.of(State.REFUSED, error)
        if running.cancelled:
            return _NOT_BEGUN if known is None else await self._after_cancel(running)
        if running.task.own:
            return await self._attempt(running, known)
        async with asyncio.TaskGroup() as beside:
            teller = beside.create_task(self._tell_begun(running.task))
            outcome = await self._attempt(running, known)
            teller.cancel()
        return outcome

    async def _check_still_allowed(self, running: Running) -> None:
        task, now = running.task, self._clock.now()
        if task.exp is not None and now is not None and now.timestamp() > task.exp:
            until = datetime.fromtimestamp(task.exp, UTC)
            raise Expired("The order waited here until its validity was over", got=f"now {now}", expected=until)
        if not task.own:
            await self._policy.look()
            self._policy.check(running.action, running.params)

    async def _tell_begun(self, task: Task) -> None:
        await asyncio.sleep(self._bounds.started_after.total_seconds())
        try:
            await self._spool.put(self._spool.report(task.id, State.RUNNING))
        except Unavailable as error:
            log.warning("that a task has begun could not be told", task=task.id, error=str(error))

    async def _attempt(self, running: Running, known: Known | None) -> Outcome:
        # (7) Under its limit.
        try:
            return await running.within(running.action.time_limit, self._work(running, known))
        except Stopped as stopped:
            return await self._after_stop(running, stopped)

    async def _work(self, running: Running, known: Known | None) -> Outcome:
        task, action, params = running.task, running.action, running.params
        try:
            if task.lifts is not None and not self._effects.is_due(task.lifts):
                return self._nothing_to_lift(task.lifts, known)
            host = self._host(running)
            if known is not None:
                holds_effect = self._effects.holds(task.id)
                outcome = await recovery.after_crash(known, action, host, params, holds_effect=holds_effect)
                if outcome is not None:
                    return outcome
            elif not task.own:
                await self._policy.check_links(params)
            if task.order.dry_run:
                return await attempt.plan(action, host, params)
        except Exception as error:  # noqa: BLE001 - every exception of a task is its outcome
            return attempt.failure(error)
        return await attempt.run(action, host, params)

    def _nothing_to_lift(self, effect: str, known: Known | None) -> Outcome:
        """Done if an earlier attempt lifted it before the agent was killed; else somebody else was faster."""
        if known is not None and self._effects.current(effect) is None:
            return Outcome(state=State.DONE)
        return recovery.cancelled(f"the effect {effect} is not in force, or was renewed")

    def _host(self, running: Running) -> Host:
        task = running.task
        return self._host_for(
            TaskContext(
                task=task.id,
                order=task.order,
                journal=running.journal,
                effects=self._effects.of(task.order),
                progress=TaskProgress(task.id, self._progress, self._clock.boot_seconds),
                own=task.own,
            )
        )

    async def _after_stop(self, running: Running, stopped: Stopped) -> Outcome:
        """What became of a task that was cut short."""
        limit = show_duration(running.action.time_limit)
        if stopped.abandoned:
            running.abandoned = stopped.child
            why = "a cancel" if running.cancelled else f"its limit of {limit}"
            error = TimedOut(
                "The action ignores that it was stopped, and still runs; nothing waits for it any more",
                got=f"no end {show_duration(self._bounds.grace)} after {why}",
                hint="A later report corrects this one when the action ends after all.",
            )
            return Outcome.of(State.UNKNOWN, error)
        running.journal = running.journal.reopened()
        if running.cancelled:
            return await self._after_cancel(running)
        if not stopped.timed_out:
            return attempt.failure(ActionFailed("The action gave up by itself", hint="See the agent's log."))
        left = await self._look(running)
        error = TimedOut("The action was stopped at its limit", got=left, expected=f"an end within {limit}")
        return Outcome.of(State.FAILED, error)

    async def _after_cancel(self, running: Running) -> Outcome:
        action, params, dry_run = running.action, running.params, running.task.order.dry_run
        try:
            host = self._host(running)
            settle = recovery.after_cancel(action, host, params, dry_run=dry_run)
            outcome = await running.within(LOOK_LIMIT, settle)
            if outcome is not None:
                return outcome
            return await running.within(action.time_limit, attempt.run(action, host, params))
        except Stopped as stopped:
            return attempt.interrupted("it was stopped on request" + (" and still runs" if stopped.abandoned else ""))
        except Exception as error:  # noqa: BLE001 - every exception of a task is its outcome
            return attempt.interrupted(f"it was stopped on request: {error}")

    async def _look(self, running: Running) -> str:
        """One line on what a task that was cut short has left."""
        if running.action.read_only:
            return "it only reads"
        try:
            looking = attempt.look(running.action, self._host(running), running.params)
            check = await running.within(LOOK_LIMIT, looking)
        except Stopped:
            return "cannot-tell: looking took too long"
        except Exception as error:  # noqa: BLE001 - every exception of a task is its outcome
            return f"cannot-tell: {error}"
        return f"{check.verdict}: {check.detail}"

    async def _correct(self, running: Running, child: asyncio.Task[Any]) -> None:
        """An abandoned action has ended after all: say how."""
        await asyncio.wait({child})
        running.abandoned = None
        stopped = Stopped(child, timed_out=True)
        outcome = await self._after_stop(running, stopped) if child.cancelled() else child.result()
        await self._finish(running, outcome)

    # --- the end ---

    async def _finish(self, running: Running, outcome: Outcome) -> None:
        """Put the outcome on the disk, however long the disk refuses: the report must not be lost while we live."""
        outcome = outcome.beside(running.journal.partial, most=attempt.MAX_RESULT_BYTES)
        delay = 1.0
        while True:
            try:
                if outcome.state is State.CANCELLED:
                    await self._effects.expire(running.task.id)
                await self.end(running.task, outcome)
                break
            except Unavailable:
                log.exception("an outcome cannot be written down", task=running.task.id)
                await asyncio.sleep(delay)
                delay = min(2 * delay, 30.0)
        self.running.pop(running.task.id, None)
        if not running.ended.done():
            running.ended.set_result(outcome)

    async def end(self, task: Task, outcome: Outcome) -> None:
        """Write down how a task ended, known before or not, and what the server is told of it."""
        # (8) Finished, and told, in one transaction.
        await self._ledger.finish(task, outcome, self._frame(task, outcome))
        error = None if outcome.error is None else outcome.error.code
        log.info("task", task=task.id, action=task.order.action, state=str(outcome.state), error=error)

    def _frame(self, task: Task, outcome: Outcome) -> Spooled | None:
        """What the server is told."""
        if not task.own:
            return self.report(task, outcome)
        if task.lifts is None:
            kind = "local-order"
        elif outcome.state is State.CANCELLED:
            return None
        else:
            kind = "effect-lifted" if outcome.state is State.DONE else "effect-lift-failed"
        detail: dict[str, Any] = {"task": task.id, "action": task.order.action, "state": outcome.state}
        if task.lifts is not None:
            detail["effect"] = task.lifts
        if outcome.error is not None:
            detail["error"] = outcome.error.model_dump(exclude_none=True)
        return self._spool.notice(kind, detail)

    def report(self, task: Task, outcome: Outcome) -> Report:
        """The final report of one of the server's tasks."""
        return self._spool.report(task.id, outcome.state, result=outcome.result, error=outcome.error)


class Leaving(Exception):
    """Ends the task group of a carrier that is left."""


def _lane(task: Task, action: AnyAction) -> Concurrency:
    """A dry run changes nothing, so it need not wait for anything."""
    return Concurrency.SHARED if task.order.dry_run else action.concurrency
