"""The first of several things: its word counts, and nothing of the others goes on."""

import asyncio

import pytest

from stanch.agent.host.first_of import first_of


async def answer(value):
    return value


async def fail():
    raise ValueError("first")


async def test_the_first_answer_counts_and_the_others_are_ended():
    """What ends first is the answer; who still waits is cancelled, and has cleaned up by then."""
    cleaned = []

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    assert await first_of(wait(), answer(7)) == 7
    assert cleaned == [True]


async def test_an_error_is_an_answer_too():
    """If the first that ends fails, that is what is raised, by itself."""
    with pytest.raises(ValueError, match="first"):
        await first_of(asyncio.Event().wait(), fail())


async def test_who_cancels_it_cancels_all():
    """A cancelled wait leaves nothing running."""
    started, cleaned = asyncio.Event(), asyncio.Event()

    async def wait():
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    one = asyncio.get_running_loop().create_task(first_of(wait()))
    await started.wait()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert cleaned.is_set()
