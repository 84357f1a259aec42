"""Wake-ups inside one process: task changes and progress for whoever listens now."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from stanch.core.rest import TaskEvent

MAX_QUEUED = 10_000


class Subscription:
    """What one listener has not read yet. One that is too slow loses the oldest: the store has the truth."""

    def __init__(self, order: str | None) -> None:
        self.order = order
        self.lost = 0
        self._events: asyncio.Queue[TaskEvent] = asyncio.Queue(MAX_QUEUED)

    def offer(self, event: TaskEvent) -> None:
        """Queue an event if it is of interest."""
        if self.order not in {None, event.order}:
            return
        if self._events.full():
            self._events.get_nowait()
            self.lost += 1
        self._events.put_nowait(event)

    async def next(self) -> TaskEvent:
        """The next event."""
        return await self._events.get()

    async def __aiter__(self) -> AsyncIterator[TaskEvent]:
        while True:
            yield await self._events.get()


class Bus:
    """Publish to everybody who listens; nothing is kept for those who do not."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def listened_to(self) -> bool:
        """Does anybody listen? Otherwise events need not even be made."""
        return bool(self._subscriptions)

    def publish(self, event: TaskEvent) -> None:
        """Hand the event to every listener."""
        for one in self._subscriptions:
            one.offer(event)

    @contextmanager
    def subscribe(self, order: str | None = None) -> Iterator[Subscription]:
        """Listen to one order, or to all."""
        subscription = Subscription(order)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
