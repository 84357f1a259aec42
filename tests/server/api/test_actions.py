"""Actions over HTTP: one route each, from the registry."""

import pytest

from stanch.core.policy import Role
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_actions_are_listed_as_they_are_declared(live: Live, admin: Person) -> None:
    """Name, schema, risk, undo and what happens after a crash."""
    listed = {one["name"]: one for one in (await admin.ask("GET", "/actions")).json}
    assert listed.keys() == live.services.registry.keys()
    for name, one in live.services.registry.items():
        assert listed[name]["risk"] == one.risk
        assert set(listed[name]["params"]["properties"]) == set(one.params.model_fields)


async def test_every_action_has_its_route_and_schema(live: Live, admin: Person) -> None:
    """OpenAPI knows the parameters of each, and needs no token."""
    schema = (await live.person().ask("GET", "/openapi.json")).json
    for name, one in live.services.registry.items():
        operation = schema["paths"][f"/api/v1/actions/{name}/orders"]["post"]
        assert operation["summary"] == one.summary
        body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert "params" in schema["components"]["schemas"][body]["properties"]


async def test_an_order_comes_back_with_its_tasks(live: Live, admin: Person) -> None:
    """201, queued."""
    agent = await live.enrol("actions-01")
    answer = await admin.order("kill_process", endpoints=["actions-01"], params={"pid": 5, "tree": False}, reason="x")
    order = answer.json
    assert answer.status == 201
    assert (order["action"], order["params"], order["reason"]) == ("kill_process", {"pid": 5, "tree": False}, "x")
    assert [(one["endpoint"], one["state"]) for one in order["tasks"]] == [(agent.endpoint, "queued")]
    assert order["states"] == {"queued": 1}


@pytest.mark.parametrize(
    ("action", "body", "wrong"),
    [
        ("explode", {"endpoints": ["wrong-01"]}, (404, "unknown-action")),
        ("reboot", {"endpoints": ["wrong-01"]}, (422, "invalid")),
        ("reboot", {"endpoints": ["wrong-01"], "confirm": "yes"}, (422, "invalid")),
        ("kill-process", {"endpoints": ["wrong-01"]}, (404, "not-found")),
        ("kill_process", {"endpoints": ["wrong-01"]}, (422, "invalid")),
        ("kill_process", {"endpoints": ["wrong-01"], "params": {"pid": 0}}, (422, "invalid")),
        ("kill_process", {"endpoints": ["wrong-01"], "params": {"pid": 1, "gently": True}}, (422, "invalid")),
        ("list_processes", {}, (422, "invalid")),
        ("list_processes", {"endpoints": ["wrong-01"], "colour": "red"}, (422, "invalid")),
        ("list_processes", {"endpoints": ["wrong-01"], "valid_for": "1000000h"}, (422, "invalid")),
        ("list_processes", {"endpoints": ["wrong-01"], "dry_run": True}, (422, "invalid")),
        ("list_processes", {"endpoints": ["nobody-there"]}, (404, "not-found")),
        ("list_processes", {"labels": ["no=such"]}, (404, "not-found")),
        ("list_processes", {"labels": ["nolabel"]}, (422, "invalid")),
        ("get_file", {"endpoints": ["wrong-01"], "params": {"path": "relative"}}, (422, "invalid")),
    ],
)
async def test_wrong_orders(live: Live, admin: Person, action: str, body: dict, wrong: tuple[int, str]) -> None:
    """Unknown action, field, type, endpoint: each with its code."""
    if not (await admin.ask("GET", "/endpoints?search=wrong-01")).json["items"]:
        await live.enrol("wrong-01")
    answer = await admin.order(action, **body)
    assert (answer.status, answer.code) == wrong, answer.body


async def test_what_must_be_typed_says_what_is_right(live: Live, admin: Person) -> None:
    """A program learns from the error what to send, and from the list of actions that it must; a dry run needs none."""
    await live.enrol("typed-01")
    refused = await admin.order("shutdown", endpoints=["typed-01"])
    assert refused.json["error"]["expected"] == "typed-01"
    assert (await admin.order("shutdown", endpoints=["typed-01"], dry_run=True)).status == 201
    assert (await admin.order("shutdown", endpoints=["typed-01"], confirm="typed-01")).status == 201
    typed = {one["name"]: one["typed"] for one in (await admin.ask("GET", "/actions")).json}
    assert (typed["shutdown"], typed["isolate"]) == (True, False)


@pytest.mark.parametrize(
    ("role", "action", "status"),
    [
        (Role.VIEWER, "list_processes", 403),
        (Role.ANALYST, "list_processes", 201),
        (Role.ANALYST, "release", 403),
        (Role.RESPONDER, "release", 201),
    ],
)
async def test_roles_decide_what_may_be_ordered(live: Live, role: Role, action: str, status: int) -> None:
    """Up to the risk that a role grants."""
    agent, person = await live.enrol("roles-01"), live.person()
    await person.sign_in(f"a-{role}", PASSWORD)
    assert (await person.order(action, endpoints=[agent.endpoint])).status == status
