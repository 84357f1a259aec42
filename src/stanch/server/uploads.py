"""Uploads: files that people bring to the server, to be put on endpoints.

The bytes are written, hashed and on the disk before the database knows of them; what the database does not know is
removed at the next start. Which orders name an upload is written down in the unit of work of the order, so that no
upload goes away under an order that is still open. An endpoint gets one only for such an order.
"""

import asyncio
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, select, update

from stanch.core.errors import Conflict, Invalid, NotFound, Unavailable
from stanch.core.model import Model
from stanch.core.policy import Permission, Principal
from stanch.core.rest_uploads import UploadQuery, UploadView
from stanch.core.task import OPEN, State
from stanch.core.types import Upload
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.ids import new_id
from stanch.server.store.database import Database
from stanch.server.store.tables import orders, tasks, upload_uses, uploads
from stanch.server.upload_files import Received, receive, refuse_full_disk, remove_all_but, too_large

MAX_AT_ONCE = 8
"""Uploads that may be under way at the same time."""

MAX_PER_PERSON = 10_000
SWEEP_SECONDS = 3600.0
SERVER = "server"
"""Who removes what nobody used, in the audit."""

_FETCHING = (State.SENT, State.RUNNING)

log = structlog.get_logger(__name__)


class Uploads:
    """Take uploads in, list and remove them, and say who may fetch one."""

    def __init__(self, *, folder: Path, database: Database, now: Clock, most: int, keep: timedelta) -> None:
        self._folder = folder
        self._database = database
        self._now = now
        self._keep = keep
        self._under_way = 0
        self.most = most
        """Bytes that one may have."""

    # --- of people ---------------------------------------------------------------------------------------------------

    async def take(
        self,
        principal: Principal,
        name: str,
        chunks: AsyncIterable[bytes],
        *,
        announced: int | None = None,
        sha256: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> UploadView:
        """Keep what comes; the same content by the same person under the same name is the same upload.

        Denied, TooLarge, Unavailable if there is no room or too much at once, VerificationFailed if it has not the
        announced SHA-256.
        """
        principal.require(Permission.UPLOAD)
        if announced is not None and announced > self.most:
            raise too_large(f"{announced} bytes", self.most)
        refuse_full_disk(self._folder, announced or 0)
        upload = new_id("upl", self._now())
        path = self._path(upload)
        with self._place():
            received = await receive(path, chunks, most=self.most, sha256=sha256)
            kept = await self._record(principal, upload, name, received, detail or {})
        return await self.get(kept)

    async def _record(
        self, principal: Principal, upload: str, name: str, received: Received, detail: Mapping[str, Any]
    ) -> str:
        """The identifier under which it is kept: of an earlier one, or this one; without it the file goes again."""
        now = self._now()
        row = {"id": upload, "name": name, "size": received.size, "sha256": received.sha256}
        row |= {"created_by": principal.name, "created": now, "used": now}
        try:
            kept = await self._database.write(lambda connection: _keep(connection, row, detail))
        except Exception:
            # Not when it is only cancelled: then it may be committed all the same, and the next start knows.
            await self._unlink([upload])
            raise
        if kept != upload:
            await self._unlink([upload])
        return kept

    async def get(self, upload: str) -> UploadView:
        """One upload; NotFound."""
        return _view(await self._database.read(lambda connection: _one(connection, upload)))

    async def list(
        self, principal: Principal, query: UploadQuery, *, after: str | None = None, limit: int = 50
    ) -> tuple[list[UploadView], str | None]:
        """Newest first; and the id to go on from."""
        asked = _page(principal, query, after).limit(limit + 1)
        rows = await self._database.read(lambda connection: connection.execute(asked).all())
        views = [_view(row) for row in rows[:limit]]
        return views, (views[-1].id if len(rows) > limit else None)

    async def delete(self, principal: Principal, upload: str) -> None:
        """Remove it for good; Conflict while an open order names it, NotFound, Denied for somebody else's."""
        principal.require(Permission.UPLOAD)
        now = self._now()

        def unit(connection: Connection) -> None:
            row = _one(connection, upload)
            if row.created_by != principal.name:
                principal.require(Permission.DELETE_EVIDENCE)
            _refuse_in_use(connection, upload)
            _remove(connection, row, who=principal.name, what="upload-delete", at=now)

        await self._database.write(unit)
        await self._unlink([upload])

    # --- of endpoints ------------------------------------------------------------------------------------------------

    async def content(self, endpoint: str, task: str, upload: str) -> Path:
        """The file of an upload, for the endpoint whose task is under way and names it; NotFound for all others."""
        if not await self._database.read(lambda connection: _is_fetched_by(connection, endpoint, task, upload)):
            raise NotFound(
                "This task has no such upload",
                got=upload[:100],
                expected="an upload that its order names, while it runs",
            )
        path = self._path(upload)
        if not await asyncio.to_thread(path.is_file):
            raise NotFound("The upload is not on the server's disk any more", got=upload[:100])
        return path

    # --- in the background -------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """At start: remove the files that a crash left without an upload."""
        kept = await self._database.read(lambda connection: set(connection.execute(select(uploads.c.id)).scalars()))
        removed = await asyncio.to_thread(remove_all_but, self._folder, kept)
        if removed:
            log.info("half-written uploads removed", files=removed)

    async def run(self) -> None:
        """Remove what was not used for long, again and again."""
        while True:
            await self.sweep_once()
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep_once(self) -> Sequence[str]:
        """Remove the uploads that no order has named for the time that they are kept; which ones."""
        removed = await self._database.write(self._remove_unused)
        await self._unlink(removed)
        return removed

    def _remove_unused(self, connection: Connection) -> Sequence[str]:
        now = self._now()
        unused = select(uploads).where(uploads.c.used < now - self._keep, ~_in_use(uploads.c.id)).limit(1000)
        rows = connection.execute(unused).all()
        for row in rows:
            _remove(connection, row, who=SERVER, what="upload-expire", at=now)
        return [row.id for row in rows]

    # --- how ---------------------------------------------------------------------------------------------------------

    def _path(self, upload: str) -> Path:
        return self._folder / upload

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the few that may be under way; Unavailable if there are too many."""
        if self._under_way >= MAX_AT_ONCE:
            raise Unavailable("Too many uploads at once", got=self._under_way + 1, expected=f"at most {MAX_AT_ONCE}")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _unlink(self, some: Iterable[str]) -> None:
        for one in some:
            await asyncio.to_thread(self._path(one).unlink, missing_ok=True)


# --- of orders -------------------------------------------------------------------------------------------------------


def named_by(params: Model) -> Sequence[Upload]:
    """The uploads among the parameters of an order: each by itself, or in a list."""
    listed = (value if isinstance(value, list | tuple) else (value,) for _, value in params)
    return [one for some in listed for one in some if isinstance(one, Upload)]


def use(connection: Connection, order: str, named: Sequence[Upload], at: datetime) -> None:
    """Write down, in the unit of work of an order, which uploads it names.

    NotFound if there is none such, Invalid if it is another than the order says: an endpoint would refuse it.
    """
    for one in {upload.id: upload for upload in named}.values():
        row = _one(connection, one.id)
        if (row.size, row.sha256) != (one.size, one.sha256):
            raise Invalid(
                f"Upload {one.id} is another one than the order says",
                got=f"{one.size} bytes, SHA-256 {one.sha256}",
                expected=f"{row.size} bytes, SHA-256 {row.sha256}",
            )
        connection.execute(insert(upload_uses), {"upload": one.id, "order_id": order})
        connection.execute(update(uploads).where(uploads.c.id == one.id).values(used=at))


# --- units of work ---------------------------------------------------------------------------------------------------

_ORDERS = select(func.count()).select_from(upload_uses).where(upload_uses.c.upload == uploads.c.id).scalar_subquery()
_WITH_ORDERS = select(uploads, _ORDERS.label("orders"))


def _keep(connection: Connection, row: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    """The identifier of this content, by this person, under this name: the one that is there, or the new one."""
    same = [uploads.c[name] == row[name] for name in ("created_by", "name", "sha256")]
    there = connection.execute(select(uploads.c.id).where(*same)).scalar()
    if there is not None:
        connection.execute(update(uploads).where(uploads.c.id == there).values(used=row["used"]))
        return str(there)
    _refuse_too_many(connection, row["created_by"])
    connection.execute(insert(uploads), dict(row))
    about = {"name": row["name"], "size": row["size"], "sha256": row["sha256"], **detail}
    entry = audit.Entry(at=row["created"], who=row["created_by"], what="upload", subject=row["id"], detail=about)
    audit.append(connection, entry)
    return str(row["id"])


def _refuse_too_many(connection: Connection, person: str) -> None:
    mine = select(func.count()).select_from(uploads).where(uploads.c.created_by == person)
    count = connection.execute(mine).scalar_one()
    if count >= MAX_PER_PERSON:
        raise Conflict(
            f"{person} has too many uploads",
            got=count + 1,
            expected=f"at most {MAX_PER_PERSON}",
            hint="Remove some with `stanch uploads delete`.",
        )


def _one(connection: Connection, upload: str) -> Row[Any]:
    row = connection.execute(_WITH_ORDERS.where(uploads.c.id == upload)).one_or_none()
    if row is None:
        raise NotFound("There is no such upload", got=upload[:100], hint="`stanch uploads list` lists them.")
    return row


def _page(principal: Principal, query: UploadQuery, after: str | None) -> Select[Any]:
    asked = _WITH_ORDERS.order_by(uploads.c.id.desc())
    if query.sha256 is not None:
        asked = asked.where(uploads.c.sha256 == query.sha256)
    if query.mine:
        asked = asked.where(uploads.c.created_by == principal.name)
    return asked if after is None else asked.where(uploads.c.id < after)


def _open_tasks(upload: Any) -> Select[Any]:
    """Tasks that are not final, of orders that name the upload."""
    return (
        select(tasks.c.order_id)
        .join(upload_uses, upload_uses.c.order_id == tasks.c.order_id)
        .where(upload_uses.c.upload == upload, tasks.c.state.in_(sorted(OPEN)))
    )


def _in_use(upload: Any) -> Any:
    return exists(_open_tasks(upload).correlate(uploads))


def _refuse_in_use(connection: Connection, upload: str) -> None:
    order = connection.execute(_open_tasks(upload).limit(1)).scalar()
    if order is not None:
        raise Conflict(
            "An order that is not finished needs this upload",
            got=order,
            hint=f"Wait for it, or `stanch order cancel {order}`.",
        )


def _remove(connection: Connection, row: Row[Any], *, who: str, what: str, at: datetime) -> None:
    connection.execute(delete(uploads).where(uploads.c.id == row.id))
    detail = {"name": row.name, "size": row.size, "sha256": row.sha256, "by": row.created_by}
    audit.append(connection, audit.Entry(at=at, who=who, what=what, subject=row.id, detail=detail))


def _is_fetched_by(connection: Connection, endpoint: str, task: str, upload: str) -> bool:
    found = (
        select(tasks.c.id)
        .join(orders, orders.c.id == tasks.c.order_id)
        .join(upload_uses, upload_uses.c.order_id == orders.c.id)
        .where(
            tasks.c.id == task,
            tasks.c.endpoint == endpoint,
            tasks.c.state.in_(_FETCHING),
            upload_uses.c.upload == upload,
        )
    )
    return connection.execute(found).first() is not None


def _view(row: Row[Any]) -> UploadView:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    return UploadView.model_validate({**values, "by": values.pop("created_by")})
