"""Detections over HTTP."""

import pytest
from sqlalchemy import update

from stanch.core.frames import Notice
from stanch.core.policy import Role
from stanch.server.store.tables import accounts
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def told(live: Live, hostname: str, *kinds: str) -> str:
    """An endpoint that told these notices; its id."""
    agent = await live.enrol(hostname)
    notices = [Notice(seq=n, kind=kind, detail={"n": n}, at=1_000 + n) for n, kind in enumerate(kinds, 1)]
    await live.services.fleet.notice(agent.endpoint, notices)
    return agent.endpoint


async def test_what_matters_is_listed_the_newest_first(live: Live, admin: Person) -> None:
    """Notices that are no detection are left out."""
    endpoint = await told(live, "det-01", "policy-changed", "effect-lifted", "isolation-tampered")
    found = (await admin.ask("GET", "/detections?endpoint=det-01")).json["items"]
    assert [(one["kind"], one["severity"]) for one in found] == [
        ("isolation-tampered", "high"),
        ("policy-changed", "medium"),
    ]
    assert {one["endpoint"] for one in found} == {endpoint}
    assert found[0]["detail"] == {"n": 3}


async def test_a_severity_is_the_least(live: Live, admin: Person) -> None:
    """Worse ones are shown too."""
    await told(live, "det-02", "local-order", "policy-changed", "isolation-tampered")
    found = (await admin.ask("GET", "/detections?endpoint=det-02&severity=medium")).json["items"]
    assert [one["kind"] for one in found] == ["isolation-tampered", "policy-changed"]
    one_kind = (await admin.ask("GET", "/detections?endpoint=det-02&kind=local-order")).json["items"]
    assert [one["kind"] for one in one_kind] == ["local-order"]


async def test_pages_go_on(live: Live, admin: Person) -> None:
    """Each once."""
    await told(live, "det-03", *["policy-changed"] * 5)
    numbers, after = [], ""
    while after is not None:
        page = (await admin.ask("GET", f"/detections?endpoint=det-03&limit=2{after and '&after=' + after}")).json
        numbers += [one["id"] for one in page["items"]]
        after = page["next"]
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(numbers) == 5


@pytest.mark.parametrize(("query", "known"), [("kind=flood", "isolation-tampered"), ("severity=dire", "high")])
async def test_unknown_words_are_refused(live: Live, admin: Person, query: str, known: str) -> None:
    """422, and the known ones are named."""
    answer = await admin.ask("GET", f"/detections?{query}")
    assert (answer.status, answer.code) == (422, "invalid")
    assert known in answer.json["error"]["expected"]


async def test_a_viewer_may_look_and_a_stranger_not(live: Live) -> None:
    """READ is enough; nothing is not."""
    stranger = live.person()
    assert (await stranger.ask("GET", "/detections")).status == 401
    await stranger.sign_in(f"a-{Role.VIEWER}", PASSWORD)
    assert (await stranger.ask("GET", "/detections")).status == 200


async def test_an_unknown_endpoint_is_not_one_that_is_well(live: Live, admin: Person) -> None:
    """A mistyped name is refused; an endpoint that told nothing has an empty list."""
    await told(live, "det-quiet")
    assert (await admin.ask("GET", "/detections?endpoint=det-quiet")).json["items"] == []
    answer = await admin.ask("GET", "/detections?endpoint=det-quite")
    assert (answer.status, answer.code) == (404, "not-found")


async def test_labels_limit_whose_detections_are_seen(live: Live, admin: Person) -> None:
    """Somebody who is limited to some endpoints finds nothing of others, and is told so if they name one."""
    endpoint = await told(live, "det-limited", "isolation-tampered")
    await told(live, "det-other", "isolation-tampered")
    await live.services.accounts.create("limited", PASSWORD, [Role.RESPONDER])
    limit = update(accounts).where(accounts.c.name == "limited").values(labels=["env=test"])
    await live.services.database.write(lambda connection: connection.execute(limit))
    person = live.person()
    await person.sign_in("limited")
    assert (await person.ask("GET", "/detections")).json["items"] == []
    answer = await person.ask("GET", "/detections?endpoint=det-other")
    assert (answer.status, answer.code) == (403, "denied")
    change = {"add": ["env=test"], "remove": []}
    assert (await admin.ask("PATCH", f"/endpoints/{endpoint}/labels", json=change)).status == 200
    assert [one["endpoint"] for one in (await person.ask("GET", "/detections")).json["items"]] == [endpoint]


async def test_a_host_name_does_not_stand_for_the_id_of_another(live: Live, admin: Person) -> None:
    """Whoever is asked for by id is not mixed up with an endpoint that calls itself so."""
    victim = await told(live, "det-victim", "isolation-tampered")
    await told(live, victim, "local-order", "local-order")
    found = (await admin.ask("GET", f"/detections?endpoint={victim}")).json["items"]
    assert [(one["hostname"], one["kind"]) for one in found] == [("det-victim", "isolation-tampered")]
