"""How many tasks of a kind run beside each other: exclusive ones one at a time, so that a hung one blocks no other."""

import asyncio
from collections.abc import Mapping

from stanch.core.action import Concurrency

WIDTHS: Mapping[Concurrency, int] = {
    Concurrency.EXCLUSIVE: 1,
    Concurrency.SHARED: 32,
    Concurrency.BACKGROUND: 2,
}


class Lanes:
    """First come, first served, per kind of concurrency."""

    def __init__(self, widths: Mapping[Concurrency, int] = WIDTHS) -> None:
        self._slots = {kind: asyncio.Semaphore(width) for kind, width in widths.items()}

    def is_free(self, kind: Concurrency) -> bool:
        """Would `enter` return at once?"""
        return not self._slots[kind].locked()

    async def enter(self, kind: Concurrency) -> None:
        """Wait for a slot."""
        await self._slots[kind].acquire()

    def leave(self, kind: Concurrency) -> None:
        """Give the slot back."""
        self._slots[kind].release()
