"""The group-commit writer: many units of work, one fsync.

Callers hand in a *unit*, a function of a connection that makes changes and returns an answer. One thread takes
whatever is waiting, runs each unit in a savepoint of one transaction, commits, and only then answers: an answer means
that it is on the disk. A unit that raises is undone alone and its error goes to its caller; if the commit itself
fails, nobody is answered and everybody gets that error.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from stanch.core.errors import Unavailable

T = TypeVar("T")
Unit = Callable[[Connection], T]

MAX_BATCH = 500
MAX_WAITING = 100_000


@dataclass(frozen=True, slots=True)
class _Job:
    unit: Unit[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    job: _Job
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Answer the caller, unless it has gone away meanwhile."""
        if self.job.future.done():
            return
        if self.error is not None:
            self.job.future.set_exception(self.error)
        else:
            self.job.future.set_result(self.value)


class Writer:
    """Runs units in groups on a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="stanch-writer", daemon=True)
        self._thread.start()

    async def do(self, unit: Unit[T]) -> T:
        """Run the unit in the next group; its answer, after the commit."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._jobs.put_nowait(_Job(unit, future))
        except queue.Full:
            raise Unavailable(
                "The database cannot keep up", got=f"{MAX_WAITING} changes waiting", hint="Try again in a minute."
            ) from None
        return await future

    def close(self) -> None:
        """Finish everything that is waiting, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            jobs, last = self._take()
            if jobs:
                self._answer(self._group(jobs))
            if last:
                return

    def _take(self) -> tuple[list[_Job], bool]:
        """Whatever waits, at most MAX_BATCH; and whether the end was reached."""
        jobs: list[_Job] = []
        one = self._jobs.get()
        while one is not None:
            jobs.append(one)
            if len(jobs) == MAX_BATCH:
                return jobs, False
            try:
                one = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _group(self, jobs: Sequence[_Job]) -> list[_Outcome]:
        """All units in one transaction; if that fails as a whole, the same error for each."""
        try:
            with self._engine.begin() as connection:
                if len(jobs) == 1:
                    # Alone in its transaction: that is its savepoint.
                    return [_Outcome(jobs[0], value=jobs[0].unit(connection))]
                return [_in_savepoint(connection, job) for job in jobs]
        except BaseException as error:  # noqa: BLE001 - every caller must be told, whatever it was
            return [_Outcome(job, error=error) for job in jobs]

    @staticmethod
    def _answer(outcomes: Sequence[_Outcome]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
        for one in outcomes:
            by_loop.setdefault(one.job.future.get_loop(), []).append(one)
        for loop, ones in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_tell_all, ones)


def _tell_all(outcomes: Sequence[_Outcome]) -> None:
    for one in outcomes:
        one.tell()


def _in_savepoint(connection: Connection, job: _Job) -> _Outcome:
    connection.exec_driver_sql("SAVEPOINT unit")
    try:
        value = job.unit(connection)
    except Exception as error:  # noqa: BLE001 - it goes to the caller
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
        return _Outcome(job, error=error)
    else:
        return _Outcome(job, value=value)
    finally:
        connection.exec_driver_sql("RELEASE SAVEPOINT unit")
