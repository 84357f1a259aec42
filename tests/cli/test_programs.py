"""Commands that start other parts of Stanch."""

import sys
import types
from pathlib import Path

import pytest

from stanch.cli.places import STATE_VARIABLE


@pytest.fixture
def stand_in(monkeypatch):
    """A module that stands for one that is not started in a test; the calls that it got."""

    def put(name: str, **functions):
        module = types.ModuleType(name)
        for key, value in functions.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def test_server(run, stand_in, tmp_path):
    """Every option reaches the server's settings."""
    started = []
    stand_in("stanch.server.main", serve=started.append)
    (tmp_path / "pw").write_text("x")
    ended = run(
        "server", "--data", "d", "--api-listen", "127.0.0.1:1", "--gateway-listen", "127.0.0.1:2", "--name", "a",
        "--name", "10.0.0.1", "--admin-password-file", "pw", "--evidence-days", "30",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    settings = started[0]
    assert settings.data == Path("d")
    assert (settings.api_listen, settings.gateway_listen) == ("127.0.0.1:1", "127.0.0.1:2")
    assert settings.names == ("a", "10.0.0.1")
    assert settings.admin_password_file == Path("pw")
    assert settings.evidence_days == 30


@pytest.mark.parametrize("by_file", [False, True])
def test_enroll(run, stand_in, tmp_path, by_file):
    """The token comes from the line or from a file, and the new identity is told."""
    got = {}

    async def enroll(**given):
        got.update(given)
        return types.SimpleNamespace(endpoint="ept_7")

    stand_in("stanch.agent.enroll", enroll=enroll)
    (tmp_path / "token").write_text("tok\n")
    token = ("--token-file", "token") if by_file else ("--token", "tok")
    ended = run("agent", "enroll", "--server", "https://s:8444", *token, "--ca-pin", "ab", "--state", "st", "--json")
    assert ended.json["endpoint"] == "ept_7"
    told = {"server": "https://s:8444", "token": "tok", "ca_pin": "ab", "state": Path("st"), "again": False}
    assert got == {**told, "proxy": None}
    run("agent", "enroll", "--server", "https://s", *token, "--ca-pin", "ab", "--proxy", "http://u:secret@h:1")
    assert got["proxy"] == "http://u:secret@h:1"


@pytest.mark.parametrize("token", [(), ("--token", "a", "--token-file", "-")])
def test_enroll_wants_one_token(run, token):
    """None and two are refused."""
    ended = run("agent", "enroll", "--server", "https://s", "--ca-pin", "ab", *token)
    assert ended.code == 2
    assert "--token-file" in ended.err


def test_agent_run_becomes_the_supervisor(run, monkeypatch, tmp_path):
    """The process is replaced, with the places in its environment and no folder lent to its imports."""
    called = []
    monkeypatch.setattr("os.execve", lambda *given: called.append(given))
    run("agent", "run", "--state", "st", "--socket", "/run/x.sock")
    program, line, environment = called[0]
    assert program == sys.executable
    assert line[1:] == ["-I", "-m", "stanch.agent.supervisor"]
    assert environment["STANCH_AGENT_STATE"] == str(tmp_path / "st")
    assert environment["STANCH_AGENT_SOCKET"] == "/run/x.sock"
    assert environment["STANCH_AGENT_CONFIG"] == "/etc/stanch/agent.toml"


def test_the_environment_names_the_places_for_every_command(run, stand_in, monkeypatch, tmp_path):
    """`agent enroll` and `agent run` mean the same folder, and what is typed comes first."""
    got = []

    async def enroll(*, state: Path, **_):
        got.append(state)
        return types.SimpleNamespace(endpoint="ept_7")

    stand_in("stanch.agent.enroll", enroll=enroll)
    monkeypatch.setattr("os.execve", lambda _program, _line, environment: got.append(environment[STATE_VARIABLE]))
    monkeypatch.setenv(STATE_VARIABLE, "/srv/agent")
    line = ("agent", "enroll", "--server", "https://s:8444", "--token", "t", "--ca-pin", "ab")
    said = run(*line).out
    assert "stanch agent run --state /srv/agent" in said
    run("agent", "run")
    run(*line, "--state", "typed")
    assert got == [Path("/srv/agent"), "/srv/agent", Path("typed")]


def test_demo(run, stand_in):
    """The demo's own exit code is the command's."""
    stand_in("stanch.demo.main", run=lambda *, json, keep: 3 if (json, keep) == (True, True) else 0)
    assert run("demo").code == 0
    assert run("demo", "--json", "--keep").code == 3
