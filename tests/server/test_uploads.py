"""Uploads on a real database and disk: deduplicated, bounded, kept while they are needed, and each endpoint's own."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from stanch.core.errors import Conflict, Denied, Invalid, NotFound, TooLarge, Unavailable
from stanch.core.model import Model
from stanch.core.policy import Role
from stanch.core.rest import OrderCommon
from stanch.core.rest_uploads import UploadQuery, UploadView
from stanch.core.task import State
from stanch.core.types import Upload
from stanch.server import uploads as module
from stanch.server.store.tables import audit, tasks, upload_uses
from stanch.server.uploads import Uploads, named_by, use
from tests.fakes.server_parts import Parts, principal

DATA = b"#!/bin/sh\nexit 0\n"
ME, OTHER = "end_web-01", "end_web-02"


@pytest.fixture
async def uploads(parts: Parts, tmp_path: Path) -> Uploads:
    """An empty store, and two endpoints."""
    await parts.add_endpoints("web-01", "web-02")
    made = Uploads(
        folder=tmp_path / "uploads", database=parts.database, now=parts.clock, most=1000, keep=timedelta(days=30)
    )
    await made.recover()
    return made


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def bring(uploads: Uploads, data: bytes = DATA, name: str = "tool.sh") -> UploadView:
    return await uploads.take(principal(), name, chunks(data))


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "uploads").iterdir())


async def entries(parts: Parts, what: str) -> list[str]:
    query = select(audit.c.subject).where(audit.c.what == what)
    return await parts.database.read(lambda connection: list(connection.execute(query).scalars()))


async def order_with(parts: Parts, *named: Upload, state: State = State.RUNNING) -> str:
    """A task of web-01 whose order names the upload, as any action with such a parameter does."""
    order = await parts.orders.submit(principal(), "list_processes", {}, OrderCommon(endpoints=("web-01",)))
    await parts.database.write(lambda connection: use(connection, order.id, named, parts.clock()))
    await move(parts, order.tasks[0].id, state)
    return order.tasks[0].id


async def move(parts: Parts, task: str, state: State) -> None:
    change = update(tasks).where(tasks.c.id == task).values(state=state)
    await parts.database.write(lambda connection: connection.execute(change))


# --- in --------------------------------------------------------------------------------------------------------------


async def test_an_upload_is_kept_and_audited(uploads: Uploads, parts: Parts, tmp_path: Path) -> None:
    """With its hash, and its bytes under our own name."""
    view = await uploads.take(principal(Role.INCIDENT_LEAD), "tool.sh", chunks(DATA), detail={"address": "::1"})
    assert (view.name, view.size, view.sha256) == ("tool.sh", len(DATA), hashlib.sha256(DATA).hexdigest())
    assert (view.by, view.orders, view.used) == ("ada", 0, parts.clock.now)
    assert (tmp_path / "uploads" / view.id).read_bytes() == DATA
    assert await entries(parts, "upload") == [view.id]


async def test_who_only_looks_brings_nothing(uploads: Uploads, tmp_path: Path) -> None:
    """Nothing is read of what others send, and nothing removed."""
    view = await bring(uploads)
    with pytest.raises(Denied):
        await uploads.take(principal(Role.VIEWER), "x", chunks(b"y"))
    with pytest.raises(Denied):
        await uploads.delete(principal(Role.VIEWER), view.id)
    assert files(tmp_path) == [view.id]


@pytest.mark.parametrize("role", [Role.ANALYST, Role.RESPONDER])
async def test_whoever_works_brings_and_removes_their_own(uploads: Uploads, tmp_path: Path, role: Role) -> None:
    """Rules to scan with are brought by everybody who may order a scan; what others brought stays."""
    theirs = await bring(uploads)
    mine = await uploads.take(principal(role, name="carol"), "x", chunks(b"y"))
    with pytest.raises(Denied):
        await uploads.delete(principal(role, name="carol"), theirs.id)
    await uploads.delete(principal(role, name="carol"), mine.id)
    assert files(tmp_path) == [theirs.id]


async def test_the_same_twice_is_one_upload(uploads: Uploads, parts: Parts, tmp_path: Path) -> None:
    """By the same person under the same name; it counts as used anew."""
    first = await bring(uploads)
    parts.clock.pass_(timedelta(days=1))
    again = await bring(uploads)
    assert (again.id, again.used) == (first.id, parts.clock.now)
    other = await bring(uploads, name="other")
    theirs = await uploads.take(principal(name="bob"), "tool.sh", chunks(DATA))
    changed = await bring(uploads, DATA + b"#")
    assert len({first.id, other.id, theirs.id, changed.id}) == 4
    assert files(tmp_path) == sorted([first.id, other.id, theirs.id, changed.id])


async def test_what_is_too_large_is_refused(uploads: Uploads, parts: Parts, tmp_path: Path) -> None:
    """When it is announced before anything is read, and when it comes."""
    read = False

    async def watched() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"x"

    with pytest.raises(TooLarge):
        await uploads.take(principal(), "x", watched(), announced=1001)
    assert not read
    with pytest.raises(TooLarge):
        await uploads.take(principal(), "x", chunks(b"x" * 1001), announced=5)
    assert files(tmp_path) == []
    assert await entries(parts, "upload") == []


async def test_not_too_many_at_once(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may come when one has ended, however it ended."""
    monkeypatch.setattr(module, "MAX_AT_ONCE", 1)
    waiting, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        waiting.set()
        await goes_on.wait()
        yield b"x"
        raise ConnectionResetError

    async with asyncio.TaskGroup() as group:
        first = group.create_task(_refused(uploads, slow()))
        await waiting.wait()
        with pytest.raises(Unavailable, match="at once"):
            await bring(uploads)
        goes_on.set()
    assert first.result()
    assert await bring(uploads)


async def _refused(uploads: Uploads, some: AsyncIterator[bytes]) -> bool:
    try:
        await uploads.take(principal(), "x", some)
    except Unavailable:
        return True
    return False


async def test_nobody_fills_the_table(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of uploads of one person is bounded, and what is refused leaves no file."""
    monkeypatch.setattr(module, "MAX_PER_PERSON", 1)
    first = await bring(uploads)
    with pytest.raises(Conflict, match="too many"):
        await bring(uploads, b"other")
    assert (await bring(uploads)).id == first.id
    assert files(tmp_path) == [first.id]


async def test_lists(uploads: Uploads) -> None:
    """Newest first, in pages; by content and by person."""
    mine = [await bring(uploads, name=f"n{n}") for n in range(3)]
    theirs = await uploads.take(principal(name="bob"), "x", chunks(b"other"))
    page, following = await uploads.list(principal(), UploadQuery(), limit=2)
    rest, end = await uploads.list(principal(), UploadQuery(), after=following, limit=2)
    assert sorted(one.id for one in [*page, *rest]) == sorted([*(one.id for one in mine), theirs.id])
    assert end is None
    found, _ = await uploads.list(principal(), UploadQuery(sha256=theirs.sha256))
    assert [one.id for one in found] == [theirs.id]
    assert len((await uploads.list(principal(), UploadQuery(mine=True)))[0]) == 3
    with pytest.raises(NotFound):
        await uploads.get("upl_none")


# --- orders ----------------------------------------------------------------------------------------------------------


class _Params(Model):
    path: str
    content: Upload | None = None
    more: tuple[Upload, ...] = ()


def test_parameters_are_searched_for_uploads() -> None:
    """By their type, not by their name."""
    one = Upload(id="upl_1", size=1, sha256="0" * 64)
    other = one.model_copy(update={"id": "upl_2"})
    assert named_by(_Params(path="/x", content=one)) == [one]
    assert named_by(_Params(path="/x", content=one, more=(other, one))) == [one, other, one]
    assert named_by(_Params(path="/x")) == []


async def test_an_order_uses_an_upload(uploads: Uploads, parts: Parts) -> None:
    """It is counted, and kept from then on."""
    view = await bring(uploads)
    parts.clock.pass_(timedelta(days=29))
    await order_with(parts, view.named)
    assert ((now := await uploads.get(view.id)).orders, now.used) == (1, parts.clock.now)


@pytest.mark.parametrize(
    ("change", "error"), [({"id": "upl_none"}, NotFound), ({"size": 1}, Invalid), ({"sha256": "0" * 64}, Invalid)]
)
async def test_an_order_with_a_wrong_upload_is_refused(
    uploads: Uploads, parts: Parts, change: dict, error: type[Exception]
) -> None:
    """Gone, or another one than is said: the endpoint would only find out later."""
    view = await bring(uploads)
    with pytest.raises(error):
        await order_with(parts, view.named.model_copy(update=change))


@pytest.mark.parametrize("state", [State.HELD, State.QUEUED, State.SENT, State.RUNNING])
async def test_an_open_order_keeps_its_upload(uploads: Uploads, parts: Parts, tmp_path: Path, state: State) -> None:
    """From people and from the sweep."""
    view = await bring(uploads)
    await order_with(parts, view.named, state=state)
    with pytest.raises(Conflict, match="not finished"):
        await uploads.delete(principal(), view.id)
    parts.clock.pass_(timedelta(days=40))
    assert await uploads.sweep_once() == []
    assert files(tmp_path) == [view.id]


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.UNKNOWN])
async def test_after_its_orders_it_can_be_deleted(uploads: Uploads, parts: Parts, tmp_path: Path, state: State) -> None:
    """Row, uses and bytes go; the audit says who did it."""
    view = await bring(uploads)
    await order_with(parts, view.named, state=state)
    await uploads.delete(principal(), view.id)
    assert files(tmp_path) == []
    assert await entries(parts, "upload-delete") == [view.id]
    assert await parts.database.read(lambda connection: connection.execute(select(upload_uses)).all()) == []
    with pytest.raises(NotFound):
        await uploads.delete(principal(), view.id)


async def test_what_nobody_uses_goes(uploads: Uploads, parts: Parts, tmp_path: Path) -> None:
    """After the time that it is kept, and not before; the audit says so."""
    old = await bring(uploads)
    parts.clock.pass_(timedelta(days=20))
    young = await bring(uploads, b"young")
    assert await uploads.sweep_once() == []
    parts.clock.pass_(timedelta(days=11))
    assert await uploads.sweep_once() == [old.id]
    assert files(tmp_path) == [young.id]
    assert await entries(parts, "upload-expire") == [old.id]


async def test_a_start_removes_what_a_crash_left(uploads: Uploads, tmp_path: Path) -> None:
    """What was half-written, and what was never recorded."""
    view = await bring(uploads)
    for name in (".half-00", "upl_never"):
        (tmp_path / "uploads" / name).write_bytes(b"x")
    await uploads.recover()
    assert files(tmp_path) == [view.id]


# --- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
async def test_only_a_task_that_is_under_way_gets_it(uploads: Uploads, parts: Parts, state: State) -> None:
    """Before and after, it does not exist for the endpoint."""
    view = await bring(uploads)
    task = await order_with(parts, view.named, state=state)
    if state in {State.SENT, State.RUNNING}:
        assert (await uploads.content(ME, task, view.id)).read_bytes() == DATA
        return
    with pytest.raises(NotFound):
        await uploads.content(ME, task, view.id)


async def test_it_does_not_exist_for_anybody_else(uploads: Uploads, parts: Parts) -> None:
    """Another endpoint, another task of the same one, another upload."""
    view, other = await bring(uploads), await bring(uploads, b"other")
    task, second = await order_with(parts, view.named), await order_with(parts, other.named)
    for endpoint, asked, upload in ((OTHER, task, view.id), (ME, second, view.id), (ME, task, other.id), (ME, "", "")):
        with pytest.raises(NotFound):
            await uploads.content(endpoint, asked, upload)


async def test_bytes_that_are_gone_are_not_found(uploads: Uploads, parts: Parts, tmp_path: Path) -> None:
    """Somebody removed the file behind our back."""
    view = await bring(uploads)
    task = await order_with(parts, view.named)
    (tmp_path / "uploads" / view.id).unlink()
    with pytest.raises(NotFound, match="disk"):
        await uploads.content(ME, task, view.id)


async def test_each_order_is_counted_once(uploads: Uploads, parts: Parts) -> None:
    """Though it may name the same upload twice."""
    view = await bring(uploads)
    for _ in range(2):
        await order_with(parts, view.named, view.named)
    assert (await uploads.get(view.id)).orders == 2


async def test_the_way_in_writes_down_what_is_used(uploads: Uploads, parts: Parts) -> None:
    """An order that puts a file needs its upload; its dry run does not, for it fetches nothing."""
    view, common = await bring(uploads), OrderCommon(endpoints=("web-01",))
    content = view.named.model_dump(mode="json")
    order = await parts.orders.submit(principal(), "put_file", {"path": "/opt/tool", "content": content}, common)
    assert (await uploads.get(view.id)).orders == 1
    await move(parts, order.tasks[0].id, State.RUNNING)
    assert await uploads.content(ME, order.tasks[0].id, view.id)
    unknown = {"path": "/opt/tool", "content": {**content, "id": "not-uploaded"}}
    with pytest.raises(NotFound):
        await parts.orders.submit(principal(), "put_file", unknown, common)
    planned = common.model_copy(update={"dry_run": True})
    assert (await parts.orders.submit(principal(), "put_file", unknown, planned)).dry_run
