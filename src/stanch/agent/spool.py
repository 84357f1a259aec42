"""What waits for the server's acknowledgement: reports of tasks and notices, in order, on the disk.

The link sends what is pending, again after each reconnect, and takes away what the server says it has committed. The
spool is bounded. When it is full the oldest notices go first, then old reports that a task has begun, and final
reports last (a task that the server still misses is delivered again, and answered again from the journal); a notice
`spool-overflow` says how many of each are gone.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from pydantic import TypeAdapter

from stanch.agent.clock import AgentClock
from stanch.agent.journal import Journal
from stanch.core.errors import ErrorBody
from stanch.core.frames import Notice, Report
from stanch.core.task import State
from stanch.core.types import Id

MAX_ENTRIES = 100_000
MAX_BYTES = 256 * 1_048_576
MAX_BATCH_BYTES = 4 * 1_048_576
"""What `pending` holds in memory at once, if it is more than one frame."""

UNNUMBERED = 1
"""The number of a frame that is not in the spool yet; the spool gives it its own."""

OVERFLOW = "spool-overflow"

Spooled = Report | Notice

_frames: TypeAdapter[Spooled] = TypeAdapter(Spooled)


class Rank(IntEnum):
    """What is dropped first when the spool is full."""

    NOTICE = 0
    BEGUN = 1
    FINAL = 2
    OVERFLOW = 3
    """The notice that counts the dropped ones; never dropped itself."""


class Spool:
    """The outbox of the agent. One link reads it at a time."""

    def __init__(
        self, journal: Journal, clock: AgentClock, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.changed = asyncio.Event()
        """Set when something was put in; the reader clears it before it asks what is pending."""

    def report(
        self, task: Id, state: State, *, result: Mapping[str, Any] | None = None, error: ErrorBody | None = None
    ) -> Report:
        """A report as of now, to be put into the spool."""
        at = self._clock.stamp().timestamp()
        return Report(seq=UNNUMBERED, task=task, state=state, result=result, error=error, at=at)

    def notice(self, kind: str, detail: Mapping[str, Any]) -> Notice:
        """A notice as of now, to be put into the spool."""
        return Notice(seq=UNNUMBERED, kind=kind, detail=detail, at=self._clock.stamp().timestamp())

    async def put(self, frame: Spooled) -> None:
        """Keep a frame until it is acknowledged, returning when it is on the disk. Its `seq` is replaced."""
        await self._journal.write(f"spool {frame.type}", lambda db: self.insert(db, frame))
        self.changed.set()

    async def put_once(self, report: Report) -> None:
        """The same, unless a final report of this task waits already."""
        query = "SELECT 1 FROM spool WHERE task = ? AND rank = ?"

        def unit(db: sqlite3.Connection) -> None:
            if db.execute(query, (report.task, Rank.FINAL)).fetchone() is None:
                self.insert(db, report)

        await self._journal.write("spool report again", unit)
        self.changed.set()

    def insert(self, db: sqlite3.Connection, frame: Spooled) -> None:
        """The same as part of somebody else's transaction; set `changed` after its commit."""
        _insert(db, frame)
        self._make_room(db)

    async def pending(self, limit: int = 100, *, after: int = 0) -> list[Spooled]:
        """The oldest frames with a number over `after`, in order: at most `limit`, and few enough to be held."""
        rows = await self._journal.read(lambda db: _select(db, limit, after))
        return [_frames.validate_json(frame).model_copy(update={"seq": seq}) for seq, frame in rows]

    async def ack(self, seqs: Iterable[int]) -> None:
        """Forget frames that the server has committed; numbers that are not here are ignored."""
        gone = [(seq,) for seq in seqs if 0 < seq < 2**63]
        if gone:
            await self._journal.write("acknowledged", lambda db: _delete(db, gone))

    def _make_room(self, db: sqlite3.Connection) -> None:
        notices = reports = 0
        while (over := self._over(db)) > 0:
            dropped = [
                rank
                for (rank,) in db.execute(
                    """DELETE FROM spool WHERE seq IN (
                        SELECT seq FROM spool WHERE rank < ? ORDER BY rank, seq LIMIT ?
                    ) RETURNING rank""",
                    (Rank.OVERFLOW, over),
                )
            ]
            if not dropped:
                break
            notices += dropped.count(Rank.NOTICE)
            reports += len(dropped) - dropped.count(Rank.NOTICE)
        if notices or reports:
            self._count_dropped(db, notices, reports)

    def _over(self, db: sqlite3.Connection) -> int:
        """How many frames must go at least."""
        entries, size = db.execute("SELECT entries, bytes FROM spool_total").fetchone()
        return max(int(entries) - self._max_entries, int(size > self._max_bytes))

    def _count_dropped(self, db: sqlite3.Connection, notices: int, reports: int) -> None:
        """One notice counts them all; the numbers grow until it is acknowledged."""
        earlier = db.execute("DELETE FROM spool WHERE rank = ? RETURNING frame", (Rank.OVERFLOW,)).fetchone()
        detail = json.loads(earlier[0])["detail"] if earlier else {"notices": 0, "reports": 0}
        total = {"notices": detail["notices"] + notices, "reports": detail["reports"] + reports}
        _insert(db, self.notice(OVERFLOW, total))


def _rank(frame: Spooled) -> Rank:
    if isinstance(frame, Report):
        return Rank.FINAL if frame.state.final else Rank.BEGUN
    return Rank.OVERFLOW if frame.kind == OVERFLOW else Rank.NOTICE


def _insert(db: sqlite3.Connection, frame: Spooled) -> None:
    text = frame.model_dump_json(exclude_none=True)
    task = frame.task if isinstance(frame, Report) else None
    values = (_rank(frame), task, len(text), text)
    db.execute("INSERT INTO spool (rank, task, size, frame) VALUES (?, ?, ?, ?)", values)


def _delete(db: sqlite3.Connection, seqs: Sequence[tuple[int]]) -> None:
    db.executemany("DELETE FROM spool WHERE seq = ?", seqs)


def _select(db: sqlite3.Connection, limit: int, after: int) -> list[tuple[int, str]]:
    chosen: list[tuple[int, str]] = []
    size = 0
    rows = db.execute("SELECT seq, size, frame FROM spool WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    for seq, length, frame in rows:
        size += length
        if chosen and size > MAX_BATCH_BYTES:
            break
        chosen.append((seq, frame))
    return chosen
