"""An action without an agent: by the agent's own rules, on real files, told to the server later."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stanch.agent.alone import NoServer, run_alone
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked
from stanch.core.errors import Conflict, NotFound, Protected, TargetGone
from stanch.core.types import seconds
from tests.fakes.gateway import FakeGateway

SHELL = os.path.realpath("/bin/sh")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An endpoint that was enrolled, without its agent."""
    folder = tmp_path / "state"
    FakeGateway(tmp_path).identity(folder).save(folder)
    return folder


async def order(state: Path, action: str, **params: Any) -> dict[str, Any]:
    return dict(await run_alone(state.parent / "agent.toml", state, action, params))


async def test_a_file_goes_and_comes_back(state: Path, tmp_path: Path):
    """Quarantine, list, restore; the server is told of each when an agent runs again."""
    file = tmp_path / "dropper"
    file.write_bytes(b"malware")
    file.chmod(0o751)
    taken = await order(state, "quarantine", path=[str(file)])
    assert not file.exists()
    (item,) = (await order(state, "quarantine_list"))["items"]
    assert item["id"] == taken["items"][0]["id"]
    await order(state, "restore", items=[item["id"]])
    assert (file.read_bytes(), file.stat().st_mode & 0o7777) == (b"malware", 0o751)
    assert (await order(state, "quarantine_list"))["items"] == []
    with sqlite3.connect(Settings(state=state).journal) as journal:
        (notices,) = journal.execute("SELECT count(*) FROM spool").fetchone()
    assert notices >= 2


async def test_the_owners_limits_do_not_bind_root(state: Path, tmp_path: Path):
    """A path that is forbidden to the server is root's own."""
    (tmp_path / "agent.toml").write_text(f'[paths]\nforbid = ["{tmp_path}"]\n')
    (tmp_path / "agent.toml").chmod(0o644)
    (tmp_path / "file").write_text("x")
    await order(state, "quarantine", path=[f"{tmp_path}/file"])
    assert not (tmp_path / "file").exists()


async def test_what_the_machine_needs_stays(state: Path):
    """Root is protected from a slip of the hand, too."""
    with pytest.raises(Protected):
        await order(state, "quarantine", path=[SHELL])
    with pytest.raises(TargetGone):
        await order(state, "quarantine", path=["/nowhere/at/all"])


async def test_an_agent_that_runs_is_not_passed_by(state: Path):
    """It holds the state folder: two must not write one journal."""
    with locked(state), pytest.raises(Conflict, match="does not answer"):
        await order(state, "quarantine_list")


async def test_a_machine_that_was_never_enrolled(tmp_path: Path):
    """There is no vault without an identity."""
    with pytest.raises(NotFound, match="not enrolled"):
        await order(tmp_path / "state", "quarantine_list")


async def test_the_server_is_out_of_reach():
    """No address, no proxy, no confirmation."""
    server = NoServer()
    assert (server.peers(), server.proxies()) == ((), ())
    assert not await server.confirm(within=seconds(1))
