"""The way of a task to its endpoint: claim in the store, sign, hand to the link.

Whoever may have work is put in a set; one loop empties it in chunks. A chunk is one unit of work that moves its tasks
from queued to sent, so that a task is never on the wire without the store knowing. At a reconnect everything that is
not final is delivered again: the agent's journal recognises it by the task.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Connection, select, update

from stanch.core.action import Registry
from stanch.core.envelope import AddressesBody, Body, CancelBody, OrderBody
from stanch.core.errors import Interrupted
from stanch.core.frames import Deliver, FromServer
from stanch.core.isolation import ReleaseCode
from stanch.core.rest import TaskEvent
from stanch.core.task import Event, State, sources, transition
from stanch.server.bus.in_process import Bus
from stanch.server.clock import Clock
from stanch.server.release_codes import CodeBook
from stanch.server.signer import Signer
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints, orders, tasks

CHUNK = 500
BREATH = 50
"""Deliveries between two turns for everybody else."""
MAX_PER_ENDPOINT = 200
"""Tasks of one endpoint handed over at a time, on average; the rest follows when these are on their way."""

SWEEP_SECONDS = 10.0

Send = Callable[[FromServer], Awaitable[None]]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Link:
    """One agent's open link."""

    endpoint: str
    send: Send
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Delivery:
    endpoint: str
    body: Body
    valid_until: datetime | None


class Claimed(NamedTuple):
    """A task that the store calls sent, with what its envelope says."""

    id: str
    endpoint: str
    state: State
    """What it was before."""
    cancel_requested: bool
    order_id: str
    action: str
    params: Mapping[str, Any]
    dry_run: bool
    origin: str
    requested_by: str
    reason: str
    valid_until: datetime


class Dispatcher:
    """Knows the open links and brings tasks to them."""

    def __init__(
        self, *, registry: Registry, database: Database, signer: Signer, codes: CodeBook, bus: Bus, now: Clock
    ) -> None:
        self._registry = registry
        self._codes = codes
        self._database = database
        self._signer = signer
        self._bus = bus
        self._now = now
        self._links: dict[str, Link] = {}
        self._waiting: set[str] = set()
        self._again: dict[str, Link] = {}
        self._ready: deque[Claimed] = deque()
        self._woken = asyncio.Event()

    # --- links -------------------------------------------------------------------------------------------------------

    @contextmanager
    def attach(self, endpoint: str, send: Send, close: Callable[[], None]) -> Iterator[Link | None]:
        """Deliver through this link while it lasts. Yields the older link of the same identity, which is closed."""
        link = Link(endpoint, send, close)
        older = self._links.get(endpoint)
        if older is not None:
            older.close()
        self._links[endpoint] = link
        self._again[endpoint] = link
        self.wake([endpoint])
        try:
            yield older
        finally:
            if self._links.get(endpoint) is link:
                del self._links[endpoint]
                self._again.pop(endpoint, None)

    def attached(self, endpoint: str) -> bool:
        """Is its link up, and has it been told what was left from before?"""
        return endpoint in self._links and endpoint not in self._again

    def link_of(self, endpoint: str) -> Link | None:
        """Its link, if it is up."""
        return self._links.get(endpoint)

    @property
    def linked(self) -> Collection[str]:
        """Whose link is up."""
        return self._links.keys()

    def disconnect(self, endpoint: str) -> None:
        """Close its link, if it has one."""
        link = self._links.get(endpoint)
        if link is not None:
            link.close()

    async def addresses(self, endpoint: str, body: AddressesBody) -> Deliver:
        """The signed answer to a hello; it also sets the agent's time."""
        return Deliver(envelope=await self._signer.envelope(endpoint, body))

    def wake(self, endpoints: Sequence[str]) -> None:
        """There may be work for these."""
        self._waiting.update(one for one in endpoints if one in self._links)
        self._woken.set()

    def deliver(self, claimed: Iterable[Claimed]) -> None:
        """Send these, which were committed as sent."""
        self._ready.extend(claimed)
        self._woken.set()

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._send_ready()
            while self._waiting:
                chunk = [self._waiting.pop() for _ in range(min(CHUNK, len(self._waiting)))]
                await self._claim_chunk(chunk)
                await self._send_ready()

    async def _send_ready(self) -> None:
        while self._ready:
            some = tuple(islice(self._ready, BREATH))
            codes = await self._codes.verifiers(one.id for one in some if self._coded(one))
            for one in some:
                self._ready.popleft()
                try:
                    for delivery in self._deliveries(one, codes.get(one.id)):
                        await self._send(delivery)
                except Exception:
                    # Whatever is wrong with one task, those behind it must go on.
                    log.exception("an order could not be signed", task=one.id)
            # Sending does not wait, so nothing else would get a turn.
            await asyncio.sleep(0)

    def _coded(self, row: Claimed) -> bool:
        """Does its order carry what recognises a release code?"""
        action = self._registry.get(row.action)
        return action is not None and action.release_code and not row.dry_run

    async def _claim_chunk(self, endpoints: Sequence[str]) -> None:
        again = {one: self._again[one] for one in endpoints if one in self._again}
        try:
            await self._claim_all(endpoints, set(again))
        except Exception:
            log.exception("claiming tasks failed; the sweep tries again", endpoints=len(endpoints))
            return
        for one, link in again.items():
            if self._again.get(one) is link:
                del self._again[one]

    async def _claim_all(self, endpoints: Sequence[str], again: set[str]) -> None:
        """Claim page by page: what is open already must not keep newer tasks from being found."""
        after, full = "", True
        while full:
            unit = partial(self._claim, endpoints=endpoints, again=again, after=after)
            found = await self._database.write(unit)
            self._ready += found
            full = len(found) == _page_of(endpoints)
            if full:
                after = found[-1].id
                await self._send_ready()

    async def _send(self, delivery: _Delivery) -> None:
        link = self._links.get(delivery.endpoint)
        if link is None:
            return
        envelope = self._signer.sign(delivery.endpoint, delivery.body, version=None, valid_until=delivery.valid_until)
        try:
            await link.send(Deliver(envelope=envelope))
        except (ConnectionError, RuntimeError) as error:
            # Not lost: the task is `sent`, and is delivered again when the endpoint comes back.
            log.info("link went away during a delivery", endpoint=delivery.endpoint, error=str(error))
            link.close()

    def _claim(
        self, connection: Connection, endpoints: Sequence[str], again: set[str], after: str = ""
    ) -> list[Claimed]:
        """Move queued tasks to sent; them, with what else these endpoints must be told, from a task on."""
        now = self._now()
        found = [
            Claimed._make(row)
            for row in connection.execute(
                select(tasks.c.id, tasks.c.endpoint, tasks.c.state, tasks.c.cancel_requested, *_ORDER)
                .join(orders, orders.c.id == tasks.c.order_id)
                .where(tasks.c.endpoint.in_(endpoints), tasks.c.state.in_(_DELIVERABLE), _wanted(again, now))
                .where(tasks.c.id > after)
                .order_by(tasks.c.id)
                .limit(_page_of(endpoints))
            )
        ]
        queued = [row.id for row in found if row.state == State.QUEUED]
        for at in range(0, len(queued), CHUNK):
            connection.execute(
                update(tasks)
                .where(tasks.c.id.in_(queued[at : at + CHUNK]), tasks.c.state.in_(sources(Event.SEND)))
                .values(state=State.SENT, changed=now)
            )
        return found

    def _deliveries(self, row: Claimed, code: ReleaseCode | None) -> Iterator[_Delivery]:
        if row.cancel_requested:
            yield _Delivery(row.endpoint, CancelBody(task=row.id), None)
        # After a cancel too: the order may have been lost, and only the agent can say that it will not run.
        yield self._order(row, code)

    def _order(self, row: Claimed, code: ReleaseCode | None) -> _Delivery:
        if row.state == State.QUEUED and self._bus.listened_to:
            self._bus.publish(
                TaskEvent(type="task", task=row.id, order=row.order_id, endpoint=row.endpoint, state=State.SENT)
            )
        action = self._registry.get(row.action)
        body = OrderBody(
            task=row.id,
            order=row.order_id,
            action=row.action,
            action_version=action.version if action else 1,
            params=row.params,
            dry_run=row.dry_run,
            origin=row.origin,
            requested_by=row.requested_by,
            reason=row.reason,
            release_code=code,
        )
        return _Delivery(row.endpoint, body, row.valid_until)

    # --- the sweep ---------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Repair what lost wake-ups and silent endpoints leave behind, until cancelled."""
        while True:
            await self.sweep_once()
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep_once(self) -> None:
        """End what was not sent in time, or will not be answered; wake whoever has queued work."""
        ended, waiting = await self._database.write(self._end_overdue)
        for one in ended:
            self._bus.publish(one)
        self.wake([*waiting, *self._again])

    def _end_overdue(self, connection: Connection) -> tuple[Sequence[TaskEvent], Sequence[str]]:
        """What has ended by itself, and who has queued work."""
        now = self._now()
        late = select(orders.c.id).where(orders.c.valid_until < now)
        gone = select(endpoints.c.id).where(endpoints.c.revoked.is_(True))
        ended = [
            *_end(connection, Event.EXPIRE, tasks.c.order_id.in_(late), changed=now),
            *_end(connection, Event.LOSE, tasks.c.endpoint.in_(gone), changed=now, error=_REVOKED),
        ]
        query = select(tasks.c.endpoint).where(tasks.c.state == State.QUEUED).distinct()
        return ended, list(connection.execute(query).scalars())


_REVOKED = Interrupted("The endpoint was revoked before it answered", hint="Look at the machine itself.").body()


def _end(connection: Connection, event: Event, which: ColumnElement[bool], **values: Any) -> list[TaskEvent]:
    """Let this happen to all these tasks, where it can."""
    state = transition(sources(event)[0], event)
    query = update(tasks).where(tasks.c.state.in_(sources(event)), which).values(state=state, **values)
    ended = connection.execute(query.returning(tasks.c.id, tasks.c.order_id, tasks.c.endpoint))
    return [
        TaskEvent(type="task", task=row.id, order=row.order_id, endpoint=row.endpoint, state=state) for row in ended
    ]


def _page_of(endpoints: Sequence[str]) -> int:
    return MAX_PER_ENDPOINT * len(endpoints)


_DELIVERABLE = (State.QUEUED, State.SENT, State.RUNNING)
_ORDER = (
    tasks.c.order_id,
    orders.c.action,
    orders.c.params,
    orders.c.dry_run,
    orders.c.origin,
    orders.c.requested_by,
    orders.c.reason,
    orders.c.valid_until,
)


def _wanted(again: set[str], now: datetime) -> Any:
    """Queued and still valid; or to be cancelled; or everything, for an endpoint that has just come back."""
    fresh = (tasks.c.state == State.QUEUED) & (orders.c.valid_until >= now)
    cancelling = tasks.c.cancel_requested.is_(True)
    return fresh | cancelling | (tasks.c.endpoint.in_(sorted(again)) & (tasks.c.state != State.QUEUED))
