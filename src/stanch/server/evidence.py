"""Evidence: bytes taken from endpoints, kept in a folder, in parts that are hashed on the way in.

A part is written to a file of its own, named by number and hash, fsynced, and only then recorded in the database: what
the database knows is on the disk, and a part that comes twice changes nothing. Memory stays flat whatever the size.
Paths are made of our own identifiers only, never of what an endpoint says.
"""

import asyncio
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from stanch.core.errors import Conflict, NotFound, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import PART_BYTES, EvidenceFinish, EvidenceProgress, EvidenceStart, PartInfo
from stanch.core.policy import Principal, reach
from stanch.core.rest import EvidenceView
from stanch.core.task import State
from stanch.core.types import EvidenceRef
from stanch.server.clock import Clock
from stanch.server.evidence_files import fresh_folder, hash_files, pieces, receive, size_of_part, stream
from stanch.server.ids import new_id
from stanch.server.store.database import Database
from stanch.server.store.tables import evidence, evidence_parts, tasks
from stanch.server.targets import carrying, labels_of

MAX_PER_TASK = 1000
KEEP_FREE = 2**28
"""Bytes of the disk that evidence never takes: the database must go on."""

_WRITABLE = (State.SENT, State.RUNNING)


class Evidence:
    """Take evidence in, and give it out."""

    def __init__(self, *, folder: Path, database: Database, now: Clock) -> None:
        self._folder = folder
        self._database = database
        self._now = now

    # --- from endpoints ----------------------------------------------------------------------------------------------

    async def start(self, endpoint: str, request: EvidenceStart) -> EvidenceProgress:
        """Begin, or say how far it is; NotFound unless the task is this endpoint's, Conflict unless it runs."""
        row = {
            "id": new_id("evd", self._now()),
            "task": request.task,
            "endpoint": endpoint,
            "name": request.name,
            "size": request.size,
            "complete": False,
            "received": 0,
            "created": self._now(),
        }
        progress, anew = await self._database.write(lambda connection: _begin(connection, row))
        await asyncio.to_thread(_prepare_folder, self._folder / progress.evidence, anew=anew)
        self._refuse_full_disk(request.size - sum(part.size for part in progress.parts))
        return progress

    async def put_part(
        self, endpoint: str, evidence_id: str, n: int, *, sha256: str, chunks: AsyncIterable[bytes]
    ) -> PartInfo:
        """Keep one part; Conflict if another one was kept under this number, VerificationFailed if the hash differs."""
        row = await self._database.read(lambda connection: _own(connection, endpoint, evidence_id))
        part = PartInfo(n=n, size=size_of_part(row.size, n), sha256=sha256)
        if await self._database.read(lambda connection: _is_kept(connection, evidence_id, part)):
            return part
        self._refuse_full_disk(part.size)
        path = self._part_path(evidence_id, part)
        await receive(path, part, chunks)
        try:
            await self._database.write(lambda connection: _record_part(connection, evidence_id, part))
        except Conflict:
            path.unlink(missing_ok=True)
            raise
        return part

    async def finish(self, endpoint: str, evidence_id: str, whole: EvidenceFinish) -> EvidenceRef:
        """Verify the whole and close it; repeating it is harmless."""
        row = await self._database.read(lambda connection: _own(connection, endpoint, evidence_id))
        if whole.size != row.size:
            raise Conflict("The evidence has another size than was said", got=whole.size, expected=row.size)
        # Hashed once only: to ask again must cost next to nothing.
        found = row.sha256 if row.complete else await self._hash(evidence_id, row.size)
        if found != whole.sha256:
            raise VerificationFailed("The evidence is not what was sent", got=found, expected=whole.sha256)
        await self._database.write(lambda connection: _complete(connection, evidence_id, whole))
        return EvidenceRef(id=evidence_id, name=row.name, size=row.size, sha256=found)

    # --- to people ---------------------------------------------------------------------------------------------------

    async def get(self, evidence_id: str) -> EvidenceView:
        """One piece of evidence; NotFound."""
        return _view(await self._database.read(lambda connection: _one(connection, evidence_id)))

    async def show(self, principal: Principal, evidence_id: str) -> EvidenceView:
        """The same, for somebody; Denied if it was taken from an endpoint that their labels leave out."""
        view = await self.get(evidence_id)
        reach(principal, await self._database.read(lambda connection: labels_of(connection, [view.endpoint])))
        return view

    async def list(
        self,
        *,
        order: str | None = None,
        task: str | None = None,
        after: str | None = None,
        limit: int = 50,
        labels: Sequence[str] = (),
    ) -> tuple[list[EvidenceView], str | None]:
        """Newest first, of endpoints that carry all of these labels; and the id to go on from."""
        query = _page(order, task, after, labels).limit(limit + 1)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        views = [_view(row) for row in rows[:limit]]
        return views, (views[-1].id if len(rows) > limit else None)

    async def read(self, view: EvidenceView, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Bytes of complete evidence, in blocks; Conflict if it is not complete yet."""
        if not view.complete:
            raise Conflict("The evidence is not complete yet", got=f"{view.received} of {view.size} bytes")
        parts = await self._database.read(lambda connection: _parts(connection, view.id))
        paths = [self._part_path(view.id, one) for one in parts]
        return stream(list(pieces(paths, start, length)))

    async def _hash(self, evidence_id: str, size: int) -> str:
        """SHA-256 of all its parts; Conflict if some are missing."""
        parts = await self._database.read(lambda connection: _parts(connection, evidence_id))
        _refuse_gaps(parts, size)
        return await asyncio.to_thread(hash_files, [self._part_path(evidence_id, one) for one in parts])

    def _part_path(self, evidence_id: str, part: PartInfo) -> Path:
        return self._folder / evidence_id / f"{part.n:07}-{part.sha256}"

    def _refuse_full_disk(self, missing: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if missing and missing + KEEP_FREE > free:
            raise Unavailable(
                "The server has no room for this evidence",
                got=f"{missing} bytes, with {free} free",
                hint="Free space on the server's disk, then order it again.",
            )


def _prepare_folder(path: Path, *, anew: bool) -> None:
    """Empty it for what begins anew; otherwise only make it, if a crash came first: a part may be on its way."""
    if anew or not path.exists():
        fresh_folder(path)


# --- units of work ---------------------------------------------------------------------------------------------------


def _begin(connection: Connection, row: dict[str, Any]) -> tuple[EvidenceProgress, bool]:
    """The evidence of this task and name: the one that is there, or a new one; and whether it begins anew."""
    _refuse_task(connection, row["task"], row["endpoint"])
    mine = (evidence.c.task == row["task"], evidence.c.name == row["name"])
    there = connection.execute(select(evidence).where(*mine)).one_or_none()
    if there is None:
        _refuse_too_many(connection, row["task"])
        connection.execute(insert(evidence), row)
        return EvidenceProgress(evidence=row["id"], parts=()), True
    if there.size != row["size"]:
        _start_over(connection, there, row["size"])
        return EvidenceProgress(evidence=there.id, parts=()), True
    parts = tuple(_parts(connection, there.id))
    return EvidenceProgress(evidence=there.id, parts=parts, complete=there.complete), False


def _refuse_task(connection: Connection, task: str, endpoint: str) -> None:
    found = connection.execute(select(tasks.c.endpoint, tasks.c.state).where(tasks.c.id == task)).one_or_none()
    if found is None or found.endpoint != endpoint:
        raise NotFound("This endpoint has no such task", got=task)
    if found.state not in _WRITABLE:
        raise Conflict("The task takes no evidence any more", got=found.state, expected=" or ".join(_WRITABLE))


def _refuse_too_many(connection: Connection, task: str) -> None:
    count = connection.execute(select(func.count()).select_from(evidence).where(evidence.c.task == task)).scalar_one()
    if count >= MAX_PER_TASK:
        raise TooLarge("The task has too much evidence", got=count + 1, expected=f"at most {MAX_PER_TASK}")


def _start_over(connection: Connection, there: Row[Any], size: int) -> None:
    """The source has changed since: what came of its older form is of no use. What is complete stays."""
    if there.complete:
        raise Conflict("This evidence is complete, with another size", got=size, expected=there.size)
    connection.execute(delete(evidence_parts).where(evidence_parts.c.evidence == there.id))
    connection.execute(update(evidence).where(evidence.c.id == there.id).values(size=size, received=0))


def _one(connection: Connection, evidence_id: str) -> Row[Any]:
    row = connection.execute(select(evidence).where(evidence.c.id == evidence_id)).one_or_none()
    if row is None:
        raise NotFound("There is no such evidence", got=evidence_id[:100], hint="`stanch evidence list` lists it.")
    return row


def _own(connection: Connection, endpoint: str, evidence_id: str) -> Row[Any]:
    """The same, if it is this endpoint's: another's does not exist for it."""
    row = _one(connection, evidence_id)
    if row.endpoint != endpoint:
        raise NotFound("There is no such evidence", got=evidence_id[:100], hint="`stanch evidence list` lists it.")
    return row


def _parts(connection: Connection, evidence_id: str) -> list[PartInfo]:
    query = select(evidence_parts).where(evidence_parts.c.evidence == evidence_id).order_by(evidence_parts.c.n)
    return [PartInfo(n=row.n, size=row.size, sha256=row.sha256) for row in connection.execute(query)]


def _is_kept(connection: Connection, evidence_id: str, part: PartInfo) -> bool:
    """Is this very part here already? Conflict if another one is."""
    mine = (evidence_parts.c.evidence == evidence_id, evidence_parts.c.n == part.n)
    kept = connection.execute(select(evidence_parts.c.sha256).where(*mine)).scalar()
    if kept is not None and kept != part.sha256:
        raise Conflict(f"Another part {part.n} is here already", got=part.sha256, expected=kept)
    return kept is not None


def _record_part(connection: Connection, evidence_id: str, part: PartInfo) -> None:
    row = _one(connection, evidence_id)
    if _is_kept(connection, evidence_id, part):
        return
    if row.complete or size_of_part(row.size, part.n) != part.size:
        raise Conflict("The evidence was begun anew, with another size")
    connection.execute(insert(evidence_parts), {"evidence": evidence_id, **part.model_dump()})
    connection.execute(
        update(evidence).where(evidence.c.id == evidence_id).values(received=evidence.c.received + part.size)
    )


def _refuse_gaps(parts: Sequence[PartInfo], size: int) -> None:
    here = {one.n for one in parts}
    missing = [n for n in range(-(-size // PART_BYTES)) if n not in here]
    if missing:
        raise Conflict("Some parts are missing", got=f"{len(here)} parts", expected=f"part {missing[0]} too")


def _complete(connection: Connection, evidence_id: str, whole: EvidenceFinish) -> None:
    """Close it, unless it was begun anew while it was hashed; what was closed keeps its hash."""
    mine = (evidence.c.id == evidence_id, evidence.c.size == whole.size)
    done = connection.execute(update(evidence).where(*mine).values(complete=True, sha256=whole.sha256))
    if not done.rowcount:
        raise Conflict("The evidence was begun anew, with another size")


def _page(order: str | None, task: str | None, after: str | None, labels: Sequence[str]) -> Select[Any]:
    query = select(evidence).order_by(evidence.c.id.desc())
    for label in labels:
        query = query.where(evidence.c.endpoint.in_(carrying(label)))
    if order is not None:
        query = query.join(tasks, tasks.c.id == evidence.c.task).where(tasks.c.order_id == order)
    if task is not None:
        query = query.where(evidence.c.task == task)
    if after is not None:
        query = query.where(evidence.c.id < after)
    return query


def _view(row: Row[Any]) -> EvidenceView:
    return EvidenceView(
        id=row.id,
        task=row.task,
        endpoint=row.endpoint,
        name=row.name,
        size=row.size,
        sha256=row.sha256,
        complete=row.complete,
        received=row.received,
        created=row.created,
    )
