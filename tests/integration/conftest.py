"""A server, and an agent that is enrolled and online there: on loopback, or in a lab with an outside world."""

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stanch.demo.act_attack import Attack
from stanch.demo.lab import Lab
from stanch.demo.scene import Scene
from stanch.demo.stage import Stage
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
def stage() -> Iterator[Stage]:
    """A lab in which the attack runs, the client works, and the endpoint is online."""
    # Not in the test's own folder: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="st-") as labs, Lab(labs=Path(labs)) as lab, Stage(lab) as made:
        act = Attack(Scene(made))
        act.attack()
        act.server_first_start()
        act.enrol()
        yield made


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of this test's own, which may be ended."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()
