"""Which evidence key this database belongs to, so that a lost key is never replaced unnoticed.

The public half of every key in use is kept in the database. A data folder that comes back from a backup without its
key would otherwise get a new one, and nobody would know that what is here can no longer be read.
"""

from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine, insert, select, update

from stanch.core.errors import Unavailable
from stanch.core.frames import Encoding
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.custody import KEY_FILE
from stanch.server.store.database import Database
from stanch.server.store.tables import evidence, evidence_keys, evidence_parts

SERVER = "server"
"""Who changes the key, in the audit: the server cannot know who put another file there."""

_NEWEST = select(evidence_keys.c.recipient).order_by(evidence_keys.c.since.desc()).limit(1)
_SEALED = (
    select(evidence_parts.c.evidence)
    .join(evidence, evidence.c.id == evidence_parts.c.evidence)
    .where(evidence_parts.c.encoding != Encoding.PLAIN.value, evidence.c.deleted.is_(None))
    .limit(1)
)

log = structlog.get_logger(__name__)


def refuse_lost_key(engine: Engine, folder: Path) -> None:
    """Unavailable if there is no key, and this database has known one, or holds what was sealed with one."""
    path = folder / KEY_FILE
    if path.exists():
        return
    with engine.connect() as connection:
        known = connection.execute(_NEWEST).scalar()
        if known is None and connection.execute(_SEALED).first() is None:
            return
    raise Unavailable(
        f"The evidence key {path} is missing",
        got="no file",
        expected=f"the key of {known}" if known else "the key that the evidence here was encrypted with",
        hint=f"Bring {KEY_FILE} back from a backup of the data folder: without it nobody can read that evidence, nor "
        f"what endpoints have in quarantine. If it is lost for good, give that up with a new key: "
        f"(umask 077; age-keygen | grep AGE-SECRET-KEY > {path})",
    )


async def note_key(database: Database, recipient: str, now: Clock) -> str | None:
    """Keep in mind that this key is in use; the one before, if that was another. A change stands in the audit."""
    before = await database.write(lambda connection: _note(connection, recipient, now))
    if before is not None:
        log.error("the evidence key is another one than before", before=before, now=recipient)
    return before


def _note(connection: Connection, recipient: str, now: Clock) -> str | None:
    before = connection.execute(_NEWEST).scalar()
    if before == recipient:
        return None
    at, this = now(), evidence_keys.c.recipient == recipient
    again = connection.execute(update(evidence_keys).where(this).values(since=at))
    if not again.rowcount:
        connection.execute(insert(evidence_keys), {"recipient": recipient, "since": at})
    if before is not None:
        detail = {"before": before, "now": recipient}
        audit.append(connection, audit.Entry(at=at, who=SERVER, what="evidence-key", subject=KEY_FILE, detail=detail))
    return None if before is None else str(before)
