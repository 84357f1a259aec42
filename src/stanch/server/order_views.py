"""Orders and tasks as the API shows them: queries only."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from stanch.core.errors import ErrorBody, NotFound
from stanch.core.rest import OrderView, TaskView
from stanch.core.task import State
from stanch.server.store.tables import endpoints, orders, tasks


def one_order(connection: Connection, order: str) -> OrderView:
    """An order with all its tasks; NotFound."""
    row = connection.execute(select(orders).where(orders.c.id == order)).one_or_none()
    if row is None:
        raise NotFound(f"There is no order {order[:100]}", hint="`stanch orders` lists them.")
    found = connection.execute(_task_query().where(tasks.c.order_id == order).order_by(tasks.c.id))
    views = tuple(_task_view(one) for one in found)
    states: dict[State, int] = {}
    for one in views:
        states[one.state] = states.get(one.state, 0) + 1
    return _order_view(row, states, views)


def page_of_orders(connection: Connection, after: str | None, limit: int) -> tuple[list[OrderView], str | None]:
    """Newest first; and where the next page begins."""
    query = select(orders).order_by(orders.c.id.desc()).limit(limit + 1)
    rows = connection.execute(query if after is None else query.where(orders.c.id < after)).all()
    shown = rows[:limit]
    counts = _counts(connection, [row.id for row in shown])
    views = [_order_view(row, counts.get(row.id, {}), ()) for row in shown]
    return views, (shown[-1].id if len(rows) > limit else None)


def one_task(connection: Connection, task: str) -> TaskView:
    """A task; NotFound."""
    row = connection.execute(_task_query().where(tasks.c.id == task)).one_or_none()
    if row is None:
        raise NotFound(f"There is no task {task[:100]}")
    return _task_view(row)


def _task_query() -> Select[Any]:
    return (
        select(tasks, orders.c.action, endpoints.c.hostname)
        .join(orders, orders.c.id == tasks.c.order_id)
        .join(endpoints, endpoints.c.id == tasks.c.endpoint)
    )


def _counts(connection: Connection, ids: list[str]) -> dict[str, dict[State, int]]:
    query = (
        select(tasks.c.order_id, tasks.c.state, func.count())
        .where(tasks.c.order_id.in_(ids))
        .group_by(tasks.c.order_id, tasks.c.state)
    )
    found: dict[str, dict[State, int]] = {}
    for order, state, count in connection.execute(query):
        found.setdefault(order, {})[State(state)] = count
    return found


def _task_view(row: Row[Any]) -> TaskView:
    return TaskView.model_construct(
        id=row.id,
        order=row.order_id,
        endpoint=row.endpoint,
        hostname=row.hostname,
        action=row.action,
        state=State(row.state),
        cancel_requested=row.cancel_requested,
        result=row.result,
        error=None if row.error is None else ErrorBody.model_validate(row.error),
        created=row.created,
        changed=row.changed,
    )


def _order_view(row: Row[Any], states: Mapping[State, int], views: tuple[TaskView, ...]) -> OrderView:
    return OrderView(
        id=row.id,
        action=row.action,
        params=row.params,
        origin=row.origin,
        solution=row.solution,
        requested_by=row.requested_by,
        reason=row.reason,
        case=row.case,
        dry_run=row.dry_run,
        created=row.created,
        valid_until=row.valid_until,
        states=states,
        tasks=views,
    )
