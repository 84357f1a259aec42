"""Orders and tasks over HTTP, and the stream of their changes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from stanch.core.policy import Role
from stanch.core.rest import TaskEvent
from stanch.server.api import orders as module
from stanch.server.bus.in_process import Bus
from tests.fakes.waiting import eventually
from tests.server.live import PASSWORD, PROCESSES, SOON, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_orders_are_listed_newest_first(live: Live, admin: Person) -> None:
    """Page by page, without tasks."""
    agent = await live.enrol("orders-01")
    ordered = [(await admin.order("list_processes", endpoints=[agent.endpoint])).json["id"] for _ in range(3)]
    first = (await admin.ask("GET", "/orders?limit=2")).json
    rest = (await admin.ask("GET", f"/orders?limit=2&after={first['next']}")).json
    assert [one["id"] for one in (*first["items"], *rest["items"])][:3] == ordered[::-1]
    assert first["items"][0]["tasks"] == []


async def test_an_order_and_its_task_can_be_looked_at(live: Live, admin: Person) -> None:
    """By their ids; others are not there."""
    agent = await live.enrol("orders-02")
    order = (await admin.order("list_processes", endpoints=[agent.endpoint])).json
    assert (await admin.ask("GET", f"/orders/{order['id']}")).json == order
    task = (await admin.ask("GET", f"/tasks/{order['tasks'][0]['id']}")).json
    assert (task["hostname"], task["action"]) == ("orders-02", "list_processes")
    for path in ("/orders/ord_none", "/tasks/tsk_none"):
        assert (await admin.ask("GET", path)).code == "not-found"
    assert (await admin.ask("GET", "/orders/a%20b")).status == 422


async def test_cancel(live: Live, admin: Person) -> None:
    """What was not sent is cancelled at once; twice is a conflict."""
    agent = await live.enrol("orders-03")
    order = (await admin.order("list_processes", endpoints=[agent.endpoint])).json["id"]
    assert (await admin.ask("POST", f"/orders/{order}/cancel")).json["states"] == {"cancelled": 1}
    again = await admin.ask("POST", f"/orders/{order}/cancel")
    assert (again.status, again.code) == (409, "conflict")


async def test_undo(live: Live, admin: Person) -> None:
    """A new order takes the old one back; before anything is done there is nothing to undo."""
    agent = await live.enrol("orders-04")
    async with agent.linked() as wire:
        order = (await admin.order("isolate", endpoints=[agent.endpoint])).json
        assert (await admin.ask("POST", f"/orders/{order['id']}/undo")).status == 409
        await wire.hear_order()
        result = {"changed": True, "since": "2026-11-24T12:00:00Z", "until": None, "sockets_destroyed": 0}
        await wire.report(1, order["tasks"][0]["id"], "done", result=result)
        undone = await admin.ask("POST", f"/orders/{order['id']}/undo")
        assert (undone.status, undone.json["action"]) == (201, "release")


async def test_looking_needs_a_role(live: Live) -> None:
    """A viewer looks; cancelling needs what ordering needs."""
    agent, viewer = await live.enrol("orders-05"), live.person()
    await viewer.sign_in(f"a-{Role.VIEWER}", PASSWORD)
    order = (await (await live.admin()).order("list_processes", endpoints=[agent.endpoint])).json["id"]
    assert (await viewer.ask("GET", f"/orders/{order}")).status == 200
    assert (await viewer.ask("POST", f"/orders/{order}/cancel")).status == 403


# --- events ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(person: Person, query: str = "") -> AsyncIterator[AsyncIterator[dict]]:
    """The event stream, from the moment when it is subscribed."""
    url, headers = f"{person.url}/api/v1/events{query}", {"Authorization": f"Bearer {person.token}"}
    async with person.session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(sock_read=SOON)) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert (await stream.content.readline()).startswith(b":")
        yield events_in(stream)


async def events_in(stream: aiohttp.ClientResponse) -> AsyncIterator[dict]:
    async for line in stream.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


async def test_a_task_is_watched_from_sent_to_done(live: Live, admin: Person) -> None:
    """Every change of its state, in order."""
    agent = await live.enrol("orders-06")
    order = (await admin.order("list_processes", endpoints=[agent.endpoint])).json
    task = order["tasks"][0]["id"]
    async with listening(admin, f"?order={order['id']}") as events, agent.linked() as wire:
        await wire.hear_order()
        await wire.report(1, task, "running")
        await wire.report(2, task, "done", result=PROCESSES)
        seen = [(await anext(events))["state"] for _ in range(3)]
    assert seen == ["sent", "running", "done"]


async def test_one_order_hears_nothing_of_another(live: Live, admin: Person) -> None:
    """The filter holds; without one, everything is heard."""
    agent = await live.enrol("orders-07")
    mine = (await admin.order("list_processes", endpoints=[agent.endpoint])).json["id"]
    async with listening(admin, f"?order={mine}") as events, listening(admin) as everything:
        other = (await admin.order("list_processes", endpoints=[agent.endpoint])).json["id"]
        await admin.ask("POST", f"/orders/{mine}/cancel")
        assert (await anext(events))["order"] == mine
        assert (await anext(everything))["order"] == other


async def test_an_unknown_order_has_no_events(admin: Person) -> None:
    """404 instead of silence."""
    assert (await admin.ask("GET", "/events?order=ord_none")).status == 404


async def test_a_quiet_stream_shows_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a comment now and then."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    lines = module._lines(Bus(), None)
    assert [await anext(lines) for _ in range(3)] == [": listening\n\n", ": still here\n\n", ": still here\n\n"]
    await lines.aclose()  # type: ignore[attr-defined]  # it is a generator


async def test_whoever_reads_too_slowly_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; a comment says why the stream ends."""
    monkeypatch.setattr("stanch.server.bus.in_process.MAX_QUEUED", 2)
    bus = Bus()
    lines = module._lines(bus, None)
    await anext(lines)
    for n in range(5):
        bus.publish(TaskEvent(type="progress", task="tsk_1", order="ord_1", endpoint="end_1", done=n))
    rest = [line async for line in lines]
    assert rest[-1].startswith(": too slow")
    assert not bus.listened_to


async def test_a_listener_that_goes_away_is_forgotten(live: Live, admin: Person) -> None:
    """Its subscription ends with its connection."""
    async with listening(admin):
        assert live.services.bus.listened_to
    await eventually(lambda: not live.services.bus.listened_to)
