"""The actions that need no root, from the REST API through link and agent and back."""

import hashlib
import os
import secrets
import signal
import subprocess
from pathlib import Path

import pytest

from stanch.core.frames import PART_BYTES
from stanch.core.task import State
from tests.integration.stack import LiveAgent, LiveServer

pytestmark = pytest.mark.slow

Victim = subprocess.Popen[bytes]


async def test_the_process_list_has_this_test(server: LiveServer, agent: LiveAgent):
    """What runs here is in the list, with the parent that it has."""
    task = await server.api.run("list_processes", agent.endpoint, {})
    assert task.result is not None
    rows = {row["pid"]: row for row in task.result["processes"]}
    assert rows[os.getpid()]["parent"] == os.getppid()
    assert task.result["total"] == len(rows)


async def test_a_file_of_several_parts_arrives_as_it_is(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """More than one part, fetched to evidence and down to a file, has the hash of the original."""
    content = secrets.token_bytes(PART_BYTES + 4321)
    original = tmp_path / "original.bin"
    original.write_bytes(content)
    task = await server.api.run("get_file", agent.endpoint, {"path": str(original)})
    (evidence,) = await server.api.ask(lambda: list(server.api.client.evidence(task=task.id)))
    copy = tmp_path / "copy.bin"
    await server.api.ask(server.api.client.download, evidence, copy)
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert (evidence.complete, evidence.size, evidence.name) == (True, len(content), str(original))


async def test_a_process_is_ended_and_another_one_is_not(server: LiveServer, agent: LiveAgent, victim: Victim):
    """The named process dies by SIGKILL; with a wrong start time the same order hits nobody."""
    listed = await server.api.run("list_processes", agent.endpoint, {"match": "sleep 600"})
    assert listed.result is not None
    (row,) = [row for row in listed.result["processes"] if row["pid"] == victim.pid]
    exact = {"pid": row["pid"], "started": row["started"]}
    wrong = await server.api.submit("kill_process", agent.endpoint, {**exact, "started": exact["started"] + 1})
    missed = await server.api.finished(wrong)
    assert (missed.state, missed.error and missed.error.code) == (State.FAILED, "target-gone")
    assert victim.poll() is None
    await server.api.run("kill_process", agent.endpoint, exact)
    assert victim.wait(10) == -signal.SIGKILL


async def test_a_dry_run_ends_nobody(server: LiveServer, agent: LiveAgent, victim: Victim):
    """The plan names the process, which lives on."""
    order = await server.api.submit("kill_process", agent.endpoint, {"pid": victim.pid}, dry_run=True)
    task = await server.api.finished(order)
    assert task.state is State.DONE
    assert task.result is not None
    assert [step["target"].split()[0] for step in task.result["steps"]] == [str(victim.pid)]
    assert victim.poll() is None


async def test_the_agent_itself_is_protected(server: LiveServer, agent: LiveAgent):
    """An order to end the agent's supervisor is refused, and says why."""
    pid = agent.programs[-1].process.pid
    task = await server.api.finished(await server.api.submit("kill_process", agent.endpoint, {"pid": pid}))
    assert (task.state, task.error and task.error.code) == (State.REFUSED, "protected")
    assert agent.programs[-1].process.poll() is None


async def test_a_file_that_is_not_there_is_a_failed_task(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """The person who asked learns what was looked for, and no evidence is left."""
    path = str(tmp_path / "nothing")
    task = await server.api.finished(await server.api.submit("get_file", agent.endpoint, {"path": path}))
    assert (task.state, task.error and task.error.code) == (State.FAILED, "target-gone")
    assert await server.api.ask(lambda: list(server.api.client.evidence(task=task.id))) == []
