"""Counters only grow."""

import asyncio
from datetime import timedelta

from sqlalchemy import select, update

from stanch.server.store.counters import BLOCK, Counter
from stanch.server.store.tables import counters
from tests.fakes.server_parts import SetClock


async def test_numbers_grow_and_are_unique(database):
    """Concurrent callers get different numbers, without gaps."""
    counter = Counter(database, "x")
    numbers = await asyncio.gather(*(counter.next() for _ in range(100)))
    assert sorted(numbers) == list(range(1, 101))


async def test_a_restart_never_repeats(database):
    """A new process goes on behind the block that the old one had reserved."""
    first = await Counter(database, "x").next()
    second = await Counter(database, "x").next()
    assert second > first
    assert second == BLOCK + 1


async def test_names_are_apart(database):
    """Two counters do not share numbers."""
    assert await Counter(database, "x").next() == await Counter(database, "y").next()


async def test_a_restored_backup_never_repeats(database):
    """What was counted after the backup is lost with it; time is not."""
    clock = SetClock()
    await Counter(database, "x", clock).next()
    backup = await database.read(lambda c: c.execute(select(counters.c.value)).scalar_one())
    for _ in range(5):
        clock.pass_(timedelta(hours=1))
        newest = await Counter(database, "x", clock).next()
    await database.write(lambda c: c.execute(update(counters).values(value=backup)))
    clock.pass_(timedelta(minutes=1))
    assert await Counter(database, "x", clock).next() > newest


async def test_a_clock_that_is_set_back_never_repeats(database):
    """Nor one that stands still while more is counted than milliseconds pass."""
    clock = SetClock()
    first = await Counter(database, "x", clock).next()
    clock.pass_(timedelta(days=-1000))
    second = await Counter(database, "x", clock).next()
    assert second == first + BLOCK
    third = await Counter(database, "x", clock).next()
    assert third == second + BLOCK
