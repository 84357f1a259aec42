"""The spool: nothing leaves it unacknowledged, and when it is full the least important goes first and is counted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.clock import AgentClock
from stanch.agent.journal import Journal
from stanch.agent.spool import Spool
from stanch.core.frames import Notice, Report
from stanch.core.task import State


@asynccontextmanager
async def spool_on(path: Path, **bounds: int) -> AsyncIterator[Spool]:
    journal = Journal(path)
    try:
        yield Spool(journal, AgentClock(journal, lambda: 100.0, "b1"), **bounds)
    finally:
        await journal.close()


async def test_frames_stay_in_order_until_acknowledged(tmp_path: Path) -> None:
    """Frames come back in order, after a restart too, until their number is acknowledged; numbers are never reused."""
    path = tmp_path / "journal.db"
    async with spool_on(path) as spool:
        await spool.put(spool.report("tsk_1", State.RUNNING))
        await spool.put(spool.notice("policy-changed", {"digest": "x"}))
        await spool.put(spool.report("tsk_1", State.DONE, result={"n": 1}))
    async with spool_on(path) as spool:
        first, second, third = await spool.pending()
        assert [one.seq for one in (first, second, third)] == [1, 2, 3]
        assert isinstance(second, Notice)
        assert isinstance(third, Report)
        assert (second.detail, third.result) == ({"digest": "x"}, {"n": 1})
        assert await spool.pending(1, after=1) == [second]
        await spool.ack([3, 3, 99, -1, 2**70])
        assert await spool.pending() == [first, second]
        await spool.ack([1, 2])
    async with spool_on(path) as spool:
        await spool.put(spool.notice("again", {}))
        assert [one.seq for one in await spool.pending()] == [4]


async def test_putting_wakes_the_reader(tmp_path: Path) -> None:
    """`changed` is set by every way in."""
    async with spool_on(tmp_path / "journal.db") as spool:
        assert not spool.changed.is_set()
        await spool.put(spool.notice("a", {}))
        assert spool.changed.is_set()
        spool.changed.clear()
        await spool.put_once(spool.report("tsk_1", State.DONE))
        assert spool.changed.is_set()


async def test_a_final_report_waits_only_once(tmp_path: Path) -> None:
    """Answering a task again does not double the answer that still waits."""
    async with spool_on(tmp_path / "journal.db") as spool:
        await spool.put(spool.report("tsk_1", State.RUNNING))
        for _ in range(3):
            await spool.put_once(spool.report("tsk_1", State.DONE))
        states = [one.state for one in await spool.pending() if isinstance(one, Report)]
        assert states == [State.RUNNING, State.DONE]


async def test_a_batch_is_small_enough_to_be_held(tmp_path: Path) -> None:
    """Large frames come one by one, small ones together."""
    async with spool_on(tmp_path / "journal.db") as spool:
        for n in range(3):
            await spool.put(spool.report(f"tsk_{n}", State.DONE, result={"data": "x" * 3_000_000}))
        assert [one.seq for one in await spool.pending()] == [1]
        assert [one.seq for one in await spool.pending(after=1)] == [2]


async def test_a_full_spool_drops_by_rank_and_counts(tmp_path: Path) -> None:
    """Notices go before running reports, those before final ones; one notice counts them, across restarts."""
    path = tmp_path / "journal.db"
    async with spool_on(path, max_entries=4) as spool:
        await spool.put(spool.report("tsk_1", State.RUNNING))
        await spool.put(spool.report("tsk_1", State.DONE))
        for n in range(4):
            await spool.put(spool.notice(f"n{n}", {}))
    async with spool_on(path, max_entries=4) as spool:
        for n in range(2, 6):
            await spool.put(spool.report(f"tsk_{n}", State.DONE))
        kept = await spool.pending()
        assert [one.task for one in kept if isinstance(one, Report)] == ["tsk_3", "tsk_4", "tsk_5"]
        (count,) = [one for one in kept if isinstance(one, Notice)]
        assert (count.kind, count.detail) == ("spool-overflow", {"notices": 4, "reports": 3})


async def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    """A few large frames fill the spool as many small ones do."""
    async with spool_on(tmp_path / "journal.db", max_bytes=10_000) as spool:
        for n in range(20):
            await spool.put(spool.report(f"tsk_{n}", State.DONE, result={"data": "x" * 2000}))
        kept = [one for one in await spool.pending() if isinstance(one, Report)]
        assert [one.task for one in kept] == ["tsk_16", "tsk_17", "tsk_18", "tsk_19"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["notice", "running", "done"])),
        st.tuples(st.just("ack"), st.integers(0, 10)),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(steps)
async def test_what_is_put_is_acknowledged_counted_or_still_there(
    tmp_path_factory: Any, steps: list[tuple[str, Any]]
) -> None:
    """Nothing is lost silently: every frame is acknowledged, counted as dropped, or waits; and the bound holds."""
    path = tmp_path_factory.mktemp("spool") / "journal.db"
    put = acked = dropped = 0
    async with spool_on(path, max_entries=5) as spool:
        for what, which in steps:
            if what == "put":
                is_notice = which == "notice"
                state = State.RUNNING if which == "running" else State.DONE
                await spool.put(spool.notice("n", {}) if is_notice else spool.report("tsk_1", state))
                put += 1
            else:
                chosen = (await spool.pending())[:which]
                dropped += sum(sum(one.detail.values()) for one in chosen if _counts(one))
                acked += sum(not _counts(one) for one in chosen)
                await spool.ack([one.seq for one in chosen])
        left = await spool.pending()
        dropped += sum(sum(one.detail.values()) for one in left if _counts(one))
        assert put == acked + dropped + sum(not _counts(one) for one in left)
        assert len(left) <= 6


def _counts(frame: Report | Notice) -> bool:
    return isinstance(frame, Notice) and frame.kind == "spool-overflow"
