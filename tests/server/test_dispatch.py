"""The dispatcher: claims before it sends, delivers again after a reconnect, sweeps."""

import asyncio
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta

from stanch.core import envelope as envelopes
from stanch.core.envelope import AddressesBody, Kind
from stanch.core.frames import Report
from stanch.core.rest import OrderCommon
from stanch.core.task import State
from tests.fakes.server_parts import principal


class Agent:
    """The other end of a link: keeps what it was sent, checked as an agent checks it."""

    def __init__(self, parts, endpoint: str) -> None:
        self.parts, self.endpoint = parts, endpoint
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.closing = asyncio.Event()
        self.broken = False

    async def send(self, frame) -> None:
        if self.broken:
            raise ConnectionResetError
        self.inbox.put_nowait(frame)

    def close(self) -> None:
        self.closing.set()

    async def next(self):
        """The body of the next envelope."""
        frame = await asyncio.wait_for(self.inbox.get(), 5)
        keys = {str(self.parts.key.kid): self.parts.key}
        checked = envelopes.verify(
            frame.envelope, keys=keys, endpoint=self.endpoint, now=self.parts.clock.now, versions={}
        )
        return checked.body


@asynccontextmanager
async def running(parts):
    """The dispatcher's loop, for the length of a test."""
    loop = asyncio.get_running_loop().create_task(parts.dispatcher.run())
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def order(parts, *endpoints: str):
    """Order a release."""
    return await parts.orders.submit(principal(), "release", {}, OrderCommon(endpoints=endpoints))


async def states(parts, view) -> dict:
    """Where the tasks of an order are."""
    return (await parts.orders.get(view.id)).states


async def test_a_task_is_sent_before_it_is_on_the_wire(parts):
    """When the envelope arrives, the store already says `sent`, and the envelope says what was ordered."""
    await parts.add_endpoints("web")
    agent = Agent(parts, "end_web")
    async with running(parts):
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            view = await order(parts, "web")
            body = await agent.next()
    assert (body.kind, body.task, body.action) == (Kind.ORDER, view.tasks[0].id, "release")
    assert await states(parts, view) == {State.SENT: 1}


async def test_waits_for_its_endpoint(parts):
    """A task for an endpoint that is away is delivered when it comes."""
    await parts.add_endpoints("web")
    view = await order(parts, "web")
    agent = Agent(parts, "end_web")
    async with running(parts):
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            assert (await agent.next()).task == view.tasks[0].id


async def test_a_lost_delivery_comes_again(parts):
    """A task that was sent into a dying link is delivered again at the next one, until it is final."""
    await parts.add_endpoints("web")
    dying, agent, third = Agent(parts, "end_web"), Agent(parts, "end_web"), Agent(parts, "end_web")
    dying.broken = True
    async with running(parts):
        with parts.dispatcher.attach("end_web", dying.send, dying.close):
            view = await order(parts, "web")
            await asyncio.wait_for(dying.closing.wait(), 5)
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            assert (await agent.next()).task == view.tasks[0].id
            result = {"changed": False, "allowed": [], "remaining": None}
            done = Report(seq=1, task=view.tasks[0].id, state=State.DONE, result=result, at=1.0)
            await parts.orders.report("end_web", [done])
        with parts.dispatcher.attach("end_web", third.send, third.close):
            later = await order(parts, "web")
            assert (await third.next()).task == later.tasks[0].id


async def test_a_cancel_reaches_the_endpoint(parts):
    """Cancelling a sent task delivers a cancel; after a reconnect the order comes too, to be answered."""
    await parts.add_endpoints("web")
    agent, back = Agent(parts, "end_web"), Agent(parts, "end_web")
    async with running(parts):
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            view = await order(parts, "web")
            await agent.next()
            await parts.orders.cancel(principal(), view.id)
            assert (await agent.next()).kind is Kind.CANCEL
        with parts.dispatcher.attach("end_web", back.send, back.close):
            assert [(await back.next()).kind for _ in range(2)] == [Kind.CANCEL, Kind.ORDER]


async def test_the_newest_link_wins(parts):
    """A second link of one identity closes the first and gets the work."""
    await parts.add_endpoints("web")
    old, new = Agent(parts, "end_web"), Agent(parts, "end_web")
    async with running(parts):
        with (
            parts.dispatcher.attach("end_web", old.send, old.close) as before,
            parts.dispatcher.attach("end_web", new.send, new.close) as older,
        ):
            assert before is None
            assert older is not None
            assert old.closing.is_set()
            await order(parts, "web")
            await new.next()
        assert old.inbox.empty()


async def test_addresses_carry_growing_versions(parts):
    """Each signed addresses envelope is newer than the one before."""
    keys = {str(parts.key.kid): parts.key}
    versions = []
    for _ in range(3):
        frame = await parts.dispatcher.addresses("end_web", AddressesBody(urls=("https://a",), nonce="n"))
        newest = {Kind.ADDRESSES: versions[-1]} if versions else {}
        checked = envelopes.verify(frame.envelope, keys=keys, endpoint="end_web", now=None, versions=newest)
        versions.append(checked.version)
    assert versions == sorted(set(versions))


async def test_many_endpoints_get_one_each(parts):
    """An order to more endpoints than one chunk reaches each of them exactly once."""
    ids = await parts.add_endpoints(*(f"h{i}" for i in range(1203)))
    got: list[str] = []
    done = asyncio.Event()

    def sender(endpoint: str):
        async def send(_frame) -> None:
            got.append(endpoint)
            if len(got) == len(ids):
                done.set()

        return send

    async with running(parts):
        with ExitStack() as links:
            for one in ids:
                links.enter_context(parts.dispatcher.attach(one, sender(one), lambda: None))
            view = await order(parts, *ids)
            await asyncio.wait_for(done.wait(), 30)
    assert sorted(got) == sorted(ids)
    assert await states(parts, view) == {State.SENT: 1203}


async def test_everything_is_delivered_again_however_much(parts, monkeypatch):
    """An endpoint that comes back gets all of its open tasks, and new ones too, not only the oldest."""
    monkeypatch.setattr("stanch.server.dispatch.MAX_PER_ENDPOINT", 2)
    await parts.add_endpoints("web")
    lost, agent = Agent(parts, "end_web"), Agent(parts, "end_web")
    lost.broken = True
    async with running(parts):
        tasks = {(await order(parts, "web")).tasks[0].id for _ in range(3)}
        with parts.dispatcher.attach("end_web", lost.send, lost.close):
            await asyncio.wait_for(lost.closing.wait(), 5)
        tasks |= {(await order(parts, "web")).tasks[0].id for _ in range(2)}
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            assert {(await agent.next()).task for _ in range(5)} == tasks


async def test_a_task_that_cannot_be_signed_stops_no_other(parts, monkeypatch):
    """Whatever goes wrong with one delivery, the next is made."""
    await parts.add_endpoints("web")
    agent, sign = Agent(parts, "end_web"), parts.signer.sign
    tasks = {(await order(parts, "web")).tasks[0].id for _ in range(2)}
    failed = []

    def sign_all_but_the_first(endpoint, body, **more):
        if not failed:
            failed.append(body.task)
            raise ValueError
        return sign(endpoint, body, **more)

    monkeypatch.setattr(parts.signer, "sign", sign_all_but_the_first)
    async with running(parts):
        with parts.dispatcher.attach("end_web", agent.send, agent.close):
            assert {(await agent.next()).task, *failed} == tasks


async def test_the_sweep_tells_what_expired(parts):
    """Whoever watches an order hears that it will not be sent any more."""
    await parts.add_endpoints("web")
    view = await order(parts, "web")
    parts.clock.pass_(timedelta(days=365))
    with parts.bus.subscribe(view.id) as subscription:
        await parts.dispatcher.sweep_once()
        event = await asyncio.wait_for(subscription.next(), 5)
    assert (event.task, event.endpoint, event.state) == (view.tasks[0].id, "end_web", State.EXPIRED)


async def test_the_sweep_gives_up_on_revoked_endpoints(parts):
    """Nobody waits for the answer of an endpoint that cannot come back; what it had not been sent expires."""
    await parts.add_endpoints("web", "db")
    asked = await order(parts, "web", "db")
    dead = Agent(parts, "end_web")
    dead.broken = True
    async with running(parts):
        with parts.dispatcher.attach("end_web", dead.send, dead.close):
            await asyncio.wait_for(dead.closing.wait(), 5)
    await parts.dispatcher.sweep_once()
    assert await states(parts, asked) == {State.SENT: 1, State.QUEUED: 1}
    await parts.fleet.revoke(principal(), "web")
    with parts.bus.subscribe() as subscription:
        await parts.dispatcher.sweep_once()
        assert (await asyncio.wait_for(subscription.next(), 5)).state is State.UNKNOWN
    assert await states(parts, asked) == {State.UNKNOWN: 1, State.QUEUED: 1}
    lost = next(one for one in (await parts.orders.get(asked.id)).tasks if one.endpoint == "end_web")
    assert (lost.error.code, lost.error.message) == ("interrupted", "The endpoint was revoked before it answered")
