"""The audit: who did what, in a chain of hashes that shows every change and every gap."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from stanch.core.errors import VerificationFailed
from stanch.server.store.tables import audit

FIRST = "0" * 64


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


def verify(connection: Connection) -> int:
    """Walk the whole chain; the number of entries, or VerificationFailed naming the first that does not fit."""
    previous, count = FIRST, 0
    for row in connection.execute(select(audit).order_by(audit.c.n)):
        entry = Entry(at=row.at, who=row.who, what=row.what, subject=row.subject, detail=row.detail)
        expected = chained(previous, entry)
        if row.previous != previous or row.hash != expected:
            raise VerificationFailed(
                f"Audit entry {row.n} was changed, or one before it removed", got=row.hash, expected=expected
            )
        previous, count = row.hash, count + 1
    return count
