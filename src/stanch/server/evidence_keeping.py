"""What becomes of evidence that is here: verified on demand, deleted on demand, or deleted when its time is over.

Deleting is two steps. The row says who, when and why, in the commit that also writes the audit; only then the files go.
A crash in between leaves files that nobody can ask for any more, and the sweep removes them: at the start of the server
and every hour. The row stays as a tombstone, with the hash of what was here.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Row, Select, and_, or_, select, update

from stanch.core.errors import Conflict, Invalid, NotFound, TooManyRequests, Unavailable, VerificationFailed
from stanch.core.policy import Principal, reach
from stanch.core.rest_evidence import EvidenceVerdict, EvidenceView
from stanch.core.task import State
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.evidence import Evidence
from stanch.server.previews import readable
from stanch.server.store.database import Database
from stanch.server.store.tables import evidence, tasks
from stanch.server.targets import labels_of

SWEEP_SECONDS = 3600.0
BATCH = 100
"""Evidence that expires in one commit."""
RETENTION = "retention"
"""Who deletes what is too old, in the audit."""
MAX_REASON = 1000
MAX_VERIFYING = 4
"""Verifications at a time: each reads and decrypts all of it."""

_ARRIVING = and_(evidence.c.complete.is_(False), tasks.c.state.in_((State.SENT, State.RUNNING)))

log = structlog.get_logger(__name__)


class EvidenceKeeping:
    """Verifies and deletes evidence."""

    def __init__(
        self, *, folder: Path, evidence: Evidence, database: Database, now: Clock, lasts: timedelta | None = None
    ) -> None:
        self._folder = folder
        self._evidence = evidence
        self._database = database
        self._now = now
        self._lasts = lasts
        self._verifying = 0

    # --- is it whole? ------------------------------------------------------------------------------------------------

    async def verify(self, principal: Principal, evidence_id: str, *, address: str) -> EvidenceVerdict:
        """Read all of it and compare; the verdict is kept with it, and stands in the audit.

        Raises NotFound (also if it is deleted meanwhile), Denied, Conflict while it is incomplete, TooManyRequests.
        """
        view = await self._evidence.show(principal, evidence_id)
        readable(view)
        if self._verifying >= MAX_VERIFYING:
            raise TooManyRequests("Evidence is being verified already", expected=f"at most {MAX_VERIFYING} at once")
        self._verifying += 1
        try:
            verdict = await self._judge(view)
        finally:
            self._verifying -= 1
        readable(await self._evidence.get(evidence_id))  # what is deleted meanwhile is not damaged
        entry = self._entry(principal, "verify", view, address=address, intact=verdict.intact)
        await self._database.write(lambda connection: _note_verdict(connection, verdict, entry))
        return verdict

    async def _judge(self, view: EvidenceView) -> EvidenceVerdict:
        found, problem = None, None
        try:
            found = await self._hash(view)
        except (VerificationFailed, Unavailable) as error:
            problem = str(error)
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
        if found not in {None, view.sha256}:
            problem = "it is not what the endpoint sent"
        return EvidenceVerdict(
            evidence=view.id,
            intact=problem is None,
            size=view.size,
            expected=view.sha256 or "",
            found=found,
            problem=problem,
            at=self._now(),
        )

    async def _hash(self, view: EvidenceView) -> str:
        """SHA-256 of all that a download would bring."""
        digest = hashlib.sha256()
        async for block in await self._evidence.read(view, start=0, length=view.size):
            await asyncio.to_thread(digest.update, block)
        return digest.hexdigest()

    # --- away with it ------------------------------------------------------------------------------------------------

    async def delete(self, principal: Principal, evidence_id: str, *, reason: str, address: str) -> EvidenceView:
        """Remove its bytes for good; what is left of it, which repeating it answers again.

        Raises NotFound, Denied, Conflict while it still arrives, Invalid without a reason.
        """
        if not 0 < len(reason.strip()) <= MAX_REASON:
            raise Invalid("Deleting evidence needs a reason", expected=f"1 to {MAX_REASON} characters")
        view = await self._evidence.show(principal, evidence_id)
        if view.deleted is None:
            entry = self._entry(principal, "evidence-deleted", view, address=address, reason=audit.brief(reason))
            await self._database.write(lambda connection: _bury(connection, principal, entry, reason))
            await self._remove(evidence_id)
        return await self._evidence.get(evidence_id)

    async def run(self) -> None:
        """Delete what is too old, and finish what a crash left half deleted, until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Do it once."""
        if self._lasts is not None:
            query = _too_old(self._now() - self._lasts)
            while rows := await self._database.read(lambda connection: connection.execute(query).all()):
                await self._expire(rows)
        for evidence_id in await self._database.read(lambda connection: list(connection.execute(_HALF).scalars())):
            await self._remove(evidence_id)

    async def _expire(self, rows: Sequence[Row[Any]]) -> None:
        days = 0 if self._lasts is None else self._lasts.days
        why = f"kept for {days} days"
        now = self._now()
        entries = [
            audit.Entry(
                at=now,
                who=RETENTION,
                what="evidence-expired",
                subject=row.id,
                detail={"endpoint": row.endpoint, "size": row.size, "sha256": row.sha256, "days": days},
            )
            for row in rows
        ]
        await self._database.write(lambda connection: _bury_expired(connection, entries, why))
        log.info("evidence expired", count=len(rows), days=days)

    async def _remove(self, evidence_id: str) -> None:
        """Its files, and then the note that they are gone; a failure leaves it to the next sweep."""
        try:
            await asyncio.to_thread(_remove_folder, self._folder / evidence_id)
        except OSError as error:
            log.warning("deleted evidence cannot be removed yet", evidence=evidence_id, error=error.strerror)
            return
        gone = update(evidence).where(evidence.c.id == evidence_id).values(bytes_gone=True)
        await self._database.write(lambda connection: connection.execute(gone))

    def _entry(self, principal: Principal, what: str, view: EvidenceView, **more: object) -> audit.Entry:
        about = {"endpoint": view.endpoint, "size": view.size, "sha256": view.sha256, "origin": principal.origin}
        return audit.Entry(at=self._now(), who=principal.name, what=what, subject=view.id, detail={**about, **more})


def _remove_folder(path: Path) -> None:
    """The files of one piece of evidence, then their folder; it holds no other folders, and only we write there."""
    with suppress(FileNotFoundError):
        for one in path.iterdir():
            one.unlink(missing_ok=True)
        path.rmdir()
    # On the disk before it is noted: after a power cut nobody would look for them again.
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


# --- units of work ---------------------------------------------------------------------------------------------------


def _note_verdict(connection: Connection, verdict: EvidenceVerdict, entry: audit.Entry) -> None:
    values = {"verified": verdict.at, "damage": None} if verdict.intact else {"damage": verdict.problem}
    mine = (evidence.c.id == verdict.evidence, evidence.c.deleted.is_(None))
    connection.execute(update(evidence).where(*mine).values(**values))
    audit.append(connection, entry)


def _bury(connection: Connection, principal: Principal, entry: audit.Entry, reason: str) -> None:
    """Say that it is deleted, unless somebody was faster; everything is looked at again in this unit of work."""
    query = select(evidence, tasks.c.state).join(tasks).where(evidence.c.id == entry.subject)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("There is no such evidence", got=entry.subject)
    reach(principal, labels_of(connection, [row.endpoint]))
    if row.deleted is not None:
        return
    if not row.complete and row.state in {State.SENT, State.RUNNING}:
        raise Conflict(
            "This evidence still arrives",
            got=f"{row.received} of {row.size} bytes, task {row.task} is {row.state}",
            hint="Cancel its order first.",
        )
    _mark(connection, entry, reason)


def _bury_expired(connection: Connection, entries: Sequence[audit.Entry], why: str) -> None:
    for entry in entries:
        row = connection.execute(select(evidence.c.deleted).where(evidence.c.id == entry.subject)).one_or_none()
        if row is not None and row.deleted is None:
            _mark(connection, entry, why)


def _mark(connection: Connection, entry: audit.Entry, why: str) -> None:
    """The tombstone and the audit, together."""
    values = {"deleted": entry.at, "deleted_by": entry.who, "deleted_why": why}
    connection.execute(update(evidence).where(evidence.c.id == entry.subject).values(**values))
    audit.append(connection, entry)


_HALF = select(evidence.c.id).where(evidence.c.deleted.is_not(None), evidence.c.bytes_gone.is_(False))


def _too_old(before: datetime) -> Select[Any]:
    """Some of what was begun before then, and does not arrive any more."""
    return (
        select(evidence.c.id, evidence.c.endpoint, evidence.c.size, evidence.c.sha256)
        .join(tasks)
        .where(evidence.c.created < before, evidence.c.deleted.is_(None), or_(evidence.c.complete, ~_ARRIVING))
        .order_by(evidence.c.id)
        .limit(BATCH)
    )
