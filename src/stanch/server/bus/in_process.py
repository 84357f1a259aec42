"""Wake-ups inside one process: task changes and progress for whoever listens now."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from stanch.core.rest import TaskEvent

MAX_QUEUED = 10_000


class Subscription:
    """What one listener has not read yet. One that is too slow loses the oldest: the store has the truth."""

    def __init__(self, order: str | None) -> None:
        self.order = order
        self.lost = 0
        self._events: asyncio.Queue[TaskEvent | None] = asyncio.Queue(MAX_QUEUED)

    def offer(self, event: TaskEvent) -> None:
        """Queue an event if it is of interest."""
        if self.order in {None, event.order}:
            self._put(event)

    def end(self) -> None:
        """There will be no more events."""
        self._put(None)

    def _put(self, event: TaskEvent | None) -> None:
        if self._events.full():
            self._events.get_nowait()
            self.lost += 1
        self._events.put_nowait(event)

    async def next(self) -> TaskEvent | None:
        """The next event; None if there will be no more."""
        return await self._events.get()


class Bus:
    """Publish to everybody who listens; nothing is kept for those who do not."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._closed = False

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
        if self._closed:
            subscription.end()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """Tell every listener, and whoever still comes, that there will be no more: the server stops."""
        self._closed = True
        for one in self._subscriptions:
            one.end()
