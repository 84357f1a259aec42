"""Tests of stanch.actions.update_content."""

from typing import Any

from stanch.actions.update_content import ContentUpdated, update_content
from stanch.core.action import Verdict
from stanch.core.content import ContentKind, Updated
from tests.fakes.host import FakeEndpoint


def behind() -> FakeEndpoint:
    """An endpoint on which one content is old, one is missing, one does not load, and one is not wanted any more."""
    endpoint = FakeEndpoint()
    endpoint.content.add("same")
    endpoint.content.add("apt", ContentKind.HASHES)
    endpoint.content.add("gone")
    del endpoint.content.published["gone"]
    endpoint.content.publish("apt", ContentKind.HASHES, version=2)
    endpoint.content.publish("new")
    endpoint.content.publish("bad", version=5)
    endpoint.content.broken["bad"] = "nothing in it counts"
    return endpoint


async def ordered(endpoint: FakeEndpoint) -> ContentUpdated:
    return await update_content(endpoint.host, update_content.parse({}))


async def test_everything_becomes_what_the_server_wants() -> None:
    """Each change is told with the version before and after, and what is refused with the reason."""
    endpoint = behind()
    result = await ordered(endpoint)
    assert result.changes == (
        Updated(name="apt", before=1, after=2),
        Updated(name="bad", refused=5, why="nothing in it counts"),
        Updated(name="gone", before=1),
        Updated(name="new", after=1),
    )
    assert result.refused == 1
    assert [(one.name, one.version) for one in result.installed] == [("same", 1), ("apt", 2), ("new", 1)]
    assert endpoint.progress.told[-1][:3] == (4, 4, "contents")


async def test_what_is_up_to_date_is_left_alone() -> None:
    """A second update changes nothing, and says so."""
    endpoint = FakeEndpoint()
    endpoint.content.add("apt")
    result = await ordered(endpoint)
    assert (result.changes, result.refused) == ((), 0)
    assert [one for one in endpoint.life.steps if one.startswith("content.")] == []


async def test_a_dry_run_tells_what_would_come_and_go() -> None:
    """The plan names each version with its size, and changes nothing."""
    endpoint = behind()
    plan = await update_content.plan(endpoint.host, update_content.parse({}))
    assert [(one.what, one.target) for one in plan.steps] == [
        ("Fetch, try and use", "apt version 2, 1 bytes, instead of version 1"),
        ("Fetch, try and use", "bad version 5, 1 bytes"),
        ("Remove", "gone"),
        ("Fetch, try and use", "new version 1, 1 bytes"),
    ]
    assert plan.changes
    assert endpoint.life.steps == []


async def test_what_comes_with_the_agent_is_no_difference() -> None:
    """Content that the server does not know, since it comes with the agent, is neither removed nor missing."""
    endpoint = FakeEndpoint()
    own = endpoint.content.add("stanch-base")
    endpoint.content.packs["stanch-base"] = own.model_copy(update={"builtin": True})
    endpoint.content.published.clear()
    assert not (await update_content.plan(endpoint.host, update_content.parse({}))).changes
    assert (await update_content.verify(endpoint.host, update_content.parse({}), None)).verdict is Verdict.IN_PLACE


async def verified(endpoint: FakeEndpoint, result: ContentUpdated | None) -> Any:
    return await update_content.verify(endpoint.host, update_content.parse({}), result)


async def test_it_looks_whether_all_of_it_is_in_use() -> None:
    """What was refused and told is no failure of the order; anything else that is missing is."""
    endpoint = behind()
    assert (await verified(endpoint, None)).verdict is Verdict.ABSENT
    result = await ordered(endpoint)
    assert (await verified(endpoint, result)).verdict is Verdict.IN_PLACE
    del endpoint.content.packs["new"]
    check = await verified(endpoint, result)
    assert (check.verdict, check.detail) == (Verdict.ABSENT, "1 of 4 are not as the server wants: new")


async def test_after_a_crash_all_changes_are_told() -> None:
    """The answer of a task that was killed in the middle counts what its first run has changed, too."""
    endpoint = behind()
    whole = await ordered(behind())
    await endpoint.host.journal.record({"before": {one.name: one.version for one in endpoint.content.installed()}})
    updates = endpoint.content.update()
    await anext(updates)
    endpoint.restart()
    assert (await ordered(endpoint)).changes == whole.changes
