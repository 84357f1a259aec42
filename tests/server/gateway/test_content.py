"""Packs on their way out: for the endpoints that should have them, in ranges, few at a time."""

import asyncio
import hashlib

import pytest

from stanch.core.content import CONTENT_PATH
from stanch.core.envelope import ContentBody
from stanch.server.gateway import content as module
from tests.fakes.packed import GOOD, pack
from tests.server.live import Agent, Live, Person

DATA = pack({f"{n}.yar": GOOD.replace(b"good", b"r%d" % n) for n in range(50)})
DIGEST = hashlib.sha256(DATA).hexdigest()
PATH = f"{CONTENT_PATH}/{DIGEST}"


async def bring(person: Person) -> None:
    answer = await person.ask("POST", "/content", data=DATA, params={"name": "apt"})
    assert answer.status == 201, answer.body


async def publish(person: Person, *groups: str) -> None:
    answer = await person.ask("POST", "/content/apt/publish", json={"version": 1, "groups": groups or ["all"]})
    assert answer.status == 200, answer.body


@pytest.fixture
async def admin(live: Live) -> Person:
    """Who has imported a version."""
    person = await live.admin()
    await bring(person)
    return person


async def test_an_agent_is_told_and_fetches(live: Live, admin: Person) -> None:
    """At its hello, and when it is published; then it gets exactly those bytes."""
    agent = await live.enrol()
    async with agent.linked() as wire:
        await publish(admin)
        told = (await wire.hear_order()).body
        assert isinstance(told, ContentBody)
        assert [(one.name, one.sha256, one.size) for one in told.packs] == [("apt", DIGEST, len(DATA))]
    async with agent.linked() as wire:
        assert (await wire.hear_order()).body == told
    answer = await agent.ask("GET", PATH)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert "Server" not in answer.headers


@pytest.mark.parametrize(
    ("wanted", "status", "data"),
    [
        ("bytes=0-0", 206, DATA[:1]),
        ("bytes=1000-2000", 206, DATA[1000:2001]),
        (f"bytes={len(DATA) - 1}-{len(DATA) + 5}", 206, DATA[-1:]),
        (f"bytes={len(DATA)}-", 416, None),
        ("bytes=x", 416, None),
    ],
)
async def test_ranges(live: Live, admin: Person, wanted: str, status: int, data: bytes | None) -> None:
    """A part of it, and what is beyond the end."""
    agent = await live.enrol()
    await publish(admin)
    answer = await agent.ask("GET", PATH, headers={"Range": wanted})
    assert answer.status == status
    assert data is None or answer.body == data


async def test_an_endpoint_of_another_group_is_refused(live: Live, admin: Person) -> None:
    """To it the bytes do not exist; nor to anybody before they are published, or after."""
    token = await admin.new_token(labels=["role=web"])
    web, other = await live.enrol("web-01", token=token), await live.enrol("db-01")
    created = await admin.ask("POST", "/groups", json={"name": "web", "labels": ["role=web"]})
    assert created.status == 201
    assert (await web.ask("GET", PATH)).code == "not-found"
    await publish(admin, "web")
    assert (await web.ask("GET", PATH)).body == DATA
    assert (await other.ask("GET", PATH)).code == "not-found"
    assert (await web.ask("GET", f"{CONTENT_PATH}/{'0' * 64}")).code == "not-found"
    assert (await admin.ask("POST", "/content/apt/unpublish", json={})).status == 200
    assert (await web.ask("GET", PATH)).code == "not-found"


async def test_a_pack_that_is_gone_from_the_disk(live: Live, admin: Person) -> None:
    """Is an error that says so."""
    agent = await live.enrol()
    await publish(admin)
    live.services.content.packs.path(DIGEST).unlink()
    assert (await agent.ask("GET", PATH)).code == "not-found"


async def test_few_at_a_time(live: Live, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one endpoint; another one is not held up."""
    agent, other = await live.enrol(), await live.enrol("web-02")
    await publish(admin)
    entered, goes_on = asyncio.Semaphore(0), asyncio.Event()
    require = live.services.content_way.require

    async def slow(endpoint: str, sha256: str) -> None:
        if endpoint == agent.endpoint:
            entered.release()
            await goes_on.wait()
        await require(endpoint, sha256)

    monkeypatch.setattr(live.services.content_way, "require", slow)
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(agent.ask("GET", PATH)) for _ in range(module.AT_ONCE)]
        for _ in first:
            await entered.acquire()
        assert (await agent.ask("GET", PATH)).code == "unavailable"
        assert (await other.ask("GET", PATH)).status == 200
        goes_on.set()
    assert [one.result().status for one in first] == [200] * module.AT_ONCE
    assert (await agent.ask("GET", PATH)).status == 200


async def test_nobody_without_a_certificate_gets_in(live: Live, admin: Person) -> None:
    """401, whatever is asked for."""
    agent: Agent = await live.enrol()
    assert (await agent.ask("GET", PATH, tls=live.tls)).status == 401
