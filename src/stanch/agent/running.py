"""A task that runs: it can be stopped at any time, and nothing waits for it longer than its limit and a grace."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from stanch.agent.tasks import Outcome, Task, TaskJournal
from stanch.core.action import AnyAction, Params
from stanch.core.types import seconds

T = TypeVar("T")

GRACE = seconds(5)
"""How long what was stopped may take to clean up after itself."""


class Stopped(Exception):
    """It was stopped before its end: at its limit, or by a cancel."""

    def __init__(self, child: asyncio.Task[Any], *, timed_out: bool) -> None:
        super().__init__("stopped")
        self.child = child
        self.timed_out = timed_out
        """False if it gave up by itself."""

    @property
    def abandoned(self) -> bool:
        """Does it ignore that it was stopped, and still run?"""
        return not self.child.done()


class Running:
    """One task on its way from the journal to its outcome."""

    def __init__(
        self,
        task: Task,
        action: AnyAction,
        params: Params,
        *,
        group: asyncio.TaskGroup,
        journal: TaskJournal,
        grace: timedelta = GRACE,
    ) -> None:
        self.task = task
        self.action = action
        self.params = params
        self.journal = journal
        self.cancelled = False
        """Somebody asked to stop it."""
        self.ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        """Its outcome, once that is on the disk."""
        self.abandoned: asyncio.Task[Any] | None = None
        """Its work, if that ignores that it was stopped."""
        self._group = group
        self._grace = grace
        self._timeout: asyncio.Timeout | None = None

    def cancel(self) -> None:
        """Stop it, whether it waits or runs. Repeating it is harmless."""
        if not self.cancelled:
            self.cancelled = True
            self.cut_short()

    def cut_short(self) -> None:
        """Let the limit of what runs now be reached at once."""
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def wait_for(self, turn: Coroutine[Any, Any, None]) -> bool:
        """Wait for its turn; False if it was cancelled meanwhile."""
        if self.cancelled:
            turn.close()
            return False
        try:
            async with asyncio.timeout(None) as self._timeout:
                await turn
        except TimeoutError:
            return False
        finally:
            self._timeout = None
        return True

    async def within(self, limit: timedelta, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, at most this long; Stopped if it was cut short.

        Work that ends by itself while it is being stopped has its own, truer outcome.
        """
        timed_out = False
        child = self._group.create_task(work)
        try:
            async with asyncio.timeout(limit.total_seconds()) as self._timeout:
                await asyncio.wait({child})
        except TimeoutError:
            timed_out = True
            child.cancel()
            await asyncio.wait({child}, timeout=self._grace.total_seconds())
        finally:
            self._timeout = None
        if not child.done() or child.cancelled():
            raise Stopped(child, timed_out=timed_out)
        return child.result()
