"""Orders: the one way in for every request, and the one way back for every report.

`submit` asks the policy, makes one task per endpoint and its audit entry in a single unit of work, and wakes the
dispatcher after the commit. `report` moves tasks by compare-and-set, so that a report that comes twice, late or for a
task that is already final changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from stanch.core.action import Action, AnyAction, Plan, Registry, invalid_fields
from stanch.core.errors import Conflict, ErrorBody, Invalid, TooLarge
from stanch.core.frames import Report
from stanch.core.model import Model
from stanch.core.policy import Principal, may
from stanch.core.rest import OrderCommon, OrderView, TaskEvent, TaskView
from stanch.core.task import ANSWER_OF, Event, State, sources, transition
from stanch.core.types import Upload
from stanch.server import audit, order_views, targets, uploads
from stanch.server.bus.in_process import Bus
from stanch.server.clock import Clock
from stanch.server.dispatch import Claimed
from stanch.server.ids import new_id
from stanch.server.progress import ProgressBoard
from stanch.server.store.database import Database
from stanch.server.store.tables import orders, tasks

MAX_PARAMS_BYTES = 700_000
"""In JSON; an envelope of 1 MiB holds them."""

MAX_SHOWN_AT_ONCE = 1000
"""Tasks in the answer to a new order; of a larger one it only tells how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """An order that was checked as far as it can be without the database."""

    id: str
    action: AnyAction
    common: OrderCommon
    principal: Principal
    created: datetime
    uploads: Sequence[Upload]
    raw_params: Mapping[str, Any]
    """The parameters as they go over the wire: without the defaults, which an old agent might not know."""
    undoes: str | None = None

    @property
    def valid_until(self) -> datetime:
        return self.created + self.common.valid_for


@dataclass(frozen=True, slots=True)
class _Moved:
    """A task that changed its state."""

    task: str
    order: str
    endpoint: str
    state: State

    def event(self) -> TaskEvent:
        return TaskEvent(type="task", task=self.task, order=self.order, endpoint=self.endpoint, state=self.state)


@dataclass(frozen=True, slots=True)
class _Move:
    """A change that a report asks for."""

    event: Event
    before: State
    moved: _Moved
    row: Mapping[str, Any]

    def correction(self, at: datetime) -> audit.Entry:
        """For the audit, which keeps what was believed before."""
        detail = {"from": self.before, "to": self.moved.state}
        return audit.Entry(at=at, who=self.moved.endpoint, what="correct", subject=self.moved.task, detail=detail)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store knows of a task that is reported on."""

    order: str
    endpoint: str
    state: State
    action: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """A new task; sent at once if the link of its endpoint is up."""

    moved: _Moved
    hostname: str
    sent: bool


class Delivery(Protocol):
    """The way of a task to its endpoint, as orders need it."""

    def attached(self, endpoint: str) -> bool:
        """Is its link up?"""
        ...

    def deliver(self, claimed: Iterable[Claimed]) -> None:
        """Send these, which were committed as sent."""
        ...

    def wake(self, endpoints: Sequence[str]) -> None:
        """There may be work for these."""
        ...


class Orders:
    """Submit, look at, cancel and undo orders; take reports."""

    def __init__(self, *, registry: Registry, database: Database, bus: Bus, now: Clock, delivery: Delivery) -> None:
        self._registry = registry
        self._database = database
        self._bus = bus
        self._now = now
        self._delivery = delivery
        self.progress = ProgressBoard(now)
        """How far those are that run."""

    # --- in ----------------------------------------------------------------------------------------------------------

    async def submit(
        self,
        principal: Principal,
        action_name: str,
        params: Mapping[str, Any],
        common: OrderCommon,
        *,
        undoes: str | None = None,
    ) -> OrderView:
        """Order an action; Invalid, NotFound or Denied if it cannot be. The tasks are committed when this returns.

        The answer shows the tasks if they are few enough to be looked at; `get` shows all.
        """
        action = self._registry.find(action_name)
        parsed, now = action.parse(params), self._now()
        draft = _Draft(
            id=new_id("ord", now),
            action=action,
            # A dry run may name what nobody has uploaded yet: nothing of it is fetched.
            uploads=() if common.dry_run else uploads.named_by(parsed),
            raw_params=parsed.model_dump(mode="json", exclude_defaults=True),
            common=common,
            principal=principal,
            created=now,
            undoes=undoes,
        )
        _refuse_dry_run(draft)
        _refuse_large(draft)
        made = await self._database.write(lambda connection: self._insert(connection, draft))
        self._publish([one.moved for one in made if not one.sent])
        self._delivery.deliver(_claimed(draft, one.moved) for one in made if one.sent)
        # Whoever came while the order was committed has work that nobody told it of.
        self._delivery.wake([one.moved.endpoint for one in made if not one.sent])
        return _view(draft, made)

    async def get(self, order: str) -> OrderView:
        """An order with its tasks; NotFound."""
        return self._with_progress(
            await self._database.read(lambda connection: order_views.one_order(connection, order))
        )

    async def list(self, *, after: str | None = None, limit: int = 50) -> tuple[list[OrderView], str | None]:
        """Orders, newest first, without tasks; and the id to go on from."""
        found, following = await self._database.read(
            lambda connection: order_views.page_of_orders(connection, after, limit)
        )
        paused = self.progress.paused()
        return [one.model_copy(update={"paused": paused.get(one.id, 0)}) for one in found], following

    async def task(self, task: str) -> TaskView:
        """A task; NotFound."""
        found = await self._database.read(lambda connection: order_views.one_task(connection, task))
        return self._told(found)

    def _with_progress(self, view: OrderView) -> OrderView:
        ones = tuple(self._told(one) for one in view.tasks)
        paused = sum(one.progress is not None and bool(one.progress.paused) for one in ones)
        return view.model_copy(update={"tasks": ones, "paused": paused})

    def _told(self, view: TaskView) -> TaskView:
        told = None if view.state.final else self.progress.of(view.id)
        return view if told is None else view.model_copy(update={"progress": told})

    async def cancel(self, principal: Principal, order: str) -> OrderView:
        """Cancel what was not sent, ask the endpoints to stop the rest; Conflict if everything is final already."""
        view = await self.get(order)
        action = self._registry.find(view.action)
        endpoints = sorted({one.endpoint for one in view.tasks})
        moved = await self._database.write(
            lambda connection: self._cancel(connection, principal, action, order, endpoints)
        )
        self._publish(moved)
        self._delivery.wake(endpoints)
        return await self.get(order)

    async def undo(self, principal: Principal, order: str) -> OrderView:
        """Order what takes a finished order back; Conflict with the reason if nothing can."""
        view = await self.get(order)
        action = self._registry.find(view.action)
        done = [one for one in view.tasks if one.state is State.DONE]
        if view.dry_run or not done:
            raise Conflict("There is nothing to undo: no task of this order is done", got=_states(view.tasks))
        back = _ways_back(action, view, done)
        common = OrderCommon(endpoints=tuple(one.endpoint for one in done), reason=f"Undo of {order}", case=view.case)
        return await self.submit(principal, back[0], back[1], common, undoes=order)

    def _cancel(
        self, connection: Connection, principal: Principal, action: AnyAction, order: str, endpoints: Sequence[str]
    ) -> Sequence[_Moved]:
        may(principal, action, targets.labels_of(connection, endpoints))
        now = self._now()
        mine = tasks.c.order_id == order
        moved = connection.execute(
            update(tasks)
            .where(mine, tasks.c.state.in_(sources(Event.CANCEL)))
            .values(state=State.CANCELLED, changed=now, cancel_requested=True)
            .returning(tasks.c.id, tasks.c.endpoint)
        ).all()
        asked = connection.execute(
            update(tasks).where(mine, tasks.c.state.in_((State.SENT, State.RUNNING))).values(cancel_requested=True)
        ).rowcount
        if not moved and not asked:
            raise Conflict("Nothing to cancel: every task of this order is final")
        detail = {"cancelled": len(moved), "asked": asked}
        audit.append(connection, audit.Entry(at=now, who=principal.name, what="cancel", subject=order, detail=detail))
        return [_Moved(row.id, order, row.endpoint, State.CANCELLED) for row in moved]

    def _insert(self, connection: Connection, draft: _Draft) -> Sequence[_Made]:
        """The unit of work: targets, policy, order, tasks, audit."""
        common = draft.common
        found = targets.resolve(connection, common.endpoints, common.labels, common.group)
        may(draft.principal, draft.action, {one: target.labels for one, target in found.items()})
        _refuse_audience(draft, len(found))
        targets.check_confirmed(draft.action, common, found)
        made = [self._make(draft, one, target.hostname) for one, target in found.items()]
        connection.execute(_INSERT_ORDER, _order_row(draft))
        uploads.use(connection, draft.id, draft.uploads, draft.created)
        connection.execute(_INSERT_TASKS, [_task_row(draft, one) for one in made])
        audit.append(connection, _entry(draft, endpoints=len(made)))
        return made

    def _make(self, draft: _Draft, endpoint: str, hostname: str) -> _Made:
        """Queued; and sent in the same breath where a link is up, which saves a commit on the way."""
        sent = self._delivery.attached(endpoint)
        state = transition(State.QUEUED, Event.SEND) if sent else State.QUEUED
        return _Made(_Moved(new_id("tsk", draft.created), draft.id, endpoint, state), hostname, sent)

    # --- back --------------------------------------------------------------------------------------------------------

    async def report(self, endpoint: str, reports: Sequence[Report]) -> None:
        """Take reports of one endpoint; when this returns they are committed, or were known already."""
        await self.report_many([(endpoint, one) for one in reports])

    async def report_many(self, reports: Sequence[tuple[str, Report]]) -> None:
        """The same for several endpoints in one unit of work."""
        moved = await self._database.write(lambda connection: self._take(connection, reports))
        self._publish(moved)

    def _take(self, connection: Connection, reports: Sequence[tuple[str, Report]]) -> Sequence[_Moved]:
        known = _known(connection, [report.task for _, report in reports])
        moves = [move for endpoint, report in reports if (move := self._move(endpoint, report, known))]
        by_event: dict[Event, list[_Move]] = {}
        for one in moves:
            by_event.setdefault(one.event, []).append(one)
        moved = [done for event, ones in by_event.items() for done in _apply(connection, event, ones)]
        for one in moved:
            if one.before is State.UNKNOWN:
                audit.append(connection, one.correction(self._now()))
        return [one.moved for one in moved]

    def _move(self, endpoint: str, report: Report, known: dict[str, _Known]) -> _Move | None:
        """What a report changes; None if nothing: unknown, somebody else's, told before, or too late."""
        event = ANSWER_OF.get(report.state)
        task = known.get(report.task)
        if event is None or task is None or task.endpoint != endpoint or task.state not in sources(event):
            return None
        state, result, error = _checked(report, self._registry.get(task.action), dry_run=task.dry_run)
        known[report.task] = replace(task, state=state)
        row = {"b_task": report.task, "state": state, "result": result, "error": error, "changed": self._now()}
        return _Move(event, task.state, _Moved(report.task, task.order, endpoint, state), row)

    def _publish(self, moved: Sequence[_Moved]) -> None:
        for one in moved:
            if one.state.final:
                self.progress.drop(one.task)
        if self._bus.listened_to:
            for one in moved:
                self._bus.publish(one.event())


def _checked(
    report: Report, action: AnyAction | None, *, dry_run: bool
) -> tuple[State, Model | None, ErrorBody | None]:
    """State, result and error to keep. What an endpoint says is hostile until it fits the action's own types.

    A task that has failed, or was stopped, may tell beside its error what it has found until then; fields that only a
    newer agent knows are left out (`Action.parse_result`).
    """
    if action is None or report.result is None or not report.state.final:
        # Done without a result: it was too large to be sent, and the error says so.
        return report.state, None, report.error
    if report.state is not State.DONE:
        return report.state, _partial(report.result, action, dry_run=dry_run), report.error
    try:
        if dry_run:
            return State.DONE, Plan.model_validate(report.result, extra="ignore"), None
        return State.DONE, action.parse_result(report.result), None
    except ValidationError as error:
        return State.FAILED, None, invalid_fields("The plan is not of its type", error).body()
    except Invalid as error:
        return State.FAILED, None, error.body()


def _partial(result: Mapping[str, Any], action: AnyAction, *, dry_run: bool) -> Model | None:
    """What a task tells that has not come to its end; nothing if that is not of its type: its error counts."""
    if dry_run:
        return None
    try:
        parsed: Model = action.parse_result(result)
    except Invalid:
        return None
    return parsed


_MOVE = {
    event: update(tasks)
    .where(tasks.c.id == bindparam("b_task"), or_(*(tasks.c.state == one for one in sources(event))))
    .values({name: bindparam(name) for name in ("state", "result", "error", "changed")})
    for event in Event
}
"""One compare-and-set per event, compiled once."""


def _apply(connection: Connection, event: Event, moves: Sequence[_Move]) -> Sequence[_Move]:
    """Those of the moves that still were possible."""
    together = connection.execute(_MOVE[event], [dict(one.row) for one in moves])
    if together.rowcount == len(moves):
        return moves
    # Somebody else moved one of them meanwhile, which only another replica can: whose row is ours now says its time.
    query = select(tasks.c.id, tasks.c.state, tasks.c.changed).where(tasks.c.id.in_([one.moved.task for one in moves]))
    now = {row.id: (row.state, row.changed) for row in connection.execute(query)}
    return [one for one in moves if now.get(one.moved.task) == (one.moved.state, one.row["changed"])]


def _refuse_dry_run(draft: _Draft) -> None:
    if draft.common.dry_run and draft.action.plan is None:
        raise Invalid(f"{draft.action.name} has no dry run: it only reads", hint="Order it without --dry-run.")


def _refuse_audience(draft: _Draft, endpoints: int) -> None:
    """A person sits at one terminal at a time."""
    if draft.action.interactive and not draft.common.dry_run and endpoints != 1:
        raise Invalid(
            f"{draft.action.name} is for one endpoint at a time", got=f"{endpoints} endpoints", expected="one endpoint"
        )


def _refuse_large(draft: _Draft) -> None:
    """An envelope must hold it, in base64 and beside the rest."""
    size = len(to_json(draft.raw_params))
    if size > MAX_PARAMS_BYTES:
        raise TooLarge("The parameters are too large", got=f"{size} bytes", expected=f"at most {MAX_PARAMS_BYTES}")


def _order_row(draft: _Draft) -> dict[str, Any]:
    return {
        "id": draft.id,
        "action": draft.action.name,
        "params": draft.raw_params,
        "origin": draft.principal.origin,
        "solution": draft.principal.solution,
        "requested_by": draft.principal.name,
        "reason": draft.common.reason,
        "case": draft.common.case,
        "dry_run": draft.common.dry_run,
        "created": draft.created,
        "valid_until": draft.valid_until,
        "undoes": draft.undoes,
    }


def _entry(draft: _Draft, *, endpoints: int) -> audit.Entry:
    """For the audit: what, on how many endpoints, and how they were chosen; large parameters stand in the order."""
    common = draft.common
    detail = {
        "action": draft.action.name,
        "params": {name: audit.brief(value) for name, value in draft.raw_params.items()},
        "endpoints": endpoints,
        "reason": common.reason,
        **({"group": common.group} if common.group else {}),
        **({"labels": list(common.labels)} if common.labels else {}),
        **({"dry_run": True} if common.dry_run else {}),
        **({"confirm": common.confirm} if common.confirm is not None else {}),
    }
    return audit.Entry(at=draft.created, who=draft.principal.name, what="order", subject=draft.id, detail=detail)


def _task_row(draft: _Draft, made: _Made) -> dict[str, Any]:
    return {
        "id": made.moved.task,
        "order_id": draft.id,
        "endpoint": made.moved.endpoint,
        "state": made.moved.state,
        "cancel_requested": False,
        "created": draft.created,
        "changed": draft.created,
    }


def _claimed(draft: _Draft, task: _Moved) -> Claimed:
    return Claimed(
        id=task.task,
        endpoint=task.endpoint,
        state=State.QUEUED,
        cancel_requested=False,
        order_id=draft.id,
        action=draft.action.name,
        params=draft.raw_params,
        dry_run=draft.common.dry_run,
        origin=draft.principal.origin,
        requested_by=draft.principal.name,
        reason=draft.common.reason,
        valid_until=draft.valid_until,
    )


def _view(draft: _Draft, made: Sequence[_Made]) -> OrderView:
    """What was committed, as the API shows it; without tasks if they are too many to be looked at."""
    few = made if len(made) <= MAX_SHOWN_AT_ONCE else ()
    states = Counter(one.moved.state for one in made)
    return OrderView.model_validate(
        {**_order_row(draft), "states": states, "tasks": [_task(draft, one) for one in few]}
    )


def _task(draft: _Draft, made: _Made) -> TaskView:
    return TaskView(
        id=made.moved.task,
        order=draft.id,
        endpoint=made.moved.endpoint,
        hostname=made.hostname,
        action=draft.action.name,
        state=made.moved.state,
        created=draft.created,
        changed=draft.created,
    )


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, _Known]:
    return {
        task: _Known(order, endpoint, State(state), action, dry_run)
        for task, endpoint, state, order, action, dry_run in connection.execute(_KNOWN, {"ids": ids})
    }


_KNOWN = (
    select(tasks.c.id, tasks.c.endpoint, tasks.c.state, tasks.c.order_id, orders.c.action, orders.c.dry_run)
    .join(orders, orders.c.id == tasks.c.order_id)
    .where(tasks.c.id.in_(bindparam("ids", expanding=True)))
)
_INSERT_ORDER, _INSERT_TASKS = insert(orders), insert(tasks)


def _states(ones: Sequence[TaskView]) -> str:
    return ", ".join(sorted({one.state for one in ones})) or "no tasks"


def _ways_back(action: Action[Any, Any], view: OrderView, done: Sequence[TaskView]) -> tuple[str, dict[str, Any]]:
    """The one action and parameters that take all these tasks back; Conflict if there is none, or not one for all."""
    params = action.parse(view.params)
    backs = [action.undo_params(params, action.parse_result(one.result or {})) for one in done]
    ways = [(back[0], back[1].model_dump(mode="json", exclude_defaults=True)) for back in backs if back is not None]
    if not ways:
        why = getattr(action.undo, "why", "it changed nothing")
        raise Conflict(f"{action.name} cannot be undone here", got=why)
    if any(way != ways[0] for way in ways):
        raise Conflict("The endpoints need different parameters to be undone", hint="Undo them one by one.")
    return ways[0]
