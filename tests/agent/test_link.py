"""The link against a small gateway with real TLS: cuts, floods of nonsense, refusals, confirmations."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stanch.agent.link import Link
from stanch.agent.resolve import AddressBook
from stanch.core.envelope import AddressesBody
from stanch.core.errors import Expired
from stanch.core.frames import (
    PROTOCOL,
    Ack,
    Complaint,
    Deliver,
    Heartbeat,
    Hello,
    Inventory,
    Notice,
    ProgressFrame,
    Report,
)
from stanch.core.task import State
from tests.fakes.gateway import FakeGateway, gateway
from tests.fakes.waiting import eventually

SOON = timedelta(seconds=15)


@dataclass
class Outbox:
    """A spool in memory."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    entries: dict[int, Report | Notice] = field(default_factory=dict)

    def put(self, seq: int) -> None:
        self.entries[seq] = Report(seq=seq, task=f"tsk_{seq}", state=State.DONE, at=1.0)
        self.changed.set()

    async def pending(self, limit: int, *, after: int) -> Sequence[Report | Notice]:
        return [entry for seq, entry in sorted(self.entries.items()) if seq > after][:limit]

    async def ack(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.entries.pop(seq, None)


@dataclass
class About:
    """An endpoint that always says the same."""

    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def hello(self, nonce: str) -> Hello:
        return Hello(nonce=nonce, agent_version="1", inventory=Inventory(hostname="web-01"), actions={"isolate": 1})

    async def heartbeat(self) -> Heartbeat:
        return Heartbeat()


@dataclass
class Agent:
    """A running link with what surrounds it."""

    link: Link
    about: About
    outbox: Outbox
    accepted: list[str]
    book: AddressBook


@asynccontextmanager
async def running(server: FakeGateway, tmp_path: Path, *, book: AddressBook | None = None) -> AsyncIterator[Agent]:
    state = tmp_path / "state"
    identity = server.identity(state)
    outbox, about, accepted = Outbox(), About(), []
    book = book or AddressBook(state / "addresses.json", urls=identity.urls)

    async def accept(envelope: str, *, nonce: str) -> None:
        assert nonce == server.of(Hello)[-1].nonce
        accepted.append(envelope)
        if envelope == "bad":
            raise Expired("Its validity is over")
        if envelope == "worse":
            raise ZeroDivisionError

    link = Link(tls=identity.tls(state), book=book, outbox=outbox, jitter=lambda: 0.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.run(about=about, accept=accept))
        try:
            yield Agent(link, about, outbox, accepted, book)
        finally:
            task.cancel()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        yield one


def sent(server: FakeGateway) -> list[int]:
    return [frame.seq for frame in server.received if isinstance(frame, Report)]


async def test_reports_are_sent_once_and_forgotten_after_the_acknowledgement(server, tmp_path):
    """A healthy link sends each entry once, in order, and keeps nothing that the server has."""
    async with running(server, tmp_path) as agent:
        for seq in range(1, 251):
            agent.outbox.put(seq)
        await eventually(lambda: not agent.outbox.entries)
        assert sent(server) == list(range(1, 251))
        assert server.hellos == 1


async def test_what_is_not_acknowledged_is_sent_again_after_a_cut(server, tmp_path):
    """Cuts lose nothing: the same entries come again until the server acknowledges them."""
    server.acks = False
    async with running(server, tmp_path) as agent:
        agent.outbox.put(1)
        agent.outbox.put(2)
        await server.until(lambda: sent(server) == [1, 2])
        server.cut()
        await server.until(lambda: sent(server) == [1, 2, 1, 2])
        server.acks = True
        server.cut()
        await eventually(lambda: not agent.outbox.entries)
        assert server.hellos == 3


async def test_acknowledgements_that_come_twice_or_for_nothing_do_no_harm(server, tmp_path):
    """A second acknowledgement, and one for a number that was never sent, change nothing."""
    async with running(server, tmp_path) as agent:
        agent.outbox.put(1)
        await eventually(lambda: not agent.outbox.entries)
        await server.say(Ack(seqs=(1, 1, 99)))
        agent.outbox.put(2)
        await eventually(lambda: not agent.outbox.entries)
        assert sent(server) == [1, 2]


async def test_the_link_comes_back_when_the_server_was_away(server, tmp_path):
    """A server that stops and starts again finds its agents again."""
    async with running(server, tmp_path) as agent:
        await server.until(lambda: server.hellos == 1)
        await server.stop()
        await eventually(lambda: agent.link.status().server is None)
        assert agent.link.status().error
        await server.start()
        await server.until(lambda: server.hellos == 2)


@pytest.mark.parametrize(
    "nonsense",
    [b"\x00\x01", "", "{", '{"type": "launch"}', '{"type": "ack", "seqs": "all"}', "[" * 10_000],
    ids=["binary", "empty", "cut", "unknown type", "wrong field", "deep"],
)
async def test_a_frame_that_is_not_understood_is_complained_about(server, tmp_path, nonsense):
    """Nonsense is answered with a complaint, and the link goes on."""
    async with running(server, tmp_path) as agent:
        await server.until(lambda: server.hellos == 1)
        await server.say(nonsense)
        await server.until(lambda: bool(server.of(Complaint)))
        await server.say(Deliver(envelope="still here"))
        await eventually(lambda: agent.accepted == ["still here"])
        assert server.hellos == 1


async def test_endless_nonsense_ends_the_link(server, tmp_path):
    """A server that talks nonsense only is left, and tried again."""
    async with running(server, tmp_path):
        await server.until(lambda: server.hellos == 1)
        for _ in range(20):
            await server.say("nonsense")
        await server.until(lambda: server.hellos == 2)


async def test_an_envelope_that_fails_does_not_stop_the_next(server, tmp_path):
    """Refused envelopes, and those that break the executor, are only themselves."""
    async with running(server, tmp_path) as agent:
        await server.until(lambda: server.hellos == 1)
        for envelope in ("bad", "worse", "good"):
            await server.say(Deliver(envelope=envelope))
        await eventually(lambda: agent.accepted == ["bad", "worse", "good"])


async def test_heartbeats_are_sent(server, tmp_path):
    """The agent says that it is here as often as the server asked."""
    async with running(server, tmp_path):
        await server.until(lambda: len(server.of(Heartbeat)) >= 2)


async def test_news_do_not_wait_for_the_next_heartbeat(server, tmp_path):
    """What is in force has changed: the server hears of it now, once, however rarely it asked to be told."""
    server.beat = 3600.0
    async with running(server, tmp_path) as agent:
        await eventually(lambda: agent.link.status().server is not None)
        assert server.of(Heartbeat) == []
        for beats in (1, 2):
            agent.about.news.set()
            await server.until(lambda beats=beats: len(server.of(Heartbeat)) == beats)
            assert not agent.about.news.is_set()


async def test_progress_is_lossy_and_the_newest_wins(server, tmp_path):
    """Of many steps of one task between two rounds, the last is what people see."""
    async with running(server, tmp_path) as agent:
        await eventually(lambda: agent.link.status().server is not None)
        for done in range(1000):
            agent.link.progress(ProgressFrame(task="tsk_1", done=done, total=999))
        await server.until(lambda: bool(server.of(ProgressFrame)))
        frames = [frame.done for frame in server.received if isinstance(frame, ProgressFrame)]
        assert frames[-1] == 999
        assert len(frames) <= 2


async def test_a_refused_endpoint_waits_long_and_says_why(server, tmp_path):
    """A revoked endpoint does not hammer the server."""
    server.refuses = 403
    with capture_logs() as logs:
        async with running(server, tmp_path) as agent:
            await eventually(lambda: [one for one in logs if one["event"] == "link-down"])
            assert "does not want this endpoint" in (agent.link.status().error or "")
    assert [one["next_try"] for one in logs if one["event"] == "link-down"] == [300.0]
    assert [one["log_level"] for one in logs if one["event"] == "link-refused"] == ["warning"]


async def test_a_confirmation_hurries_the_reconnect(server, tmp_path):
    """While an isolation waits for its confirmation, no long wait stands in the way of the link."""
    server.refuses = 403
    async with running(server, tmp_path) as agent:
        await eventually(lambda: "does not want" in (agent.link.status().error or ""))
        server.refuses = None
        assert await agent.link.confirm(within=SOON)
        await server.until(lambda: server.hellos == 1)


async def test_a_server_of_another_protocol_is_tried_again(server, tmp_path):
    """A welcome in a protocol that is newer than ours is no welcome."""
    server.protocol = PROTOCOL + 1
    async with running(server, tmp_path) as agent:
        await eventually(lambda: "another protocol" in (agent.link.status().error or ""))
        server.protocol = PROTOCOL
        await eventually(lambda: agent.link.status().server)


async def test_confirmation_uses_a_new_connection(server, tmp_path):
    """The server's answer counts only on a connection that was made for the question."""
    async with running(server, tmp_path) as agent:
        await server.until(lambda: server.hellos == 1)
        assert await agent.link.confirm(within=SOON)
        assert server.asked == 1
        assert server.hellos == 1


async def test_confirmation_waits_for_a_server_that_comes_back(server, tmp_path):
    """An outage that ends within the time is no failure."""
    async with running(server, tmp_path) as agent:
        await server.until(lambda: server.hellos == 1)
        await server.stop()
        async with asyncio.TaskGroup() as group:
            confirmed = group.create_task(agent.link.confirm(within=SOON))
            await eventually(lambda: agent.link.status().server is None)
            await server.start()
        assert confirmed.result()


async def test_confirmation_fails_when_nobody_answers(server, tmp_path):
    """A server that accepts the connection but does not answer confirms nothing."""
    server.answers = False
    async with running(server, tmp_path) as agent:
        await server.until(lambda: server.hellos == 1)
        assert not await agent.link.confirm(within=timedelta(seconds=0.5))


async def test_another_servers_answer_confirms_nothing(server, tmp_path):
    """A server with a certificate of another CA, at the right address, is not our server."""
    async with running(server, tmp_path) as agent, gateway(tmp_path) as other:
        await agent.book.learn(AddressesBody(urls=(other.url,)))
        assert other.asked == 0
        await server.until(lambda: server.hellos == 1)
        await server.stop()
        assert not await agent.link.confirm(within=timedelta(seconds=1))
        assert other.asked == 0


async def test_the_live_server_is_the_first_peer(server, tmp_path):
    """Isolation allows the address that works before any other."""
    dead = "https://127.0.0.2:9"
    book = AddressBook(tmp_path / "book.json", urls=(dead, server.url))
    async with running(server, tmp_path, book=book) as agent:
        await server.until(lambda: server.hellos == 1)
        await eventually(lambda: agent.link.status().server is not None)
        assert [(str(one.address), one.port) for one in agent.link.peers()] == [
            ("127.0.0.1", server.port),
            ("127.0.0.2", 9),
        ]


# --- another certificate ---


async def test_a_new_certificate_begins_a_new_link_at_once(server, tmp_path):
    """Nobody waits for the old link to end, and what was not acknowledged is sent on the new one."""
    server.acks = False
    async with running(server, tmp_path) as agent:
        await asyncio.wait_for(agent.link.proved.wait(), 15)
        agent.outbox.put(1)
        await server.until(lambda: sent(server) == [1])
        server.acks = True
        agent.link.change_tls(server.identity(tmp_path / "state").tls(tmp_path / "state"))
        assert not agent.link.proved.is_set()
        await asyncio.wait_for(agent.link.proved.wait(), 15)
        await eventually(lambda: not agent.outbox.entries)
        assert server.hellos == 2
        assert agent.link.status().error is None


async def test_a_new_certificate_ends_the_long_wait_of_a_refused_one(server, tmp_path):
    """The server refused the old one: that says nothing about the new."""
    server.refuses = 403
    async with running(server, tmp_path) as agent:
        await eventually(lambda: "does not want" in (agent.link.status().error or ""))
        server.refuses = None
        agent.link.change_tls(server.identity(tmp_path / "state").tls(tmp_path / "state"))
        await asyncio.wait_for(agent.link.proved.wait(), 15)


async def test_two_new_certificates_in_a_row(server, tmp_path):
    """The link comes up with the last."""
    async with running(server, tmp_path) as agent:
        await asyncio.wait_for(agent.link.proved.wait(), 15)
        for _ in range(2):
            last = server.identity(tmp_path / "state").tls(tmp_path / "state")
            agent.link.change_tls(last)
        await asyncio.wait_for(agent.link.proved.wait(), 15)
        assert agent.link._tls is last


async def test_a_better_reason_is_told_where_there_is_one(server, tmp_path):
    """A certificate whose time is over, say."""
    await server.stop()
    async with running(server, tmp_path) as agent:
        agent.link.explain = lambda error: Expired(f"It has expired: {error.message}")
        await eventually(lambda: "It has expired" in (agent.link.status().error or ""))


async def test_a_hello_that_cannot_be_put_together_does_not_end_the_agent(server, tmp_path, monkeypatch):
    """Whatever is odd on this machine: it is logged, told as the reason, and tried again."""
    real, tries = About.hello, 0

    async def hello(self: About, nonce: str) -> Hello:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError("a name that nobody thought of")
        return await real(self, nonce)

    monkeypatch.setattr(About, "hello", hello)
    with capture_logs() as logs:
        async with running(server, tmp_path) as agent:
            await eventually(lambda: agent.link.status().server)
    assert [one["event"] for one in logs].count("link-failed-unexpectedly") == 2
    assert any("ValueError: a name" in str(one.get("error")) for one in logs)
