"""Groups and policies over HTTP."""

import pytest

from stanch.core.policy import Role
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = {"isolation": {"duration": "1h"}}


async def make(admin: Person, name: str, *labels: str, **more: object) -> None:
    """A new group."""
    answer = await admin.ask("POST", "/groups", json={"name": name, "labels": labels, **more})
    assert answer.status == 201, answer.body


async def test_a_group_from_its_making_to_its_end(live: Live, admin: Person) -> None:
    """Made, found, changed, deleted."""
    await make(admin, "life", "life=1", rank=7, description="Why")
    found = (await admin.ask("GET", "/groups/life")).json
    assert found == {
        "name": "life",
        "labels": ["life=1"],
        "rank": 7,
        "description": "Why",
        "endpoints": 0,
        "sections": [],
    }
    assert found in (await admin.ask("GET", "/groups")).json
    assert (await admin.ask("PATCH", "/groups/life", json={"rank": 8})).json["rank"] == 8
    assert (await admin.ask("DELETE", "/groups/life")).status == 204
    assert (await admin.ask("GET", "/groups/life")).code == "not-found"


@pytest.mark.parametrize("body", [{"name": "Big", "labels": []}, {"name": "x", "labels": ["y"]}, {"name": "nolabels"}])
async def test_wrong_groups_are_refused(admin: Person, body: dict) -> None:
    """Names are small letters, labels are pairs, and none must be said."""
    assert (await admin.ask("POST", "/groups", json=body)).status == 422


async def test_a_policy_arrives_at_a_connected_endpoint(live: Live, admin: Person) -> None:
    """Over REST, store, signature and link; labels given meanwhile are followed too."""
    await make(admin, "arrive", "arrive=1")
    agent = await live.enrol("arrive-01")
    labels = f"/endpoints/{agent.endpoint}/labels"
    async with agent.linked() as wire:
        saved = await admin.ask("PUT", "/groups/arrive/policy", json={"settings": HOUR, "based_on": 0})
        assert (saved.status, saved.json["version"], saved.json["changed_by"]) == (200, 1, "admin")
        await admin.ask("PATCH", labels, json={"add": ["arrive=1"]})
        envelope = await wire.hear_order()
        assert (envelope.kind, envelope.body.settings) == ("policy", HOUR)
        assert envelope.version
        await admin.ask("DELETE", "/groups/arrive")
        assert (await wire.hear_order()).body.settings == {}
    async with agent.linked() as wire:
        assert (await wire.hear_order()).body.settings == {}


async def test_what_an_endpoint_follows_is_told_with_the_reason(live: Live, admin: Person) -> None:
    """Which of its groups decided each section; and the endpoint shows its groups."""
    await make(admin, "why", "why=1")
    agent = await live.enrol("why-01")
    await admin.ask("PATCH", f"/endpoints/{agent.endpoint}/labels", json={"add": ["why=1"]})
    await admin.ask("PUT", "/groups/why/policy", json={"settings": HOUR})
    found = (await admin.ask("GET", "/endpoints/why-01/policy")).json
    assert (found["hostname"], found["groups"], found["decided_by"]) == ("why-01", ["why", "all"], {"isolation": "why"})
    assert found["settings"]["isolation"]["duration"] == "1h"
    assert (await admin.ask("GET", "/groups/why/policy")).json["settings"] == found["settings"]
    assert (await admin.ask("GET", "/endpoints/why-01")).json["groups"] == ["why", "all"]


async def test_endpoints_of_a_group_are_listed(live: Live, admin: Person) -> None:
    """With the other filters, and only living groups."""
    await make(admin, "listed", "listed=1")
    agent, _ = await live.enrol("listed-01"), await live.enrol("listed-02")
    await admin.ask("PATCH", f"/endpoints/{agent.endpoint}/labels", json={"add": ["listed=1"]})
    found = (await admin.ask("GET", "/endpoints?group=listed")).json["items"]
    assert [one["hostname"] for one in found] == ["listed-01"]
    assert (await admin.ask("GET", "/endpoints?group=listed&search=listed-02")).json["items"] == []
    assert len((await admin.ask("GET", "/endpoints?group=all&search=listed-")).json["items"]) == 2
    assert (await admin.ask("GET", "/endpoints?group=nowhere")).code == "not-found"


async def test_a_section_that_is_not_known_is_refused(admin: Person) -> None:
    """A typo must not silently clear a policy."""
    await make(admin, "typo", "typo=1")
    await admin.ask("PUT", "/groups/typo/policy", json={"settings": HOUR})
    for settings in ({"isolatoin": {}}, {"isolation": {"durration": "1h"}}, {"isolation": {"duration": "5x"}}):
        answer = await admin.ask("PUT", "/groups/typo/policy", json={"settings": settings})
        assert (answer.status, answer.code) == (422, "invalid")
    assert (await admin.ask("GET", "/groups/typo/policy")).json["version"] == 1


async def test_who_edits_an_older_version_is_told(admin: Person) -> None:
    """409, and the newer one stays."""
    await make(admin, "race", "race=1")
    await admin.ask("PUT", "/groups/race/policy", json={"settings": HOUR, "based_on": 0})
    late = await admin.ask("PUT", "/groups/race/policy", json={"settings": {}, "based_on": 0})
    assert (late.status, late.code) == (409, "conflict")
    assert (await admin.ask("GET", "/groups/race/policy")).json["settings"]["isolation"] is not None


async def test_a_viewer_looks_and_changes_nothing(live: Live, admin: Person) -> None:
    """READ sees groups and policies; CONFIGURE is another right; a stranger sees nothing."""
    await make(admin, "seen", "seen=1")
    viewer = live.person()
    assert (await viewer.ask("GET", "/groups")).status == 401
    await viewer.sign_in(f"a-{Role.VIEWER}", PASSWORD)
    for path in ("/groups", "/groups/seen", "/groups/seen/policy"):
        assert (await viewer.ask("GET", path)).status == 200
    lead = live.person()
    await lead.sign_in(f"a-{Role.INCIDENT_LEAD}", PASSWORD)
    for method, path, body in (
        ("POST", "/groups", {"name": "mine", "labels": []}),
        ("PATCH", "/groups/seen", {"rank": 1}),
        ("PUT", "/groups/seen/policy", {"settings": {}}),
        ("DELETE", "/groups/seen", None),
    ):
        assert (await lead.ask(method, path, json=body)).status == 403


async def test_an_order_is_addressed_to_a_group(live: Live, admin: Person) -> None:
    """Resolved when it is submitted; a group that is not there says which are."""
    await make(admin, "ordered", "ordered=1")
    agent = await live.enrol("ordered-01")
    await admin.ask("PATCH", f"/endpoints/{agent.endpoint}/labels", json={"add": ["ordered=1"]})
    made = await admin.order("list_processes", group="ordered", params={})
    assert [one["hostname"] for one in made.json["tasks"]] == ["ordered-01"]
    missing = await admin.order("list_processes", group="odrered", params={})
    assert missing.code == "not-found"
    assert "ordered" in missing.json["error"]["expected"]
