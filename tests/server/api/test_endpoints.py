"""Endpoints over HTTP."""

import pytest

from stanch.core.policy import Role
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_endpoints_are_found_by_address(live: Live, admin: Person) -> None:
    """Once they have told it in their hello."""
    agent = await live.enrol("find-01")
    await live.enrol("find-02")
    async with agent.linked():
        found = (await admin.ask("GET", "/endpoints?search=10.0.0.5")).json["items"]
        assert [(one["hostname"], one["online"]) for one in found] == [("find-01", True)]


async def test_labels_are_set_searched_and_removed(live: Live, admin: Person) -> None:
    """All that are named must be carried."""
    agent = await live.enrol("label-01")
    path = f"/endpoints/{agent.endpoint}/labels"
    assert (await admin.ask("PATCH", path, json={"add": ["env=prod", "site=a"]})).json["labels"] == [
        "env=prod",
        "site=a",
    ]
    both = (await admin.ask("GET", "/endpoints?label=env=prod&label=site=a")).json["items"]
    assert [one["id"] for one in both] == [agent.endpoint]
    assert (await admin.ask("GET", "/endpoints?label=env=prod&label=site=b")).json["items"] == []
    assert (await admin.ask("PATCH", path, json={"remove": ["env"]})).json["labels"] == ["site=a"]
    assert (await admin.ask("PATCH", path, json={"add": ["nolabel"]})).status == 422


async def test_pages(live: Live, admin: Person) -> None:
    """By id, with where to go on."""
    token = await admin.new_token(uses=3)
    ids = {(await live.enrol(f"page-{n}", token=token)).endpoint for n in range(3)}
    first = (await admin.ask("GET", "/endpoints?search=page-&limit=2")).json
    rest = (await admin.ask("GET", f"/endpoints?search=page-&limit=2&after={first['next']}")).json
    assert {one["id"] for one in (*first["items"], *rest["items"])} == ids
    assert rest["next"] is None


async def test_one_endpoint_by_name_or_id(live: Live, admin: Person) -> None:
    """Others are not there."""
    agent = await live.enrol("one-01")
    by_name = (await admin.ask("GET", "/endpoints/one-01")).json
    assert by_name == (await admin.ask("GET", f"/endpoints/{agent.endpoint}")).json
    assert (await admin.ask("GET", "/endpoints/nobody")).code == "not-found"


async def test_revoking_needs_a_role(live: Live, admin: Person) -> None:
    """A responder may not; an administrator may, and the endpoint stays out."""
    agent, responder = await live.enrol("revoke-01"), live.person()
    await responder.sign_in(f"a-{Role.RESPONDER}", PASSWORD)
    path = f"/endpoints/{agent.endpoint}/revoke"
    assert (await responder.ask("POST", path)).status == 403
    async with agent.linked() as wire:
        assert (await admin.ask("POST", path)).json["revoked"]
        await wire.hear_end()
    assert (await agent.ask("GET", "/v1/link")).status == 403


async def test_release_codes_are_told_to_those_who_may(live: Live, admin: Person) -> None:
    """With the reason in the audit; a responder, who may isolate, does not see them; without one there is a hint."""
    agent = await live.enrol("code-01")
    path = f"/endpoints/{agent.endpoint}/release-codes"
    assert (await admin.ask("GET", path)).status == 404
    async with agent.linked():
        order = (await admin.order("isolate", endpoints=[agent.endpoint])).json
        answer = await admin.ask("GET", path, params={"reason": "rack 7"})
    (code,) = answer.json["codes"]
    assert (code["task"], code["order"], code["in_force"]) == (order["tasks"][0]["id"], order["id"], False)
    assert code["code"] == live.services.codes.code(code["task"])
    newest = (await admin.ask("GET", "/audit?limit=1")).json["items"][0]
    assert (newest["what"], newest["detail"]["reason"]) == ("release-code", "rack 7")
    responder = live.person()
    await responder.sign_in("a-responder", PASSWORD)
    assert (await responder.ask("GET", path)).code == "denied"
    assert (await admin.ask("GET", path, params={"reason": "x" * 5000})).status == 422
