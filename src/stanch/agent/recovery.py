"""What becomes of a task that was cut short: by the death of the agent, or by a cancel in the middle of its run.

`recover` runs at start, before the link is up. Every task that was accepted and has no end goes on: one that never
began runs as if it had just come (its validity judged anew); one that had begun is judged by its action's
`after_crash`, and ends truthfully even if its validity is over by now, because what it may have left half done must
not stay so. Effects whose deadline passed meanwhile are lifted by `Effects.due_loop`, which needs no help from here.
"""

from typing import TYPE_CHECKING

import structlog

from stanch.agent import attempt
from stanch.agent.tasks import Known, Outcome
from stanch.core.action import AfterCrash, AnyAction, Params, Verdict
from stanch.core.errors import Cancelled, Unavailable
from stanch.core.host import Host
from stanch.core.task import State

if TYPE_CHECKING:
    from stanch.agent.executor import Executor

MAX_ATTEMPTS = 10
"""A task that was interrupted so often may be what kills the agent."""

log = structlog.get_logger(__name__)


async def recover(executor: "Executor") -> int:
    """Let every unfinished task go on, and return how many there are."""
    try:
        await executor.tell_damage()
        await executor.policy.look()
        await executor.ledger.prune()
    except Unavailable as error:
        # A full disk: what is to be kept in force is kept all the same, and this is done later.
        log.warning("the journal cannot be written at the start", error=str(error))
    unfinished = await executor.ledger.unfinished()
    for known in unfinished:
        await executor.resume(known)
    if unfinished:
        log.info("tasks go on after a restart", tasks=[known.task.id for known in unfinished])
    return len(unfinished)


async def after_crash(
    known: Known, action: AnyAction, host: Host, params: Params, *, holds_effect: bool
) -> Outcome | None:
    """The outcome of a task that had begun when the agent was killed; None if it must run (again) to have one.

    `holds_effect`: has it put a lasting effect in force, which is lifted if the task is cancelled?
    """
    if known.attempts >= MAX_ATTEMPTS:
        return attempt.interrupted(f"it was begun {known.attempts} times", hint="Look into the agent's log first.")
    if known.cancelled:
        return await _killed_while_cancelled(known, action, host, params, holds_effect=holds_effect)
    if known.task.order.dry_run or action.after_crash is AfterCrash.RERUN:
        return None
    if action.after_crash is not AfterCrash.VERIFY_THEN_FINISH:
        return await _cannot_say(action, host, params)
    check = await attempt.look(action, host, params)
    # In place or absent, it runs again: guided by its record, to complete what is missing and to tell the result.
    return attempt.interrupted(check.detail) if check.verdict is Verdict.CANNOT_TELL else None


async def after_cancel(action: AnyAction, host: Host, params: Params, *, dry_run: bool) -> Outcome | None:
    """The outcome of a task that was stopped on request; None if that came too late and it must run to its end.

    Cancelled means that nothing of it remains. An effect that is already in place is completed rather than denied:
    then the order is done, and can be undone.
    """
    if dry_run or action.read_only:
        return cancelled("it changes nothing")
    check = await attempt.look(action, host, params)
    if check.verdict is Verdict.ABSENT:
        return cancelled(check.detail)
    if check.verdict is Verdict.IN_PLACE and action.after_crash is AfterCrash.VERIFY_THEN_FINISH:
        return None
    return attempt.interrupted(f"it was stopped on request: {check.detail}")


async def _killed_while_cancelled(
    known: Known, action: AnyAction, host: Host, params: Params, *, holds_effect: bool
) -> Outcome | None:
    """The action could not clean up after itself: what is no lasting effect may be left half done."""
    dry_run = known.task.order.dry_run
    outcome = await after_cancel(action, host, params, dry_run=dry_run)
    may_be_left = known.record is not None and not (dry_run or action.read_only or holds_effect)
    if outcome is None or outcome.state is not State.CANCELLED or not may_be_left:
        return outcome
    return attempt.interrupted("it was being stopped, and may have left a part of its work", hint="Order it again.")


def cancelled(detail: str) -> Outcome:
    """It was stopped on request."""
    return Outcome.of(State.CANCELLED, Cancelled("The task was stopped on request", got=detail))


async def _cannot_say(action: AnyAction, host: Host, params: Params) -> Outcome:
    """A program that ran once cannot be run again to find out; and no action offers a way back from its record yet.

    What can be seen of it now is told: whether it still runs, for one.
    """
    check = await attempt.look(action, host, params)
    why = f"{action.command} must not be run again by itself; {check.detail}"
    return attempt.interrupted(why, hint="Look at the endpoint.")
