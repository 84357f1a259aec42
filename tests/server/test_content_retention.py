"""Which versions pruning keeps, and what happens when there is no room for more."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from stanch.core.errors import Conflict, Denied, NotFound
from stanch.core.policy import Role
from stanch.core.rest import GroupCreate, OrderCommon
from stanch.core.rest_content import ForGroups, Prune, Publish
from stanch.core.task import State
from stanch.server.store.tables import audit, tasks
from tests.fakes.packed import GOOD, chunks, pack
from tests.fakes.server_parts import principal
from tests.server.test_content_way import bring, desk_of


@pytest.fixture
async def desk(parts, tmp_path):
    """Six versions, and one endpoint."""
    await parts.add_endpoints("web")
    made = await desk_of(parts, tmp_path)
    for number in range(1, 7):
        await bring(made, "apt", number)
    return made


async def pruned(desk, keep: int = 1, *, dry_run: bool = False, who=None):
    return await desk.prune(who or principal(), "apt", Prune(keep=keep, dry_run=dry_run))


def gone(found) -> list[int]:
    return [one.version for one in found.removed]


async def test_the_newest_the_current_and_the_one_before_stay(parts, desk, tmp_path):
    """Each says why; the rest is gone from the list and from the disk, and the audit says so."""
    await parts.groups.create(principal(), GroupCreate(name="db", labels=("a=b",)))
    await desk.publish(principal(), "apt", Publish(version=1))
    await desk.publish(principal(), "apt", Publish(version=2))
    await desk.publish(principal(), "apt", Publish(version=4, groups=("db",)))
    found = await pruned(desk, 2)
    assert gone(found) == [3]
    assert {one.version: one.why for one in found.kept} == {
        6: "one of the newest 2",
        5: "one of the newest 2",
        4: "current for db",
        2: "current for all",
        1: "a rollback goes back to it",
    }
    assert [one.version for one in (await desk.get("apt")).every] == [6, 5, 4, 2, 1]
    assert len(list((tmp_path / "content").iterdir())) == 5
    assert found.freed == found.removed[0].size
    query = select(audit.c.detail).where(audit.c.what == "content-prune")
    detail = await parts.database.read(lambda connection: connection.execute(query).scalar_one())
    assert detail["versions"] == [3]
    assert gone(await pruned(desk, 2)) == []


async def test_a_dry_run_removes_nothing(parts, desk, tmp_path):
    """It says the very same as the prune that follows."""
    looked = await pruned(desk, 3, dry_run=True)
    assert gone(looked) == [3, 2, 1]
    assert len((await desk.get("apt")).every) == 6
    assert len(list((tmp_path / "content").iterdir())) == 6
    done = await pruned(desk, 3)
    assert (gone(done), done.freed, done.kept) == (gone(looked), looked.freed, looked.kept)


async def test_what_an_open_order_refers_to_stays(parts, desk):
    """Versions that were current since it was given, until it is over; deleting one by name is refused too."""
    await desk.publish(principal(), "apt", Publish(version=1))
    parts.clock.now += timedelta(minutes=1)
    await desk.publish(principal(), "apt", Publish(version=2))
    parts.clock.now += timedelta(minutes=1)
    common = OrderCommon(endpoints=("end_web",))
    order = await parts.orders.submit(principal(), "yara_scan", {"content": ["apt"], "path": ["/srv"]}, common)
    parts.clock.now += timedelta(minutes=1)
    await desk.publish(principal(), "apt", Publish(version=3))
    await desk.unpublish(principal(), "apt", ForGroups())
    found = await pruned(desk, dry_run=True)
    assert {one.version: one.why for one in found.kept} == {
        6: "one of the newest 1",
        3: f"open order {order.id}",
        2: f"open order {order.id}",
    }
    with pytest.raises(Conflict, match="under way") as caught:
        await desk.delete(principal(), "apt", 2)
    assert order.id in caught.value.hint
    over = update(tasks).values(state=State.DONE)
    await parts.database.write(lambda connection: connection.execute(over))
    assert 2 in gone(await pruned(desk, dry_run=True))


async def test_a_pack_that_other_content_has_too_stays_on_the_disk(parts, desk, tmp_path):
    """The same bytes under two names are one file, and no room is won."""
    await bring(desk, "other", 1)
    found = await pruned(desk, 5)
    assert (gone(found), found.freed) == ([1], 0)
    assert len(list((tmp_path / "content").iterdir())) == 6


async def test_not_everybody_may(desk):
    """Who may not change content prunes nothing; what is not there is named."""
    with pytest.raises(Denied):
        await pruned(desk, who=principal(Role.VIEWER))
    with pytest.raises(NotFound):
        await desk.prune(principal(), "none", Prune())


async def test_there_is_a_bound_for_all_of_it(desk, tmp_path):
    """Beyond it an import is refused with what to do, and leaves nothing; the same bytes need no room."""
    room = await desk.room()
    assert (room.names, room.versions) == (1, 6)
    desk._most = room.bytes + 10
    with pytest.raises(Conflict, match="no room") as caught:
        await bring(desk, "apt", 7)
    assert "prune" in caught.value.hint
    assert str(room.bytes) in caught.value.got
    assert len(list((tmp_path / "content").iterdir())) == 6
    assert (await desk.take(principal(), "more", chunks(pack({"a.yar": GOOD + b"//1"})))).new
    assert (await desk.room()).bytes == room.bytes
