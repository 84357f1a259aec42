"""The agent as a process: under its supervisor, with its log, its beat and its signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from stanch.agent.host.clock import boot_id
from stanch.agent.identity import Binding
from stanch.agent.process import supervisors_beat
from stanch.agent.settings import CONFIG_VARIABLE, SOCKET_VARIABLE, STATE_VARIABLE
from stanch.agent.supervisor import BEAT_VARIABLE, EXIT_NOT_ENROLLED
from tests.fakes.gateway import FakeGateway, gateway
from tests.fakes.waiting import eventually


@asynccontextmanager
async def enrolled(folder: Path) -> AsyncIterator[FakeGateway]:
    """A gateway, and an identity for it in `folder`."""
    async with gateway(folder) as server:
        identity = server.identity(folder / "state")
        identity.model_copy(update={"binding": Binding.here(boot_id())}).save(folder / "state")
        yield server


def places(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        STATE_VARIABLE: str(folder / "state"),
        SOCKET_VARIABLE: str(folder / "run" / "agent.sock"),
        CONFIG_VARIABLE: str(folder / "agent.toml"),
    }


@contextmanager
def started(module: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of the agent, killed by its pid if it does not end by itself; its log goes to `log`."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-I", "-m", module], env=places(folder), stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def logged(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def agents(supervisor: "subprocess.Popen[bytes]") -> list[int]:
    pid = supervisor.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_the_supervised_agent_connects_and_comes_back_when_it_is_killed(tmp_path):
    """Supervisor, agent and link as they run on an endpoint: a kill costs a reconnect, a stop ends both with 0."""
    async with enrolled(tmp_path) as server:
        with started("stanch.agent.supervisor", tmp_path) as supervisor:
            await server.until(lambda: server.hellos == 1)
            (agent,) = agents(supervisor)
            os.kill(agent, signal.SIGKILL)
            await server.until(lambda: server.hellos == 2)
            await eventually(lambda: agents(supervisor) not in ([], [agent]))
            (agent,) = agents(supervisor)
            supervisor.terminate()
            await eventually(lambda: supervisor.poll() is not None)
            assert supervisor.returncode == 0
            with pytest.raises(ProcessLookupError):
                os.kill(agent, 0)
    events = [line["event"] for line in logged(tmp_path)]
    assert events[-2:] == ["agent-down", "agent-ended"]
    assert events.count("agent-started") == 2


async def test_the_agent_sees_only_the_variables_that_are_meant_for_it(tmp_path, monkeypatch):
    """Whoever starts the supervisor steers neither the interpreter nor the libraries of a root daemon."""
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "SSLKEYLOGFILE", "HTTPS_PROXY", "SECRET"):
        monkeypatch.setenv(name, "/nowhere")
    async with enrolled(tmp_path) as server:
        with started("stanch.agent.supervisor", tmp_path) as supervisor:
            await server.until(lambda: server.hellos == 1)
            (agent,) = agents(supervisor)
            variables = read_environment(agent)
            supervisor.terminate()
            await eventually(lambda: supervisor.poll() is not None)
    allowed = {"PATH", "LANG", "TZ", STATE_VARIABLE, SOCKET_VARIABLE, CONFIG_VARIABLE, BEAT_VARIABLE}
    assert {name for name in variables if not name.startswith("MALLOC_")} <= allowed
    assert variables[STATE_VARIABLE] == str(tmp_path / "state")


def read_environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


async def test_the_control_socket_is_gone_after_a_graceful_stop(tmp_path):
    """A stopped agent leaves no socket that nobody serves."""
    async with enrolled(tmp_path) as server:
        with started("stanch.agent.main", tmp_path) as agent:
            await server.until(lambda: server.hellos == 1)
            assert (tmp_path / "run" / "agent.sock").is_socket()
            agent.terminate()
            await eventually(lambda: agent.poll() is not None)
            assert agent.returncode == 0
    assert not (tmp_path / "run" / "agent.sock").exists()


async def test_an_agent_without_identity_says_how_to_get_one(tmp_path):
    """The exit code tells the supervisor that starting it again is of no use; the log line tells people what to do."""
    (tmp_path / "state").mkdir(mode=0o700)
    with started("stanch.agent.main", tmp_path) as agent:
        await eventually(lambda: agent.poll() is not None)
        assert agent.returncode == EXIT_NOT_ENROLLED
    (line,) = logged(tmp_path)
    assert (line["event"], line["code"]) == ("agent-failed", "not-found")
    assert "stanch agent enroll" in str(line["hint"])


def test_the_beat_reaches_the_supervisor_and_never_blocks(monkeypatch):
    """Beats are bytes in a pipe; one that nobody reads does not stop the agent."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    monkeypatch.setenv(BEAT_VARIABLE, str(theirs))
    try:
        beat = supervisors_beat()
        for _ in range(100_000):
            beat()
        assert os.read(ours, 10) == b"." * 10
        assert not os.get_inheritable(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("value", ["", "x", "-1"])
def test_without_a_supervisor_the_beat_goes_nowhere(monkeypatch, value):
    """An agent that was started by hand needs nobody to watch it."""
    monkeypatch.setenv(BEAT_VARIABLE, value)
    assert supervisors_beat()() is None
