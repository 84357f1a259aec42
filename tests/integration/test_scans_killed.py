"""A scan whose agent or scanner is killed in its middle: it goes on, ends truthfully, and tells each find once."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from stanch.core.rest import OrderView, TaskView
from stanch.core.task import State
from tests.integration.stack import LiveAgent, LiveServer, until
from tests.integration.test_scans import MARK, RULE, detections, scanners, uploaded

pytestmark = pytest.mark.slow

PLANTED = 20
MANY = ("/usr/lib/python3", "/usr/share")
"""Folders that keep a scan busy for seconds."""
SOME = 50_000
"""Bytes that say of some hundred files that they are clean."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    for n in range(PLANTED):
        (folder / f"planted-{n:02}").write_bytes(b"." * n + MARK)
    return folder


async def begun(
    server: LiveServer, agent: LiveAgent, folder: Path, action: str, **more: Any
) -> tuple[OrderView, list[int]]:
    """A scan that has learned something, and its scanner."""
    rules = [await uploaded(server, folder, "planted.yar", RULE)]
    places = [str(folder / "place"), *MANY]
    params = {"rules": rules, "path": places, "cache": False, "gentle": False, **more}
    order = await server.api.submit(action, agent.endpoint, params)
    learned = agent.state / "scans" / f"learned-{order.tasks[0].id}"
    await until(lambda: learned.exists() and learned.stat().st_size > SOME)
    return order, scanners(agent)


async def finished(server: LiveServer, order: OrderView) -> TaskView:
    """Its task, once it is final; a busy machine takes its time for all these files."""
    (task,) = order.tasks
    client = server.api.client
    return await until(lambda: now if (now := client.task(task.id)).state.final else None, within=180)


def agents(agent: LiveAgent) -> list[int]:
    """The agent below the supervisor."""
    supervisor = agent.programs[-1].process.pid
    below = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(one) for one in below if b"stanch.agent.main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def names(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


async def test_a_scan_survives_its_agent(server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path):
    """The scanner of before ends by itself; the next goes on with what it knew; what is put away can be undone."""
    order, before = await begun(server, agent, tmp_path, "malware_scan", quarantine=True, clamav=False)
    assert before
    [killed] = agents(agent)
    os.kill(killed, signal.SIGKILL)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))
    task = await finished(server, order)
    assert task.state is State.DONE, task.error
    result = task.result or {}
    assert (result["found"], len(result["removed"]), result["complete"]) == (PLANTED, PLANTED, True)
    assert result["remembered"] > 0
    assert not names(place)
    assert [detail["found"] for _, detail in await detections(server)] == [PLANTED]
    back = await server.api.finished(await server.api.ask(server.api.client.undo, order.id))
    assert back.state is State.DONE, back.error
    assert len(names(place)) == PLANTED


async def test_a_scan_survives_its_scanner(server: LiveServer, agent: LiveAgent, place: Path, tmp_path: Path):
    """What it was at is left out, and told; all the rest is looked at, and each find told once."""
    order, [scanner, *_] = await begun(server, agent, tmp_path, "yara_scan")
    os.kill(scanner, signal.SIGKILL)
    task = await finished(server, order)
    assert task.state is State.DONE, task.error
    result = task.result or {}
    crashed = [one["name"] for one in result["skips"] if one["reason"] == "crashed"]
    missed = [one for one in crashed if one.startswith(str(place))]
    assert len(crashed) <= 2  # it has two threads
    assert (result["found"], result["complete"]) == (PLANTED - len(missed), True)
    assert result["remembered"] > 0
