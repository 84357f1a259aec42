"""The way of a policy to its endpoints: who is told, when, and what is repaired at the next hello."""

import asyncio
from contextlib import asynccontextmanager, contextmanager

import pytest
from sqlalchemy import select

from stanch.core import envelope as envelopes
from stanch.core.rest import GroupChange, GroupCreate, LabelChange, PolicyChange
from stanch.core.settings import NewSettings
from stanch.server.standing import CHUNK
from stanch.server.store import tables
from tests.fakes.server_parts import principal
from tests.fakes.waiting import eventually

HOUR = {"isolation": {"duration": "1h"}}
DAY = {"isolation": {"duration": "1d"}}


class Endpoint:
    """The other end of a link: keeps the policies that it was sent, checked as an agent checks them."""

    def __init__(self, parts, endpoint: str) -> None:
        self.parts, self.endpoint = parts, endpoint
        self.policies: asyncio.Queue = asyncio.Queue()
        self.version = 0
        self.closed = self.broken = False

    async def send(self, frame) -> None:
        if self.broken:
            raise ConnectionResetError
        kind = envelopes.Kind.POLICY
        keys = {str(self.parts.key.kid): self.parts.key}
        checked = envelopes.verify(
            frame.envelope,
            keys=keys,
            endpoint=self.endpoint,
            now=self.parts.clock.now,
            versions={kind: self.version},
        )
        assert checked.kind is kind
        self.version = checked.version
        self.policies.put_nowait(checked.body.settings)

    def close(self) -> None:
        self.closed = True

    @contextmanager
    def linked(self):
        """A link that says hello."""
        with self.parts.dispatcher.attach(self.endpoint, self.send, self.close):
            self.parts.policies.wake(self.endpoint)
            yield self

    async def told(self):
        """The next policy."""
        return await asyncio.wait_for(self.policies.get(), 5)

    async def told_nothing(self) -> None:
        """Everybody who waited was looked at, and nothing came."""
        await settled(self.parts)
        assert self.policies.empty()


async def settled(parts) -> None:
    """Nobody waits to be told."""
    await eventually(lambda: not parts.policies._woken.is_set())


@asynccontextmanager
async def running(parts):
    """The loop, for the length of a test."""
    loop = asyncio.get_running_loop().create_task(parts.policies.run())
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def say(parts, group: str, settings: dict) -> None:
    """Change a policy."""
    await parts.groups.change_policy(principal(), group, PolicyChange(settings=NewSettings.model_validate(settings)))


@pytest.fixture
async def web(parts):
    """An endpoint and its group, and the loop."""
    await parts.add_endpoints("a", labels=["role=web"])
    await parts.groups.create(principal(), GroupCreate(name="web", labels=("role=web",)))
    async with running(parts):
        yield Endpoint(parts, "end_a")


async def test_a_changed_policy_arrives_at_once(parts, web):
    """Signed, for this endpoint, without defaults, and each newer than the one before."""
    with web.linked():
        await web.told_nothing()
        await say(parts, "web", {"isolation": {"duration": "1h", "tell": False}})
        assert await web.told() == HOUR
        await say(parts, "web", {"isolation": {"duration": None}})
        assert await web.told() == {"isolation": {"duration": None}}


async def test_nothing_is_sent_to_whom_nothing_changes(parts, web):
    """Neither what another group decides, nor what is overruled, nor a new description."""
    await parts.groups.create(principal(), GroupCreate(name="db", labels=("role=db",)))
    await say(parts, "web", HOUR)
    with web.linked():
        assert await web.told() == HOUR
        await say(parts, "db", DAY)
        await say(parts, "all", DAY)
        await parts.groups.change(principal(), "web", GroupChange(description="Shops"))
        await web.told_nothing()


async def test_groups_that_come_change_and_go(parts, web):
    """A new rank, other labels and a deletion are followed at once."""
    await say(parts, "web", HOUR)
    await say(parts, "all", DAY)
    await parts.groups.create(principal(), GroupCreate(name="first", labels=("role=web",), rank=2000))
    await say(parts, "first", {"isolation": {}})
    with web.linked():
        assert await web.told() == HOUR
        await parts.groups.change(principal(), "first", GroupChange(rank=1))
        assert await web.told() == {"isolation": {}}
        await parts.groups.change(principal(), "first", GroupChange(labels=("role=db",)))
        assert await web.told() == HOUR
        await parts.groups.delete(principal(), "web")
        assert await web.told() == DAY


async def test_changed_labels_are_followed(parts, web):
    """Whoever changes them wakes the endpoint."""
    await say(parts, "web", HOUR)
    with web.linked():
        assert await web.told() == HOUR
        await parts.fleet.label(principal(), "a", LabelChange(remove=("role",)))
        parts.policies.wake("end_a")
        assert await web.told() == {}


async def test_every_hello_is_answered_with_the_policy(parts, web):
    """Also with none, once there was one: the endpoint may have missed its end."""
    await say(parts, "web", HOUR)
    for _ in range(2):
        with web.linked():
            assert await web.told() == HOUR
    await parts.groups.delete(principal(), "web")
    for _ in range(2):
        with web.linked():
            assert await web.told() == {}


async def test_who_was_never_told_is_not_told_nothing(parts, web):
    """A fleet without policies costs no envelopes."""
    with web.linked():
        await web.told_nothing()
    told = select(tables.endpoints.c.policy_told)
    assert not await parts.database.read(lambda connection: connection.execute(told).scalar())


async def test_it_is_written_down_before_it_is_sent(parts, web):
    """A crash in between must not leave an endpoint with a policy that nobody takes back."""
    seen: list[bool] = []
    query = select(tables.endpoints.c.policy_told)
    original = web.send

    async def send(frame) -> None:
        seen.append(await parts.database.read(lambda connection: connection.execute(query).scalar()))
        await original(frame)

    web.send = send
    await say(parts, "web", HOUR)
    with web.linked():
        await web.told()
    assert seen == [True]


async def test_a_link_that_breaks_is_closed_and_told_at_the_next_hello(parts, web):
    """Others in the same chunk are told nevertheless."""
    await parts.add_endpoints("b", labels=["role=web"])
    other = Endpoint(parts, "end_b")
    web.broken = True
    with web.linked(), other.linked():
        await say(parts, "web", HOUR)
        assert await other.told() == HOUR
        await eventually(lambda: web.closed)
    web.broken = False
    with web.linked():
        assert await web.told() == HOUR


async def test_many_are_told_in_chunks(parts, web, monkeypatch):
    """Everybody once, never more at a time than a chunk, and not on the event loop."""
    names = [f"n{n:03}" for n in range(2 * CHUNK + 5)]
    await parts.add_endpoints(*names, labels=["role=web"])
    many = [Endpoint(parts, f"end_{name}") for name in names]
    sizes: list[int] = []
    original = parts.signer.envelopes

    async def envelopes_of(bodies):
        sizes.append(len(bodies))
        return await original(bodies)

    monkeypatch.setattr(parts.signer, "envelopes", envelopes_of)
    links = [one.linked() for one in many]
    for link in links:
        link.__enter__()
    await settled(parts)
    await say(parts, "web", HOUR)
    assert [await one.told() for one in many] == [HOUR] * len(many)
    await settled(parts)
    assert all(one.policies.empty() for one in many)
    assert sum(sizes) == len(many)
    assert max(sizes) <= CHUNK
    for link in links:
        link.__exit__(None, None, None)


async def test_a_failure_loses_nobody(parts, monkeypatch):
    """Whoever starts the loop again finds them still waiting."""
    await parts.add_endpoints("a")
    await say(parts, "all", HOUR)
    endpoint = Endpoint(parts, "end_a")
    original = parts.signer.envelopes

    async def fail(_bodies):
        raise OSError("disk full")

    with endpoint.linked():
        monkeypatch.setattr(parts.signer, "envelopes", fail)
        with pytest.raises(OSError, match="disk full"):
            await parts.policies.run()
        monkeypatch.setattr(parts.signer, "envelopes", original)
        async with running(parts):
            assert await endpoint.told() == HOUR
