"""A running task: it ends by itself, at its limit, by a cancel, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from stanch.agent.lanes import Lanes
from stanch.agent.running import Running, Stopped
from stanch.agent.tasks import Task, TaskJournal
from stanch.core.action import Concurrency, Params
from stanch.core.envelope import OrderBody
from stanch.core.types import minutes, seconds
from tests.fakes.agent import Script, scripted

ORDER = OrderBody(
    task="tsk_1", order="ord_1", action="act", action_version=1, params={}, origin="api", requested_by="alice"
)


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    async with asyncio.TaskGroup() as group:
        journal = cast("TaskJournal", None)
        action = scripted(Script())["act"]
        yield Running(Task(order=ORDER), action, Params(), group=group, journal=journal, grace=seconds(0.02))


async def test_work_that_ends_is_its_value() -> None:
    """What ends in time is returned."""
    async with running() as one:
        assert await one.within(minutes(1), asyncio.sleep(0, "done")) == "done"


async def test_work_is_stopped_at_its_limit_and_by_a_cancel() -> None:
    """Both end the work within its grace; a second cancel changes nothing."""
    async with running() as one:
        with pytest.raises(Stopped) as stopped:
            await one.within(seconds(0.01), asyncio.sleep(60))
        assert (stopped.value.timed_out, stopped.value.abandoned, one.cancelled) == (True, False, False)
        asyncio.get_running_loop().call_soon(one.cancel)
        asyncio.get_running_loop().call_later(0.001, one.cancel)
        with pytest.raises(Stopped):
            await one.within(minutes(1), asyncio.sleep(60))
        assert one.cancelled


async def test_work_that_ends_while_it_is_stopped_keeps_its_own_end() -> None:
    """An outcome that comes in spite of the cancel is the truer one."""

    async def finish_anyway() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "finished"
        return "never"

    async with running() as one:
        assert await one.within(seconds(0.01), finish_anyway()) == "finished"


async def test_work_that_ignores_everything_is_abandoned() -> None:
    """Nothing waits longer than the grace."""
    free = asyncio.Event()

    async def stubborn() -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    async with running() as one:
        with pytest.raises(Stopped) as stopped:
            await one.within(seconds(0.01), stubborn())
        assert stopped.value.abandoned
        free.set()


async def test_a_turn_comes_or_is_cancelled() -> None:
    """Waiting for a lane ends with its slot or with the cancel, and a cancelled wait takes no slot."""
    lanes = Lanes()
    async with running() as first, running() as second, running() as third:
        assert await first.wait_for(lanes.enter(Concurrency.EXCLUSIVE))
        assert not lanes.is_free(Concurrency.EXCLUSIVE)
        asyncio.get_running_loop().call_soon(second.cancel)
        assert not await second.wait_for(lanes.enter(Concurrency.EXCLUSIVE))
        assert not await second.wait_for(lanes.enter(Concurrency.EXCLUSIVE))
        lanes.leave(Concurrency.EXCLUSIVE)
        assert await third.wait_for(lanes.enter(Concurrency.EXCLUSIVE))
