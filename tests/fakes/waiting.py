"""Wait for a condition instead of a length of time."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 20.0
"""Seconds after which a test fails instead of hanging."""


def wait_until(condition: Callable[[], object]) -> None:
    """Look again until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.002)


async def eventually(condition: Callable[[], object]) -> None:
    """Look again until it holds, while the event loop runs."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event: descriptors, kernel state
            await asyncio.sleep(0.002)
