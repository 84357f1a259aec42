"""What came of an order, as blocks and as an exit code. Pure."""

from collections.abc import Iterator

from stanch.actions import load
from stanch.cli.board import amount
from stanch.cli.plain import plain
from stanch.cli.render import Block, Fields, Note, blocks, fields, show, summary, table, words
from stanch.core.action import Plan
from stanch.core.errors import ActionFailed, Cancelled, Expired, Interrupted, Refused, StanchError
from stanch.core.model import Model
from stanch.core.rest import OrderView, TaskProgress, TaskView
from stanch.core.task import State
from stanch.core.types import show_instant

IN_FULL = 5
"""Results of so many tasks are shown whole; of more, one line each."""

_ENDED_AS: dict[State, type[StanchError]] = {
    State.FAILED: ActionFailed,
    State.REFUSED: Refused,
    State.CANCELLED: Cancelled,
    State.EXPIRED: Expired,
    State.UNKNOWN: Interrupted,
}


def exit_code(order: OrderView) -> int:
    """0 when every task is done, else the highest exit code among them."""
    return max((_exit_code(task) for task in order.tasks), default=0)


def _exit_code(task: TaskView) -> int:
    if task.state is State.DONE or not task.state.final:
        return 0
    if task.error is not None:
        return StanchError.from_body(task.error).exit_code or StanchError.exit_code
    return _ENDED_AS[task.state].exit_code


def outcome(order: OrderView) -> Iterator[Block]:
    """The tasks in a table, and results or errors in full when there are few."""
    rows = ((task.hostname, _state(task), _detail(order, task), task.id) for task in order.tasks)
    yield table(("endpoint", "state", "detail", "task"), rows)
    if len(order.tasks) <= IN_FULL:
        for task in order.tasks:
            yield from _in_full(order, task)
    yield Note(f"Order {plain(order.id)}: {states(order)}.")


def states(order: OrderView) -> str:
    """How many of its tasks are where, in words."""
    return words(order.states) + (f" ({order.paused} paused)" if order.paused else "")


def _state(task: TaskView) -> str:
    return "paused" if task.progress is not None and task.progress.paused else str(task.state)


def _progress(told: TaskProgress) -> str:
    since = f" since {show_instant(told.paused_since)}" if told.paused_since is not None else ""
    paused = f"{plain(told.paused, longest=100)}{since}" if told.paused else ""
    return ", ".join(filter(None, [paused, amount(told), plain(told.text, longest=200)]))


def _in_full(order: OrderView, task: TaskView) -> Iterator[Block]:
    title = plain(task.hostname)
    if task.error is not None:
        error = {name: value for name, value in task.error.model_dump().items() if value is not None}
        yield fields(title, **error)
    if task.result is not None:
        title = title if task.error is None else f"{title}, until then"
        typed = parsed(order, task)
        yield from blocks(typed, title=title) if typed else [Fields((("result", show(task.result)),), title)]


def _detail(order: OrderView, task: TaskView) -> str:
    if task.error is not None:
        return plain(task.error.message, longest=100)
    if task.result is None:
        asked = "cancel requested" if task.cancel_requested and not task.state.final else ""
        return ", ".join(filter(None, [asked, _progress(task.progress) if task.progress is not None else ""]))
    typed = parsed(order, task)
    return summary(typed) if typed else ""


def parsed(order: OrderView, task: TaskView) -> Model | None:
    """The typed result; None if this version does not know the action, or not in this form."""
    try:
        if order.dry_run:
            return Plan.model_validate(task.result, extra="ignore")
        found: Model = load().find(order.action).parse_result(task.result or {})
    except (StanchError, ValueError):
        return None
    return found
