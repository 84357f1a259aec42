"""Logins in SQLite files: wtmpdb(8) and lastlog2(8), which take the place of wtmp and lastlog on newer systems.

The file is read whole, within a bound, and opened in memory: nothing is locked or written, and no journal is believed.
Whatever is in it, the answer is rows of the types that are asked for; the time that it takes is bounded.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final

from stanch.agent.host.login_records import Record, Type, address_in

MAX_FILE: Final = 16 * 2**20
"""Bytes of such a file."""
MAX_ROWS: Final = 50_000
_MAX_STEPS: Final = 2000
"""Thousands of steps of the database's machine."""
_HEADER: Final = b"SQLite format 3\0"
_MAX_TEXT: Final = 1_000_000
_TYPES: Final = {1: Type.BOOT_TIME, 2: Type.RUN_LVL, 3: Type.USER_PROCESS}
_MICROSECONDS: Final = 1_000_000
_LONGEST: Final = 1000


def sessions(raw: bytes) -> Sequence[tuple[Record, int | None]]:
    """The records of a wtmpdb, newest last, each with when it ended."""
    rows = _rows(raw, "SELECT Type, User, Login, Logout, TTY, RemoteHost FROM wtmp ORDER BY Login DESC LIMIT ?")
    return [(_record(row), _seconds(row[3], _MICROSECONDS)) for row in reversed(rows)]


def last_logins(raw: bytes) -> Mapping[str, int]:
    """Account to when it logged in last, by a lastlog2."""
    rows = _rows(raw, "SELECT Name, Time FROM Lastlog2 LIMIT ?")
    return {_text(name): when for name, time in rows if (when := _seconds(time, 1))}


def _record(row: Sequence[object]) -> Record:
    kind, user, login, _logout, line, host = row
    named = _TYPES.get(kind, kind) if isinstance(kind, int) else 0
    return Record(
        type=named,
        line=_text(line),
        user=_text(user),
        host=_text(host),
        time=_seconds(login, _MICROSECONDS) or 0,
        address=address_in(_text(host)),
    )


def _seconds(value: object, parts: int) -> int | None:
    return value // parts if isinstance(value, int) and value > 0 else None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value[:_LONGEST] if isinstance(value, str) else ""


def _rows(raw: bytes, query: str) -> Sequence[Sequence[object]]:
    """All rows that can be read before something is wrong with the file."""
    found = list[Sequence[object]]()
    if len(raw) > MAX_FILE or not raw.startswith(_HEADER):
        return found
    with suppress(sqlite3.Error), _opened(raw) as database:
        found.extend(database.execute(query, (MAX_ROWS,)))
    return found


@contextmanager
def _opened(raw: bytes) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.text_factory = bytes
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_TEXT)
        steps = iter(range(_MAX_STEPS))
        database.set_progress_handler(lambda: next(steps, None) is None, 1000)
        # In memory there is no write-ahead log: as if it had none.
        database.deserialize(raw[:18] + b"\1\1" + raw[20:])
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA query_only = ON")
        yield database
