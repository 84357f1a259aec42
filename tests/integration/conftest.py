"""A server, and an agent that is enrolled and online there."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.stack import LiveAgent, LiveServer, live_agent, live_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    """A server on loopback, in this event loop."""
    async with live_server(tmp_path) as one:
        yield one


@pytest.fixture
async def agent(server: LiveServer, tmp_path: Path) -> AsyncIterator[LiveAgent]:
    """Its one endpoint: this machine."""
    async with live_agent(server.api, tmp_path) as one:
        yield one


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of this test's own, which may be ended."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()
