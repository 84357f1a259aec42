"""The database: how to open it, and how to read from it without holding up the event loop.

SQLAlchemy's synchronous Core on plain threads: one for the writer, a few for readers. A unit of work is an ordinary
function, and costs one hop to a thread instead of one for each statement.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from stanch.server.store.writer import Writer

T = TypeVar("T")

READERS = 4


class Database:
    """An open database: `read` on a reader's thread, `write` through the group-commit writer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._writing = open_engine(url, pool_size=1)
        self._reading = open_engine(url, pool_size=READERS)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="stanch-reader")
        self.writer = Writer(self._writing)

    @classmethod
    def in_file(cls, path: Path) -> Self:
        """The SQLite database in this file."""
        return cls(f"sqlite:///{path}")

    async def read(self, look: Callable[[Connection], T]) -> T:
        """What `look` finds, in one snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._look, look)

    def _look(self, look: Callable[[Connection], T]) -> T:
        with self._reading.connect() as connection:
            return look(connection)

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """The answer of a unit of work, after its commit."""
        return await self.writer.do(unit)

    def close(self) -> None:
        """Finish what is queued, then let go."""
        self.writer.close()
        self._readers.shutdown()
        self._writing.dispose()
        self._reading.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_engine(url: str, *, pool_size: int) -> Engine:
    """An engine; for SQLite with write-ahead log, full fsync and explicit transactions."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        json_serializer=lambda value: to_json(value).decode(),
        json_deserializer=from_json,
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own BEGIN comes too late for snapshots and savepoints; ours is below.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
