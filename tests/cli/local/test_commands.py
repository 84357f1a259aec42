"""`stanch local`, with an agent and without."""

import sys
import types

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
