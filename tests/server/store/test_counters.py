"""Counters only grow."""

import asyncio

from stanch.server.store.counters import BLOCK, Counter


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
