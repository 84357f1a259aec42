"""How content is shown: who should have it, and who has told that it does not load."""

from sqlalchemy import insert

from stanch.core.rest_content import Publish
from stanch.server import content_views
from stanch.server.content_views import LOADED, REFUSED
from stanch.server.store.tables import notices
from tests.fakes.server_parts import principal
from tests.server.test_content_way import bring, desk_of


async def tell(parts, endpoint: str, seq: int, *, kind: str = REFUSED, **detail) -> None:
    """A detection of an endpoint, which may say anything."""
    row = {"endpoint": endpoint, "seq": seq, "kind": kind, "at": parts.clock.now, "received": parts.clock.now}
    await parts.database.write(lambda connection: connection.execute(insert(notices), {**row, "detail": detail}))


async def test_who_should_have_it_and_who_refused_it(parts, tmp_path):
    """Each endpoint once, for the version that it should have; nonsense in a notice counts for nothing."""
    await parts.add_endpoints("a", "b", "c")
    desk = await desk_of(parts, tmp_path)
    for number in (1, 2):
        await bring(desk, "apt", number)
    await desk.publish(principal(), "apt", Publish(version=2))
    await tell(parts, "end_a", 1, name="apt", refused=2)
    await tell(parts, "end_a", 2, name="apt", refused=2)
    await tell(parts, "end_b", 1, name="apt", refused=1)
    await tell(parts, "end_b", 2, name="other", refused=2)
    await tell(parts, "end_c", 1, name=["apt"], refused="2")
    await tell(parts, "end_c", 2)
    (view,) = await desk.list()
    assert (view.endpoints, view.refused) == (3, 1)
    detail = await desk.publish(principal(), "apt", Publish(version=1))
    assert (detail.endpoints, detail.refused) == (3, 1)


async def test_one_endpoint_does_not_hide_the_others(parts, tmp_path, monkeypatch):
    """Whatever an endpoint tells, and how often: what the others told before is still counted."""
    monkeypatch.setattr(content_views, "MAX_NOTICES", 20)
    monkeypatch.setattr(content_views, "MAX_OF_EACH", 10)
    await parts.add_endpoints("a", "b")
    desk = await desk_of(parts, tmp_path)
    await bring(desk, "apt", 1)
    await desk.publish(principal(), "apt", Publish(version=1))
    await tell(parts, "end_a", 1, name="apt", refused=1)
    for number in range(30):
        await tell(parts, "end_b", number, name="nothing", refused=1)
    (view,) = await desk.list()
    assert view.refused == 1


async def test_what_is_true_now_counts(parts, tmp_path):
    """Who has loaded a version in the end does not refuse it any more, and is counted apart; the last word counts."""
    await parts.add_endpoints("a", "b", "c")
    desk = await desk_of(parts, tmp_path)
    await bring(desk, "apt", 1)
    await desk.publish(principal(), "apt", Publish(version=1))
    for endpoint in ("end_a", "end_b", "end_c"):
        await tell(parts, endpoint, 1, name="apt", refused=1)
    await tell(parts, "end_a", 2, kind=LOADED, name="apt", loaded=1)
    await tell(parts, "end_b", 2, kind=LOADED, name="apt", loaded=1)
    await tell(parts, "end_b", 3, name="apt", refused=1)
    await tell(parts, "end_c", 2, kind=LOADED, name="apt", loaded=2)
    (view,) = await desk.list()
    assert (view.refused, view.refused_before) == (2, 1)
