"""The audit: who did what, in a chain of hashes that shows every change and every gap."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from stanch.core.errors import VerificationFailed
from stanch.core.rest import AuditEntryView, AuditVerified
from stanch.server.store.tables import audit

FIRST = "0" * 64
"""What stands in place of a hash before the first entry."""

BATCH = 1000
"""Entries in memory while the chain is walked."""

MAX_VALUE = 2000
"""Bytes of one value in an entry's detail; of a larger one it keeps the hash."""

_CHANGED = "Somebody wrote to the database besides the server: compare it with a backup."


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit."""

    at: datetime
    who: str
    what: str
    subject: str
    detail: Mapping[str, Any]


_NEWEST = select(audit.c.hash).order_by(audit.c.n.desc()).limit(1)
_APPEND = insert(audit)


def append(connection: Connection, entry: Entry) -> None:
    """Add an entry, in the unit of work of the change that it tells of."""
    previous = connection.execute(_NEWEST).scalar() or FIRST
    row = {"at": entry.at, "who": entry.who, "what": entry.what, "subject": entry.subject, "detail": dict(entry.detail)}
    connection.execute(_APPEND, {**row, "previous": previous, "hash": chained(previous, entry)})


def chained(previous: str, entry: Entry) -> str:
    """The hash that ties an entry to the one before it."""
    fields = [previous, entry.at.isoformat(), entry.who, entry.what, entry.subject, entry.detail]
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=dict)
    return hashlib.sha256(canonical.encode()).hexdigest()


def brief(value: Any) -> Any:
    """A value in plain JSON, or what recognises it if it is too large for an entry."""
    text = json.dumps(value, sort_keys=True)
    if len(text) <= MAX_VALUE:
        return value
    return {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def verify(connection: Connection) -> AuditVerified:
    """Walk the whole chain; how long it is, or VerificationFailed naming the first entry that does not fit."""
    previous, count = FIRST, 0
    query = select(audit).order_by(audit.c.n).execution_options(yield_per=BATCH)
    with _written_by_us():
        for row in connection.execute(query):
            _fit(row, previous)
            previous, count = row.hash, count + 1
    return AuditVerified(entries=count, newest=previous)


def _fit(row: Row[Any], previous: str) -> None:
    """Raise VerificationFailed unless the entry is what was written after the one with this hash."""
    expected = chained(previous, Entry(at=row.at, who=row.who, what=row.what, subject=row.subject, detail=row.detail))
    if row.previous != previous or row.hash != expected:
        raise VerificationFailed(
            f"Audit entry {row.n} was changed, or one before it removed",
            got=row.hash,
            expected=expected,
            hint=_CHANGED,
        )


def page(connection: Connection, after: int | None, limit: int) -> tuple[list[AuditEntryView], int | None]:
    """Newest first; and the number to go on from. Nothing is verified here but that it can be read."""
    query = select(audit).order_by(audit.c.n.desc()).limit(limit + 1)
    with _written_by_us():
        rows = connection.execute(query if after is None else query.where(audit.c.n < after)).all()
        views = [_view(row) for row in rows[:limit]]
    return views, (views[-1].n if len(rows) > limit else None)


def _view(row: Row[Any]) -> AuditEntryView:
    return AuditEntryView.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's documented accessor


@contextmanager
def _written_by_us() -> Iterator[None]:
    """Call it VerificationFailed if a column holds what we cannot read: no entry was written so."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise VerificationFailed(
            "An audit entry was changed: it cannot be read", got=str(error).partition("\n")[0], hint=_CHANGED
        ) from error
