"""`stanch local`, with an agent and without."""

import io
import json
import os
import socket
import sys
import types

import pytest

from stanch.core.errors import Denied
from tests.cli.local.answers import ok


def test_status(run, agent):
    """People read fields, programs the whole value."""
    ended = run("local", "status", "--socket", str(agent(ok(link="up", queued_reports=0, **{"\x1b[31m": "\x1b[0m"}))))
    assert "queued reports:" in ended.out
    assert "\x1b" not in ended.out
    assert run("local", "status", "--json", "--socket", str(agent(ok(link="up")))).json == {"link": "up"}


def test_status_without_an_agent(run, tmp_path):
    """It says how to start one."""
    ended = run("local", "status", "--socket", str(tmp_path / "none"))
    assert ended.code == 11
    assert "stanch agent run" in ended.err


def test_isolation_through_the_agent(run, agent):
    """The agent does it where one answers."""
    assert run("local", "isolation", "off", "--json", "--socket", str(agent(ok(lifted=True)))).json == {"lifted": True}
    assert run("local", "isolation", "status", "--json", "--socket", str(agent(ok(state="released")))).code == 0
    assert agent.asked == [{"do": "isolation-off"}, {"do": "isolation-status"}]


def test_isolation_without_an_agent(run, tmp_path, monkeypatch):
    """Where none answers, the command does it by itself, in the agent's folder."""
    module, states = types.ModuleType("stanch.agent.local"), []

    async def isolation_off(state):
        states.append(state)
        return {"lifted": True}

    module.isolation_off, module.isolation_status = isolation_off, lambda state: {"state": "released"}
    monkeypatch.setitem(sys.modules, "stanch.agent.local", module)
    line = ("--socket", str(tmp_path / "none"), "--state", str(tmp_path), "--json")
    assert run("local", "isolation", "off", *line).json == {"lifted": True}
    assert run("local", "isolation", "status", *line).json == {"state": "released"}
    assert states == [tmp_path]


def test_isolation_off_asks_a_person(run, agent, terminal, tmp_path):
    """On a terminal a no changes nothing."""
    terminal("n")
    assert run("local", "isolation", "off", "--socket", str(tmp_path / "none")).code == 10


# --- the release code ---


@pytest.fixture
def release(agent, tmp_path):
    """The agent's socket for everybody, which gives this answer; the option that names the root's."""

    def answering(answer: bytes) -> str:
        (tmp_path / "code.sock").symlink_to(agent(answer))
        return str(tmp_path / "agent.sock")

    answering.asked = agent.asked
    return answering


def test_the_release_code_goes_to_everybodys_socket(run, release):
    """As it was typed: the agent knows all spellings."""
    line = ("local", "isolation", "release-code", "7kq2-9xtr m4wb", "--json", "--socket", release(ok(changed=True)))
    assert run(*line).json == {"changed": True}
    assert release.asked == [{"do": "release-code", "code": "7kq2-9xtr m4wb"}]


def test_the_release_code_is_asked_for_unseen(run, release, terminal):
    """On a terminal, without echo."""
    terminal("7KQ2-9XTR-M4WB-0ZHD")
    assert run("local", "isolation", "release-code", "--socket", release(ok(changed=True))).code == 0
    assert release.asked == [{"do": "release-code", "code": "7KQ2-9XTR-M4WB-0ZHD"}]


def test_the_release_code_may_be_piped_in(run, release, monkeypatch):
    """One line, and not more than a code can be long."""
    monkeypatch.setattr("sys.stdin", io.StringIO("7" * 10_000))
    assert run("local", "isolation", "release-code", "--socket", release(ok(changed=True))).code == 0
    assert len(release.asked[0]["code"]) == 200


def test_a_wrong_code_is_an_error(run, release):
    """With the agent's own words."""
    refused = {"ok": False, "error": Denied("This is not the code", hint="4 more attempts").body().model_dump()}
    ended = run("local", "isolation", "release-code", "x", "--socket", release(json.dumps(refused).encode() + b"\n"))
    assert ended.code == 4
    assert "4 more attempts" in ended.err


def test_a_user_needs_the_agent_for_a_code(run, tmp_path, monkeypatch):
    """Only root may open the journal: others are told what to do."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ended = run("local", "isolation", "release-code", "x", "--socket", str(tmp_path / "none"))
    assert ended.code == 11
    assert "sudo stanch local isolation release-code" in ended.err


def test_root_needs_no_agent_for_a_code(run, tmp_path, monkeypatch):
    """The command does it by itself, in the agent's folder."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    module, asked = types.ModuleType("stanch.agent.local"), []

    async def isolation_release_code(state, code):
        asked.append((state, code))
        return {"changed": True}

    module.isolation_release_code = isolation_release_code
    monkeypatch.setitem(sys.modules, "stanch.agent.local", module)
    line = ("--socket", str(tmp_path / "none"), "--state", str(tmp_path), "--json")
    assert run("local", "isolation", "release-code", "abc", *line).json == {"changed": True}
    assert asked == [(tmp_path, "abc")]


def test_a_user_sees_the_isolation_in_short(run, release, monkeypatch):
    """Where root's socket is closed, everybody's answers."""
    real = socket.socket.connect

    def connect(self, address):
        if address.endswith("agent.sock"):
            raise PermissionError(13, "Permission denied")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    ended = run("local", "isolation", "status", "--json", "--socket", release(ok(state="isolated", task="tsk_1")))
    assert ended.json == {"state": "isolated", "task": "tsk_1"}
    assert release.asked == [{"do": "isolation-status"}]


def test_a_user_without_an_agent_is_told_who_may(run, tmp_path, monkeypatch):
    """Nobody answers on either socket."""

    def connect(_self, address):
        raise PermissionError(13, "Permission denied") if address.endswith("agent.sock") else FileNotFoundError

    monkeypatch.setattr(socket.socket, "connect", connect)
    ended = run("local", "isolation", "status", "--socket", str(tmp_path / "agent.sock"))
    assert ended.code == 4
    assert "sudo" in ended.err
