"""The queue between links and store: nothing is acknowledged before its commit, and nobody blocks the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from stanch.core.frames import Ack, FromServer, Notice, Report
from stanch.core.task import State
from stanch.server.gateway import inbox as module
from stanch.server.gateway.inbox import Inbox, Received
from tests.fakes.waiting import eventually


class Store:
    """Orders and fleet in one, which may be slow or broken."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self.notices: list[tuple[str, int]] = []
        self.broken: set[str] = set()
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    async def report_many(self, reports: Sequence[tuple[str, Report]]) -> None:
        await self.may_commit.wait()
        self._refuse({endpoint for endpoint, _ in reports})
        self.batches.append([(endpoint, one.seq) for endpoint, one in reports])

    async def report(self, endpoint: str, reports: Sequence[Report]) -> None:
        await self.report_many([(endpoint, one) for one in reports])

    async def notice(self, endpoint: str, told: Sequence[Notice]) -> None:
        self._refuse({endpoint})
        self.notices += [(endpoint, one.seq) for one in told]

    def _refuse(self, endpoints: set[str]) -> None:
        if endpoints & self.broken:
            raise RuntimeError("disk full")


class Link:
    """A link that remembers what it was told."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.acknowledged: list[int] = []
        self.closed = False
        self.gone = False
        self.told = asyncio.Event()

    async def send(self, frame: FromServer) -> None:
        self.told.set()
        if self.gone:
            raise ConnectionResetError
        assert isinstance(frame, Ack)
        self.acknowledged += frame.seqs

    def close(self) -> None:
        self.closed = True
        self.told.set()


def reported(link: Link, seq: int, size: int = 10) -> Received:
    return Received(link, Report(seq=seq, task="tsk_1", state=State.RUNNING, at=1), size)  # type: ignore[arg-type]


def noticed(link: Link, seq: int) -> Received:
    return Received(link, Notice(seq=seq, kind="x", at=1), 10)  # type: ignore[arg-type]


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[Inbox]:
    """An inbox at work."""
    inbox = Inbox(orders=store, fleet=store)  # type: ignore[arg-type]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        work = group.create_task(inbox.run())
        yield inbox
        work.cancel()


async def test_nothing_is_acknowledged_before_its_commit() -> None:
    """The agent keeps its report until it is on the disk."""
    store, link = Store(), Link("end_1")
    store.may_commit.clear()
    async with running(store) as inbox:
        await inbox.put(reported(link, 1))
        for _ in range(10):
            await asyncio.sleep(0)
        assert link.acknowledged == []
        store.may_commit.set()
        await link.told.wait()
        assert link.acknowledged == [1]


async def test_what_comes_while_the_disk_is_busy_is_one_batch() -> None:
    """The more agents, the larger the batches."""
    store, links = Store(), [Link(f"end_{n}") for n in range(50)]
    store.may_commit.clear()
    async with running(store) as inbox:
        await inbox.put(reported(links[0], 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for link in links:
            await inbox.put(reported(link, 2))
        store.may_commit.set()
        await asyncio.gather(*(link.told.wait() for link in links[1:]))
    assert [len(batch) for batch in store.batches] == [1, 50]


async def test_reports_of_one_link_are_acknowledged_together() -> None:
    """In one frame, notices too."""
    store, link = Store(), Link("end_1")
    inbox = Inbox(orders=store, fleet=store)  # type: ignore[arg-type]
    for seq in (1, 2):
        await inbox.put(reported(link, seq))
    await inbox.put(noticed(link, 3))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        work = group.create_task(inbox.run())
        await link.told.wait()
        work.cancel()
    assert link.acknowledged == [1, 2, 3]
    assert store.notices == [("end_1", 3)]


@pytest.mark.parametrize("kind", [reported, noticed])
async def test_one_that_cannot_be_committed_does_not_take_others_with_it(kind) -> None:
    """Its link is closed, unacknowledged; everybody else is served."""
    store, good, bad = Store(), Link("end_good"), Link("end_bad")
    store.broken = {"end_bad"}
    async with running(store) as inbox:
        await inbox.put(kind(bad, 1))
        await inbox.put(kind(good, 1))
        await asyncio.gather(good.told.wait(), bad.told.wait())
    assert (good.acknowledged, good.closed) == ([1], False)
    assert (bad.acknowledged, bad.closed) == ([], True)


async def test_a_link_that_went_away_does_not_stop_the_inbox() -> None:
    """It will say everything again."""
    store, gone, link = Store(), Link("end_1"), Link("end_2")
    gone.gone = True
    async with running(store) as inbox:
        await inbox.put(reported(gone, 1))
        await gone.told.wait()
        await inbox.put(reported(link, 1))
        await link.told.wait()
    assert link.acknowledged == [1]


async def test_a_full_queue_makes_links_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in memory are bounded; when there is room again, they go on."""
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 100)
    store, link = Store(), Link("end_1")
    inbox = Inbox(orders=store, fleet=store)  # type: ignore[arg-type]
    await inbox.put(reported(link, 1, size=100))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(inbox.put(reported(link, 2)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        work = group.create_task(inbox.run())
        await waiting
        await eventually(lambda: link.acknowledged == [1, 2])
        work.cancel()


async def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes."""
    monkeypatch.setattr(module, "MAX_BATCH", 3)
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 25)
    store, link = Store(), Link("end_1")
    inbox = Inbox(orders=store, fleet=store)  # type: ignore[arg-type]
    for seq in range(1, 8):
        await inbox.put(reported(link, seq, size=1 if seq <= 3 else 20))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        work = group.create_task(inbox.run())
        await eventually(lambda: len(link.acknowledged) == 7)
        work.cancel()
    assert [len(batch) for batch in store.batches] == [3, 2, 2]


async def test_in_a_rush_a_batch_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    """When frames come thick and fast, the next batch waits a moment for more of them."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noting(seconds: float) -> None:
        if seconds == module.GATHER_SECONDS:
            waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", noting)
    store, link = Store(), Link("end_1")
    async with running(store) as inbox:
        await inbox.put(reported(link, 1))
        await link.told.wait()
        assert waited == []
        for seq in range(2, 2 + module.RUSH):
            await inbox.put(reported(link, seq))
        await eventually(lambda: len(link.acknowledged) == 1 + module.RUSH)
    assert waited
