"""Who asks, and how they say so."""

import pytest

from tests.server.live import Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", "Bearer " + "x" * 5000])
async def test_only_a_known_token_opens_the_door(live: Live, header: str) -> None:
    """Anything else is 401, with what to do."""
    answer = await live.person().ask("GET", "/whoami", headers={"Authorization": header})
    assert (answer.status, answer.code) == (401, "not-authenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "stanch login" in answer.json["error"]["hint"]


async def test_every_route_but_three_needs_a_token(live: Live) -> None:
    """The schema lists the routes; each is asked without one."""
    person = live.person()
    paths = (await person.ask("GET", "/openapi.json")).json["paths"]
    open_to_all = set()
    for path, methods in paths.items():
        for method in methods:
            answer = await person.ask(method.upper(), path.removeprefix("/api/v1").replace("{", "").replace("}", ""))
            if answer.status != 401:
                open_to_all.add(path.removeprefix("/api/v1"))
    assert open_to_all == {"/health", "/ca", "/login"}


async def test_the_origin_stands_in_the_order(live: Live, admin: Person) -> None:
    """As the client calls itself; `api` otherwise; nothing else is taken."""
    agent = await live.enrol("asking-01")
    path, body = "/actions/list_processes/orders", {"endpoints": [agent.endpoint]}
    for said in ("cli", "console", "api"):
        answer = await admin.ask("POST", path, json=body, headers={"X-Stanch-Origin": said})
        assert answer.json["origin"] == said
    assert (await admin.ask("POST", path, json=body)).json["origin"] == "api"
    for said in ("solution", "rule", "local", "x" * 1000):
        answer = await admin.ask("POST", path, json=body, headers={"X-Stanch-Origin": said})
        assert (answer.status, answer.code) == (422, "invalid")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=../x", "after="])
async def test_pages_are_bounded(admin: Person, query: str) -> None:
    """Whatever is asked for."""
    for path in ("/orders", "/endpoints", "/evidence"):
        assert (await admin.ask("GET", f"{path}?{query}")).status == 422
