"""Numbers that only grow, over restarts and crashes, at the price of one commit per block."""

import asyncio

from sqlalchemy import Connection, insert, select, update

from stanch.server.store.database import Database
from stanch.server.store.tables import counters

BLOCK = 10_000


class Counter:
    """A named counter. A crash skips the rest of a block; it never repeats a number."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
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
        if reserved is None:
            connection.execute(insert(counters), {"name": self._name, "value": BLOCK})
            return BLOCK
        connection.execute(update(counters).where(mine).values(value=reserved + BLOCK))
        return int(reserved) + BLOCK
