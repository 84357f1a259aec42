"""Evidence: bytes taken from endpoints, kept in a folder, in encrypted parts that are hashed on the way in.

A part is written to a file of its own, named by number and hash, fsynced, and only then recorded in the database: what
the database knows is on the disk, and a part that comes twice changes nothing. Memory stays flat whatever the size.
Paths are made of our own identifiers only, never of what an endpoint says.

Taking evidence in needs no key: that every part is here is all that is looked at. Reading it does, and there each part
is compared with the hash that the endpoint took of it, and all of it (by whoever downloads or verifies it) with the
hash of the whole.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from stanch.core.errors import Conflict, Denied, NotFound, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import (
    PART_BYTES,
    Encoding,
    EvidenceFinish,
    EvidenceHoles,
    EvidenceProgress,
    EvidenceStart,
    PartInfo,
)
from stanch.core.policy import Principal, reach
from stanch.core.rest_evidence import EvidenceView
from stanch.core.task import State
from stanch.core.types import EvidenceRef
from stanch.server.clock import Clock
from stanch.server.custody import Custody
from stanch.server.evidence_files import Incoming, pieces, prepare_folder, receive, remove_all_but, size_of_part, stream
from stanch.server.evidence_parts import (
    forget_parts,
    kept_already,
    kept_parts,
    one,
    record_holes,
    record_part,
    refuse_gaps,
)
from stanch.server.ids import new_id
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints, evidence, tasks
from stanch.server.targets import carrying, labels_of

MAX_PER_TASK = 1000
RECORDING = "terminal.cast"
"""What this server calls its own recording of a task. No endpoint may send anything of that name."""
KEEP_FREE = 2**28
"""Bytes of the disk that evidence never takes: the database must go on."""

TAKEN = (Encoding.AGE, Encoding.ZSTD_AGE)
"""What agents are told that they may send, beside plain parts."""

_WRITABLE = (State.SENT, State.RUNNING)


class Evidence:
    """Take evidence in, and give it out."""

    def __init__(self, *, folder: Path, database: Database, custody: Custody, now: Clock) -> None:
        self._folder = folder
        self._database = database
        self._custody = custody
        self._now = now

    @property
    def recipient(self) -> str:
        """The public key that evidence is encrypted to."""
        return self._custody.recipient

    # --- from endpoints ----------------------------------------------------------------------------------------------

    async def start(self, endpoint: str, request: EvidenceStart) -> EvidenceProgress:
        """Begin, or say how far it is; NotFound unless the task is this endpoint's, Conflict unless it runs."""
        if request.name == RECORDING:
            raise Denied("Recordings are made by the server, not by the endpoint", got=request.name)
        row = self._row(request, endpoint)
        progress, forgotten = await self._database.write(lambda connection: _begin(connection, row))
        if not progress.complete:  # else it may be deleted, folder and all
            await asyncio.to_thread(prepare_folder, self._folder / progress.evidence, without=forgotten)
        data = request.size if request.data is None else request.data
        self._refuse_full_disk(data - sum(part.size for part in progress.parts))
        return progress.model_copy(update={"encodings": TAKEN, "holes": True})

    async def put_part(
        self,
        endpoint: str,
        evidence_id: str,
        n: int,
        *,
        sha256: str,
        chunks: AsyncIterable[bytes],
        plain_sha256: str | None = None,
        encoding: Encoding = Encoding.PLAIN,
    ) -> PartInfo:
        """Keep one part; `sha256` is of the chunks, `plain_sha256` of what they hold, if they are encoded.

        Conflict if another one was kept under this number, VerificationFailed if the hash differs.
        """
        row = await self._database.read(lambda connection: _own(connection, endpoint, evidence_id))
        part = PartInfo(n=n, size=size_of_part(row.size, n), sha256=plain_sha256 or sha256)
        if await self._database.read(lambda connection: kept_already(connection, evidence_id, part)) is not None:
            return part
        self._refuse_full_disk(part.size)
        folder, incoming = self._folder / evidence_id, Incoming(part, encoding, sha256)
        kept = await receive(folder, incoming, chunks, recipient=self._custody.recipient)
        try:
            recorded = await self._database.write(lambda connection: record_part(connection, evidence_id, kept))
        except Exception as error:
            # A file that we have sealed is nobody else's; one that came sealed may have come, and be recorded, twice.
            # Nor when it is only cancelled: then it may be recorded all the same, and else the next start knows.
            if encoding is Encoding.PLAIN or isinstance(error, Conflict):
                (folder / kept.file).unlink(missing_ok=True)
            raise
        if not recorded:
            (folder / kept.file).unlink(missing_ok=True)
        return part

    async def put_holes(self, endpoint: str, evidence_id: str, told: EvidenceHoles) -> EvidenceHoles:
        """Note which parts are nothing but zeros; Conflict if one of them came, and is not."""
        await self._database.read(lambda connection: _own(connection, endpoint, evidence_id))
        await self._database.write(lambda connection: record_holes(connection, evidence_id, told.runs))
        return told

    async def finish(self, endpoint: str, evidence_id: str, whole: EvidenceFinish) -> EvidenceRef:
        """Close it, when every part is here; repeating it is harmless.

        The hash of the whole is taken as the endpoint says: only custody could compute it.
        """
        row = await self._database.read(lambda connection: _own(connection, endpoint, evidence_id))
        if whole.size != row.size:
            raise Conflict("The evidence has another size than was said", got=whole.size, expected=row.size)
        await self._database.write(lambda connection: _complete(connection, evidence_id, whole))
        return EvidenceRef(id=evidence_id, name=row.name, size=row.size, sha256=whole.sha256)

    # --- from this server itself -------------------------------------------------------------------------------------

    async def keep(self, *, task: str, endpoint: str, name: str, file: Path) -> EvidenceRef:
        """Take in what this server has of a task, such as a recording, whatever has become of the task.

        Repeating it after a crash is harmless, as long as the file is the same.
        """
        size = (await asyncio.to_thread(file.stat)).st_size
        row = self._row(EvidenceStart(task=task, name=name, size=size), endpoint)
        progress, forgotten = await self._database.write(lambda connection: _begin_own(connection, row))
        if not progress.complete:
            await asyncio.to_thread(prepare_folder, self._folder / progress.evidence, without=forgotten)
            self._refuse_full_disk(size - sum(part.size for part in progress.parts))
        whole = hashlib.sha256()
        for n in range(-(-size // PART_BYTES)):
            data = await asyncio.to_thread(_part_of, file, n)
            whole.update(data)
            if not progress.complete:
                sha256 = hashlib.sha256(data).hexdigest()
                await self.put_part(endpoint, progress.evidence, n, sha256=sha256, chunks=_at_once(data))
        return await self.finish(endpoint, progress.evidence, EvidenceFinish(sha256=whole.hexdigest(), size=size))

    def _row(self, request: EvidenceStart, endpoint: str) -> dict[str, Any]:
        return {
            "id": new_id("evd", self._now()),
            "task": request.task,
            "endpoint": endpoint,
            "name": request.name,
            "size": request.size,
            "complete": False,
            "received": 0,
            "created": self._now(),
        }

    # --- to people ---------------------------------------------------------------------------------------------------

    async def get(self, evidence_id: str) -> EvidenceView:
        """One piece of evidence; NotFound."""
        return _view(await self._database.read(lambda connection: one(connection, evidence_id)))

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
        endpoint: str | None = None,
        since: datetime | None = None,
        deleted: bool = False,
        after: str | None = None,
        limit: int = 50,
        labels: Sequence[str] = (),
    ) -> tuple[list[EvidenceView], str | None]:
        """Newest first, of endpoints that carry all of these labels; and the id to go on from.

        Of one endpoint (id or host name), begun since then; with `deleted`, what was deleted, and nothing else.
        """
        query = _page(order, task, after, labels).limit(limit + 1)
        query = query.where(evidence.c.deleted.is_not(None) if deleted else evidence.c.deleted.is_(None))
        if endpoint is not None:
            query = query.where(evidence.c.endpoint.in_(_named(endpoint)))
        if since is not None:
            query = query.where(evidence.c.created >= since)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        views = [_view(row) for row in rows[:limit]]
        return views, (views[-1].id if len(rows) > limit else None)

    async def read(self, view: EvidenceView, *, start: int, length: int) -> AsyncIterator[bytes]:
        """Bytes of complete evidence, in blocks; Conflict if it is not complete yet.

        Reading them raises VerificationFailed at a part that is not what the endpoint sent, Unavailable if the disk
        does not give it.
        """
        if not view.complete:
            raise Conflict("The evidence is not complete yet", got=f"{view.received} of {view.size} bytes")
        parts = await self._database.read(lambda connection: kept_parts(connection, view.id))
        by_number = {part.info.n: part for part in parts}
        return stream(self._folder / view.id, pieces(by_number, start, length), self._custody)

    async def recover(self) -> int:
        """At start: remove part files that a crash left unrecorded; how many. They are sealed anew, so never met again.

        What is recorded nowhere at all is left alone: perhaps the database is an old one, from a backup.
        """
        arriving = select(evidence.c.id).where(evidence.c.complete.is_(False), evidence.c.deleted.is_(None))
        removed = 0
        for number in await self._database.read(lambda connection: list(connection.execute(arriving).scalars())):
            known = await self._database.read(partial(kept_parts, evidence_id=number))
            removed += await asyncio.to_thread(remove_all_but, self._folder / number, {part.file for part in known})
        return removed

    def _refuse_full_disk(self, missing: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if missing and missing + KEEP_FREE > free:
            raise Unavailable(
                "The server has no room for this evidence",
                got=f"{missing} bytes, with {free} free",
                hint="Free space on the server's disk, then order it again.",
            )


# --- units of work ---------------------------------------------------------------------------------------------------


def _begin(connection: Connection, row: dict[str, Any]) -> tuple[EvidenceProgress, Sequence[str]]:
    """The evidence of this task and name: the one that is there, or a new one; and files of it that are forgotten."""
    _refuse_task(connection, row["task"], row["endpoint"])
    return _begin_own(connection, row)


def _begin_own(connection: Connection, row: dict[str, Any]) -> tuple[EvidenceProgress, Sequence[str]]:
    """The same, whatever has become of the task."""
    mine = (evidence.c.task == row["task"], evidence.c.name == row["name"])
    there = connection.execute(select(evidence).where(*mine)).one_or_none()
    if there is None:
        _refuse_too_many(connection, row["task"])
        connection.execute(insert(evidence), row)
        return EvidenceProgress(evidence=row["id"], parts=()), ()
    if there.size != row["size"]:
        if there.complete:
            raise Conflict("This evidence is complete, with another size", got=row["size"], expected=there.size)
        forgotten = [part.file for part in kept_parts(connection, there.id)]
        forget_parts(connection, there.id, row["size"])  # the source has changed since
        return EvidenceProgress(evidence=there.id, parts=()), forgotten
    parts = tuple(part.info for part in kept_parts(connection, there.id))
    return EvidenceProgress(evidence=there.id, parts=parts, complete=there.complete), ()


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


def _own(connection: Connection, endpoint: str, evidence_id: str) -> Row[Any]:
    """The same, if it is this endpoint's: another's does not exist for it."""
    row = one(connection, evidence_id)
    if row.endpoint != endpoint:
        raise NotFound("There is no such evidence", got=evidence_id[:100], hint="`stanch evidence list` lists it.")
    return row


def _complete(connection: Connection, evidence_id: str, whole: EvidenceFinish) -> None:
    """Close it, unless it was begun anew meanwhile; what was closed keeps its hash."""
    row = one(connection, evidence_id)
    if row.size != whole.size:
        raise Conflict("The evidence was begun anew, with another size")
    if row.complete:
        _refuse_other_hash(whole, row.sha256)
        return
    if row.deleted is not None:
        raise Conflict("This evidence was deleted on the server", got=evidence_id)
    refuse_gaps(connection, row)
    if row.size <= PART_BYTES:  # then the hash of the whole is known here too
        parts = kept_parts(connection, evidence_id)
        _refuse_other_hash(whole, parts[0].info.sha256 if parts else hashlib.sha256(bytes(row.size)).hexdigest())
    values = {"complete": True, "sha256": whole.sha256}
    connection.execute(update(evidence).where(evidence.c.id == evidence_id).values(**values))


def _refuse_other_hash(whole: EvidenceFinish, sha256: str) -> None:
    if whole.sha256 != sha256:
        raise VerificationFailed("The evidence is not what was sent", got=whole.sha256, expected=sha256)


def _part_of(file: Path, n: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(n * PART_BYTES)
        return opened.read(PART_BYTES)


async def _at_once(data: bytes) -> AsyncIterator[bytes]:
    yield data


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


def _named(endpoint: str) -> Select[Any]:
    """The endpoints of this id or host name."""
    return select(endpoints.c.id).where((endpoints.c.id == endpoint) | (endpoints.c.hostname == endpoint))


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
        verified=row.verified,
        damage=row.damage,
        deleted=row.deleted,
        deleted_by=row.deleted_by,
        deleted_why=row.deleted_why,
    )
