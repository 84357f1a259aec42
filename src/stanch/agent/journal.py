"""The agent's journal: one SQLite file that survives `kill -9` and power loss, and the only durable memory it has.

Everything that must not be forgotten goes through `Journal.write`: one unit of work is one transaction, on the disk
(WAL, synchronous FULL) before the call returns. The tables belong to those who use them: tasks.py, effects.py and
spool.py hand in functions that work on the connection, so that "the task is finished" and "its report waits for the
server" can be one transaction. Small values by key (the clock, versions, keys) live in `entries`.

SQLite runs in a thread of its own: an fsync that takes a second must not stop the event loop.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog

from stanch.core.errors import Unavailable

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], T]
"""A unit of work on the connection, inside a transaction that somebody else begins and ends."""

Step = Callable[[str], None]
"""Told before and after each commit: the seam at which tests kill the process."""

KEEP_DAMAGED = 3
"""Damaged files kept for those who want to look at them; older ones are removed."""

DAMAGE = "damage"
"""The entry that says why the journal was started anew, until a notice has said it to the server."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE tasks (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            task TEXT NOT NULL,
            iat INTEGER NOT NULL,
            exp INTEGER,
            phase TEXT NOT NULL CHECK (phase IN ('accepted', 'begun', 'finished')),
            attempts INTEGER NOT NULL DEFAULT 0,
            cancelled INTEGER NOT NULL DEFAULT 0,
            record TEXT,
            begun_at REAL,
            finished_at REAL,
            outcome TEXT
        ) STRICT""",
        "CREATE INDEX tasks_open ON tasks (number) WHERE phase <> 'finished'",
        "CREATE INDEX tasks_finished ON tasks (number) WHERE phase = 'finished'",
        """CREATE TABLE effects (
            name TEXT PRIMARY KEY,
            effect TEXT NOT NULL,
            lasts REAL,
            remaining REAL,
            boot_seconds REAL NOT NULL,
            boot_id TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        # AUTOINCREMENT: a number that was acknowledged is never given to another frame.
        """CREATE TABLE spool (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            rank INTEGER NOT NULL,
            task TEXT,
            size INTEGER NOT NULL,
            frame TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX spool_rank ON spool (rank, seq)",
        "CREATE INDEX spool_task ON spool (task) WHERE task IS NOT NULL",
        # Counting a full spool for every report would be slow; triggers keep the totals inside the transaction.
        "CREATE TABLE spool_total (entries INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT",
        "INSERT INTO spool_total VALUES (0, 0)",
        """CREATE TRIGGER spool_grows AFTER INSERT ON spool BEGIN
            UPDATE spool_total SET entries = entries + 1, bytes = bytes + NEW.size;
        END""",
        """CREATE TRIGGER spool_shrinks AFTER DELETE ON spool BEGIN
            UPDATE spool_total SET entries = entries - 1, bytes = bytes - OLD.size;
        END""",
    ),
)
"""The statements that lead from each schema version to the next; `PRAGMA user_version` counts them."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

log = structlog.get_logger(__name__)


class Damaged(Exception):
    """The file is no journal any more."""


class Journal:
    """The durable memory of one agent.

    A damaged file is moved aside and a new one begun; `damage` then says why, until it was reported.
    """

    def __init__(self, path: Path, *, step: Step = lambda _what: None) -> None:
        self._path = path
        self._step = step
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._staged: dict[str, Any] = {}
        try:
            self._db, self._entries = self._thread.submit(self._open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    # --- entries ---

    @property
    def damage(self) -> str | None:
        """Why an earlier journal was moved aside, or None."""
        damage: str | None = self.get(DAMAGE)
        return damage

    def get(self, key: str) -> Any:
        """The value of a key, or None. Never waits: entries are few and held in memory."""
        return self._entries.get(key)

    def stage(self, key: str, value: Any) -> None:
        """Set a value that goes to the disk with the next transaction, whosever that is."""
        self._entries[key] = self._staged[key] = value

    async def put(self, entries: Mapping[str, Any]) -> None:
        """Set values, returning when they are on the disk."""
        for key, value in entries.items():
            self.stage(key, value)
        await self.write("entries", lambda _db: None)

    # --- units of work ---

    async def write(self, what: str, unit: Unit[T]) -> T:
        """Run a unit of work as one transaction, on the disk when this returns; Unavailable if it cannot be.

        A unit that has begun ends, even if the caller is cancelled: what is in memory and what is on the disk must
        not part.
        """
        staged, self._staged = self._staged, {}
        try:
            return await self._in_thread(lambda: self._commit(what, unit, staged))
        except Exception:
            # Not written, so due again, unless a newer value already waits.
            self._staged |= {key: self._entries[key] for key in staged}
            raise

    async def read(self, unit: Unit[T]) -> T:
        """Ask the database; Unavailable if it does not answer."""
        return await self._in_thread(lambda: self._ask(unit))

    def read_at_start(self, unit: Unit[T]) -> T:
        """Ask the database while there is no event loop to be kept waiting."""
        return self._thread.submit(self._ask, unit).result()

    async def close(self) -> None:
        """Write what is staged and let go of the file."""
        try:
            if self._staged:
                await self.write("close", lambda _db: None)
        finally:
            await self._in_thread(self._db.close)
            self._thread.shutdown()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled() and future.exception() is not None:
                log.warning("a journal unit of a cancelled caller failed", error=str(future.exception()))
            raise

    def _commit(self, what: str, unit: Unit[T], staged: Mapping[str, Any]) -> T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            _store_entries(self._db, staged)
            value = unit(self._db)
            self._step(f"before commit: {what}")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _unavailable("written", error) from error
        except BaseException:
            self._roll_back()
            raise
        self._step(f"after commit: {what}")
        return value

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def _ask(self, unit: Unit[T]) -> T:
        try:
            return unit(self._db)
        except sqlite3.Error as error:
            raise _unavailable("read", error) from error

    # --- opening ---

    def _open(self) -> tuple[sqlite3.Connection, dict[str, Any]]:
        try:
            return self._open_sound()
        except Damaged as error:
            damage = str(error)
        aside = _move_aside(self._path)
        log.error("the journal is damaged and was started anew", damage=damage, kept=str(aside))
        return self._open_sound(damage=f"{damage}; kept as {aside.name}")

    def _open_sound(self, *, damage: str | None = None) -> tuple[sqlite3.Connection, dict[str, Any]]:
        db = _connect(self._path)
        try:
            _prepare(db, damage)
            rows = db.execute("SELECT key, value FROM entries")
            return db, {key: json.loads(value) for key, value in rows}
        except BaseException as error:
            db.close()
            if isinstance(error, sqlite3.Error):
                raise (Damaged(str(error)) if _says_damaged(error) else _unavailable("opened", error)) from error
            if isinstance(error, ValueError):
                raise Damaged(f"an entry is no JSON: {error}") from error
            raise


def _connect(path: Path) -> sqlite3.Connection:
    try:
        if path.exists() and path.stat().st_size == 0:
            raise Damaged("the file is empty")
        path.touch(mode=0o600)
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    except (OSError, sqlite3.Error) as error:
        raise _unavailable("opened", error) from error


def _prepare(db: sqlite3.Connection, damage: str | None) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF", "journal_size_limit = 16777216"):
        db.execute(f"PRAGMA {pragma}")
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(str(found))
    db.execute("BEGIN IMMEDIATE")
    migrate(db)
    # In the transaction that makes the tables: a crash before the notice must not hide the damage.
    _store_entries(db, {DAMAGE: damage} if damage else {})
    db.execute("COMMIT")


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema to this version inside a transaction; Unavailable if the file is from a newer agent."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise Unavailable(
            "The journal was written by a newer agent",
            got=f"schema {version}",
            expected=f"at most {len(MIGRATIONS)}",
            hint="Install the newer agent again; moving the journal away forgets which tasks were done.",
        )
    if version == len(MIGRATIONS):
        return  # nothing is written: the agent must start on a full disk, too
    for statement in (one for statements in MIGRATIONS[version:] for one in statements):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _store_entries(db: sqlite3.Connection, entries: Mapping[str, Any]) -> None:
    gone = [(key,) for key, value in entries.items() if value is None]
    rows = [(key, json.dumps(value)) for key, value in entries.items() if value is not None]
    db.executemany("DELETE FROM entries WHERE key = ?", gone)
    db.executemany("INSERT INTO entries VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", rows)


def _says_damaged(error: sqlite3.Error) -> bool:
    primary_code = 0xFF
    return getattr(error, "sqlite_errorcode", 0) & primary_code in _DAMAGED


def _unavailable(what: str, error: Exception) -> Unavailable:
    hint = "Look at the file system of the agent's state: space, permissions, read-only."
    return Unavailable(f"The agent's journal cannot be {what}", got=error, hint=hint)


def _move_aside(path: Path) -> Path:
    """Rename the damaged file and its write-ahead log, and remove the oldest of too many."""
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*"), key=_number)
    number = _number(kept[-1]) + 1 if kept else 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        # A log of the old file must not be replayed into the new one. (If we die here: SQLite itself throws the log of
        # a missing file away.)
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for old in kept[: -KEEP_DAMAGED + 1]:
        old.unlink(missing_ok=True)
    return aside


def _number(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0
