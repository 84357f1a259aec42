"""`stanch local quarantine`: what is asked of the agent, and what is shown of its answer."""

import os

from stanch.cli.local import quarantine as module
from stanch.cli.local.quarantine import path_here
from stanch.core.types import EndpointPath
from tests.cli.local.answers import ok

ITEM = {
    "id": "qrt_0123456789abcdef",
    "path": "/tmp/dropper",
    "why": "quarantine",
    "taken": "2026-11-24T12:00:00Z",
    "info": {"size": 7},
}


def local(run, agent, answer, *words):
    """One command at a machine whose agent gives this answer; what it was asked, and how it ended."""
    ended = run("local", "quarantine", *words, "--socket", str(agent(answer)))
    return agent.asked[-1], ended


def test_put_asks_for_absolute_paths(run, agent, tmp_path, monkeypatch):
    """A path is meant from where somebody stands."""
    monkeypatch.chdir(tmp_path)
    asked, ended = local(run, agent, ok(items=[ITEM]), "put", "a", "/b", "--end-processes", "--max-size", "1GiB")
    assert asked["do"] == "run"
    assert asked["action"] == "quarantine"
    assert asked["params"] == {
        "path": [f"{tmp_path}/a", "/b"],
        "max_files": 100,
        "end_processes": True,
        "max_size": "1GiB",
    }
    assert ended.code == 0
    assert "qrt_0123456789abcdef" in ended.out


def test_list_goes_on_to_the_end(run, agent, monkeypatch):
    """All pages are shown as one list, and how full the vault is."""
    pages = [{"items": [ITEM], "next": "qrt_0123456789abcdef"}, {"items": [ITEM], "usage": {"size": 7, "limit": 70}}]
    asked = []

    def order(_here, action, params):
        asked.append((action, params))
        return pages[len(asked) - 1]

    monkeypatch.setattr(module._Here, "order", order)
    shown = run("local", "quarantine", "list", "--json").json
    assert [one["id"] for one in shown["items"]] == ["qrt_0123456789abcdef"] * 2
    assert shown["usage"]["limit"] == 70
    assert [params.get("after") for _, params in asked] == [None, "qrt_0123456789abcdef"]


def test_restore_says_where_and_how(run, agent):
    """Only what was said is sent."""
    answer = ok(restored=[{"path": "/tmp/sample"}])
    asked, ended = local(run, agent, answer, "restore", ITEM["id"], "--to", "/tmp/sample", "--rename")
    assert asked["params"] == {"items": [ITEM["id"]], "to": "/tmp/sample", "rename": True}
    assert "/tmp/sample is back" in ended.out


def test_remove(run, agent):
    """It is asked for by id."""
    asked, ended = local(run, agent, ok(), "remove", ITEM["id"], "--yes", "--json")
    assert (asked["action"], asked["params"]) == ("quarantine_delete", {"items": [ITEM["id"]]})
    assert ended.json == {}


def test_the_agents_error_is_told(run, agent):
    """What the action refuses is the command's error."""
    error = b'{"ok": false, "error": {"code": "protected", "message": "The machine needs /bin/sh"}}\n'
    asked, ended = local(run, agent, error, "put", "/bin/sh")
    assert asked["params"]["path"] == ["/bin/sh"]
    assert ended.code == 8
    assert "needs /bin/sh" in ended.err


def test_without_an_agent_only_root_may(run, tmp_path, monkeypatch):
    """Others are told to use sudo."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ended = run("local", "quarantine", "list", "--socket", str(tmp_path / "none"))
    assert ended.code == 4
    assert "sudo" in ended.err


def test_odd_names_keep_their_bytes(tmp_path, monkeypatch):
    """A name that is no UTF-8 is written out, and means the same bytes to the agent."""
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"\xffname\n")
    assert EndpointPath(path_here(odd)).raw == os.fsencode(tmp_path) + b"/\xffname\n"
    assert path_here("/a/b") == "/a/b"
