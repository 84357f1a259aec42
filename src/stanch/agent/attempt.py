"""One attempt at a task: run its action on a host, look whether the effect is there, say truthfully how it ended."""

import structlog

from stanch.agent.tasks import Outcome
from stanch.core.action import AnyAction, Check, Params, Plan, Step, Verdict
from stanch.core.errors import (
    ActionFailed,
    Cancelled,
    Interrupted,
    Invalid,
    NotVerified,
    Refused,
    StanchError,
    TooLarge,
)
from stanch.core.frames import MAX_FRAME_BYTES
from stanch.core.host import Host
from stanch.core.task import State

MAX_RESULT_BYTES = MAX_FRAME_BYTES - 65_536
"""What fits into one report."""

log = structlog.get_logger(__name__)


async def run(action: AnyAction, host: Host, params: Params) -> Outcome:
    """Run the action and verify its effect. Every exception becomes an outcome; only cancellation passes."""
    try:
        result = await action(host, params)
        size = len(result.model_dump_json().encode())
        check = await _verified(action, host, params, result)
    except Exception as error:  # noqa: BLE001 - whatever an action raises is its outcome
        return failure(error)
    if size > MAX_RESULT_BYTES:
        return _too_large(action, size)
    plain = result.model_dump(mode="json")
    if check is not None and check.verdict is Verdict.ABSENT:
        absent = NotVerified("The action ran, but its effect was not seen", got=check.detail)
        return Outcome.of(State.FAILED, absent, result=plain)
    if check is not None and check.verdict is Verdict.CANNOT_TELL:
        doubt = NotVerified("The action ran, but whether its effect is in place cannot be told", got=check.detail)
        return Outcome.of(State.UNKNOWN, doubt, result=plain)
    return Outcome(state=State.DONE, result=plain)


async def plan(action: AnyAction, host: Host, params: Params) -> Outcome:
    """What the action would touch; nothing is changed."""
    try:
        found = await action.plan(host, params) if action.plan else _reads_only(action)
        return Outcome(state=State.DONE, result=found.model_dump(mode="json"))
    except Exception as error:  # noqa: BLE001 - whatever an action raises is its outcome
        return failure(error)


async def look(action: AnyAction, host: Host, params: Params) -> Check:
    """Is the effect of an attempt that was cut short in place? What cannot be looked at cannot be told."""
    if action.verify is None:
        return Check(Verdict.CANNOT_TELL, "the action has no way to look")
    try:
        return await action.verify(host, params, None)
    except Exception as error:
        log.exception("looking for an effect failed", action=action.name)
        return Check(Verdict.CANNOT_TELL, f"{type(error).__name__}: {error}")


def failure(error: Exception) -> Outcome:
    """The outcome that an exception is. Of a foreign one only its text leaves the endpoint; the log has the rest."""
    if isinstance(error, Refused | Invalid):
        return Outcome.of(State.REFUSED, error)
    if isinstance(error, Cancelled):
        return Outcome.of(State.CANCELLED, error)
    if isinstance(error, StanchError):
        return Outcome.of(State.FAILED, error)
    log.error("an action failed unexpectedly", exc_info=error)
    text = f"{type(error).__name__}: {error}"
    return Outcome.of(
        State.FAILED, ActionFailed("The action failed unexpectedly", got=text, hint="See the agent's log.")
    )


def interrupted(why: str, *, hint: str | None = None) -> Outcome:
    """Nobody can tell how far it got."""
    error = Interrupted("The agent stopped in the middle, and the effect cannot be told", got=why, hint=hint)
    return Outcome.of(State.UNKNOWN, error)


async def _verified(action: AnyAction, host: Host, params: Params, result: object) -> Check | None:
    """What `verify` saw after the run; None for an action that changes nothing to be seen."""
    if action.verify is None:
        return None
    try:
        return await action.verify(host, params, result)
    except Exception as error:
        log.exception("verifying an action failed", action=action.name)
        return Check(Verdict.CANNOT_TELL, f"{type(error).__name__}: {error}")


def _too_large(action: AnyAction, size: int) -> Outcome:
    """Of a read-only action the result is all there is; a change is in place, whether or not its result can be told."""
    hint = "Narrow it by its parameters." if action.read_only else "The effect is in place; only its result is lost."
    error = TooLarge("The result is too large to be sent", got=size, expected=f"at most {MAX_RESULT_BYTES}", hint=hint)
    return Outcome.of(State.FAILED if action.read_only else State.DONE, error)


def _reads_only(action: AnyAction) -> Plan:
    return Plan(changes=False, steps=(Step(what="Read, and change nothing", target=action.name),))
