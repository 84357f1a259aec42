"""Numbers that only grow, over restarts, crashes and restored backups, at the price of one commit per block."""

import asyncio

from sqlalchemy import Connection, insert, select, update

from stanch.server.clock import Clock
from stanch.server.store.database import Database
from stanch.server.store.tables import counters

BLOCK = 10_000


class Counter:
    """A named counter. A crash skips the rest of a block; it never repeats a number.

    With a clock, each block begins at the milliseconds since 1970 or later. A database from a backup knows nothing of
    the blocks since: counted on from there, agents would refuse every envelope as older than one that they have.
    """

    def __init__(self, database: Database, name: str, now: Clock | None = None) -> None:
        self._database = database
        self._name = name
        self._now = now
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    async def next(self) -> int:
        """A number larger than any before, from 1."""
        async with self._lock:
            if self._next == self._end:
                self._end = await self._database.write(self._reserve)
                self._next = self._end - BLOCK
            self._next += 1
            return self._next

    def _reserve(self, connection: Connection) -> int:
        mine = counters.c.name == self._name
        reserved = connection.execute(select(counters.c.value).where(mine)).scalar()
        end = max(reserved or 0, self._least()) + BLOCK
        if reserved is None:
            connection.execute(insert(counters), {"name": self._name, "value": end})
        else:
            connection.execute(update(counters).where(mine).values(value=end))
        return end

    def _least(self) -> int:
        return 0 if self._now is None else int(self._now().timestamp() * 1000)
