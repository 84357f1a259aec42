"""The way of content to its endpoints: who is told, when, and who gets the bytes."""

import asyncio
from contextlib import asynccontextmanager, contextmanager

import pytest

from stanch.core import envelope as envelopes
from stanch.core.errors import NotFound
from stanch.core.rest import GroupChange, GroupCreate, LabelChange
from stanch.core.rest_content import ForGroups, Publish
from stanch.server.content import ContentDesk
from stanch.server.content_lint import Linter
from stanch.server.content_packs import Packs
from stanch.worker.ask_lint import Looked
from tests.fakes.packed import GOOD, chunks, pack
from tests.fakes.server_parts import principal
from tests.fakes.waiting import eventually


class Endpoint:
    """The other end of a link: keeps what it was sent, checked as an agent checks it."""

    def __init__(self, parts, endpoint: str) -> None:
        self.parts, self.endpoint = parts, endpoint
        self.bodies: asyncio.Queue = asyncio.Queue()
        self.version = 0

    async def send(self, frame) -> None:
        kind = envelopes.Kind.CONTENT
        checked = envelopes.verify(
            frame.envelope,
            keys={str(self.parts.key.kid): self.parts.key},
            endpoint=self.endpoint,
            now=self.parts.clock.now,
            versions={kind: self.version},
        )
        assert checked.kind is kind
        self.version = checked.version
        self.bodies.put_nowait(checked.body.packs)

    def close(self) -> None:
        """Nothing to close."""

    @contextmanager
    def linked(self):
        """A link that says hello."""
        with self.parts.dispatcher.attach(self.endpoint, self.send, self.close):
            self.parts.content_way.wake(self.endpoint)
            yield self

    async def told(self) -> dict[str, int]:
        """What it should have, by the next envelope."""
        return {one.name: one.version for one in await asyncio.wait_for(self.bodies.get(), 5)}

    async def told_nothing(self) -> None:
        """Everybody who waited was looked at, and nothing came."""
        await eventually(lambda: not self.parts.content_way._woken.is_set())
        assert self.bodies.empty()


@asynccontextmanager
async def running(parts):
    """The loop, for the length of a test."""
    loops = [asyncio.get_running_loop().create_task(one.run()) for one in parts.standing.kinds]
    try:
        yield
    finally:
        for one in loops:
            one.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def all_count(_descriptor: int) -> Looked:
    """A worker for which one rule counts, whatever it is."""
    return Looked(confined={}, files=((1, 0),), problems=(), unknown=(), why_incomplete="")


async def desk_of(parts, tmp_path) -> ContentDesk:
    """A desk whose changes are told."""
    desk = ContentDesk(
        packs=Packs(tmp_path / "content"),
        database=parts.database,
        listeners=parts.standing,
        linter=Linter(ask=all_count),
        now=parts.clock,
    )
    await desk.recover()
    return desk


async def bring(desk, name: str, number: int) -> str:
    """A version; the hash of its pack."""
    made = await desk.take(principal(), name, chunks(pack({"a.yar": GOOD + b"//%d" % number})))
    return made.version.sha256


async def publish_one(parts, tmp_path) -> str:
    """Something that is published for everybody."""
    desk = await desk_of(parts, tmp_path)
    digest = await bring(desk, "apt", 1)
    await desk.publish(principal(), "apt", Publish(version=1))
    return digest


@pytest.fixture
async def desk(parts, tmp_path):
    """Two endpoints, one of them in a group, two versions, and the loop."""
    await parts.add_endpoints("a", labels=["role=web"])
    await parts.add_endpoints("b")
    await parts.groups.create(principal(), GroupCreate(name="web", labels=("role=web",)))
    made = await desk_of(parts, tmp_path)
    for number in (1, 2):
        await bring(made, "apt", number)
    async with running(parts):
        yield made


@pytest.fixture
def web(parts) -> Endpoint:
    return Endpoint(parts, "end_a")


@pytest.fixture
def other(parts) -> Endpoint:
    return Endpoint(parts, "end_b")


async def test_a_publication_arrives_at_once(desk, web, other):
    """And a rollback, and its end: each newer than the one before, and only where it changes something."""
    with web.linked(), other.linked():
        await web.told_nothing()
        await desk.publish(principal(), "apt", Publish(version=1))
        assert [await web.told(), await other.told()] == [{"apt": 1}] * 2
        await desk.publish(principal(), "apt", Publish(version=2, groups=("web",)))
        assert await web.told() == {"apt": 2}
        await other.told_nothing()
        await desk.unpublish(principal(), "apt", ForGroups(groups=("web",)))
        assert await web.told() == {"apt": 1}
        await desk.unpublish(principal(), "apt", ForGroups())
        assert [await web.told(), await other.told()] == [{}] * 2


async def test_every_hello_is_answered(desk, web, other):
    """Also with nothing, once there was something: the endpoint may have missed its end. Not if there never was."""
    with other.linked():
        await other.told_nothing()
    await desk.publish(principal(), "apt", Publish(version=1, groups=("web",)))
    for _ in range(2):
        with web.linked():
            assert await web.told() == {"apt": 1}
    await desk.unpublish(principal(), "apt", ForGroups())
    with web.linked():
        assert await web.told() == {}
    with other.linked():
        await other.told_nothing()


async def test_changed_labels_ranks_and_groups_are_followed(parts, desk, web):
    """As policies follow them; of its groups the one with the smallest rank decides, for each name."""
    await bring(desk, "more", 1)
    await desk.publish(principal(), "apt", Publish(version=1))
    await desk.publish(principal(), "apt", Publish(version=2, groups=("web",)))
    await desk.publish(principal(), "more", Publish(version=1))
    with web.linked():
        assert await web.told() == {"apt": 2, "more": 1}
        await parts.groups.change(principal(), "web", GroupChange(rank=1_000_000))
        assert await web.told() == {"apt": 1, "more": 1}
        await parts.groups.change(principal(), "web", GroupChange(rank=1))
        assert await web.told() == {"apt": 2, "more": 1}
        await parts.fleet.label(principal(), "a", LabelChange(remove=("role",)))
        parts.standing.wake("end_a")
        assert await web.told() == {"apt": 1, "more": 1}


async def test_bytes_are_for_those_who_should_have_them(parts, desk):
    """To everybody else, and for a version that is not theirs, they do not exist."""
    first, second = (await desk.version("apt", 1)).sha256, (await desk.version("apt", 2)).sha256
    way = parts.content_way
    await desk.publish(principal(), "apt", Publish(version=1, groups=("web",)))
    await way.require("end_a", first)
    for endpoint, digest in (("end_b", first), ("end_a", second), ("end_none", first)):
        with pytest.raises(NotFound):
            await way.require(endpoint, digest)
    await desk.publish(principal(), "apt", Publish(version=2, groups=("web",)))
    await way.require("end_a", second)
    with pytest.raises(NotFound):
        await way.require("end_a", first)
