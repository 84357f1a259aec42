"""`stanch agent uninstall`: says, asks, does; of an image below a root folder here, never of this machine."""

import os
from pathlib import Path

import pytest

from stanch.cli import uninstall
from tests.fakes.endpoint_state import Used


@pytest.fixture(autouse=True)
def as_root(monkeypatch):
    """The files are the test's own."""
    if os.geteuid() != 0:
        monkeypatch.setattr(uninstall.os, "geteuid", lambda: 0)


@pytest.fixture
def used(tmp_path: Path) -> Used:
    return Used(tmp_path).enrol().limit()


def line(used: Used, *more: str) -> tuple[str, ...]:
    places = used.settings
    (used.folder / "image").mkdir(exist_ok=True)
    named = ("--state", str(places.state), "--config", str(places.config), "--socket", str(places.socket))
    return "agent", "uninstall", "--root", str(used.folder / "image"), *named, *more


def test_a_dry_run_says_what_it_would_do(run, used):
    """And does nothing of it, in both forms."""
    ended = run(*line(used, "--dry-run"))
    assert ended.code == 0
    assert f"remove {used.settings.state}/identity.json" in ended.out
    assert "agent.toml, which is the owner's" in ended.out
    assert "Nothing is changed yet" in ended.out
    assert run(*line(used, "--dry-run", "--json")).json["dry_run"] is True
    assert used.settings.state.exists()


def test_yes_does_it_and_tells_what_is_left_to_do(run, used):
    """The package, and the server, which still lists the endpoint."""
    ended = run(*line(used, "--yes"))
    assert ended.code == 0
    assert not used.settings.state.exists()
    assert used.settings.config.exists()
    assert "pip uninstall stanch" in ended.out
    assert "stanch endpoint revoke ep_test" in ended.out


def test_a_person_is_asked_first(run, used, terminal):
    """After it was said what will be done; no means no."""
    terminal("n")
    ended = run(*line(used))
    assert (ended.code, used.settings.state.exists()) == (10, True)
    assert "identity.json" in ended.out
    terminal("y")
    assert run(*line(used)).code == 0
    assert not used.settings.state.exists()


def test_where_nobody_can_be_asked_nothing_is_done(run, used, monkeypatch):
    """A script says --yes."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    for more in ((), ("--json",)):
        assert run(*line(used, *more)).code == 10
    assert used.settings.state.exists()


def test_what_is_in_force_is_a_conflict(run, used):
    """With how to lift it."""
    used.work()
    ended = run(*line(used, "--yes"))
    assert ended.code == 6
    assert "account-alice" in ended.err
    assert "--lift" in ended.err


def test_nothing_is_lifted_in_an_image(run, used):
    """What is in force there is in force when it runs: it is refused, and nothing is touched."""
    used.work()
    ended = run(*line(used, "--yes", "--lift"))
    assert ended.code == 2
    assert "image" in ended.err
    assert used.settings.journal.exists()


async def test_the_running_agent_is_asked_first(used, monkeypatch):
    """Where none answers, this process does it in its place."""
    places = used.settings
    answers = [{"done": True}, None]
    monkeypatch.setattr(uninstall, "ask", lambda *_words, **_more: answers.pop(0))
    monkeypatch.setattr("stanch.agent.alone.run_alone", alone)
    words = (places.config, places.state, places.socket, "release", {})
    assert await uninstall._order(*words) == {"done": True}
    assert await uninstall._order(*words) == "alone"


async def alone(*_words: object) -> str:
    return "alone"


def test_places_that_nobody_named_are_the_images(run, tmp_path, monkeypatch):
    """`--root` alone must not touch this machine's own state."""
    for variable in ("STANCH_AGENT_STATE", "STANCH_AGENT_CONFIG", "STANCH_AGENT_SOCKET"):
        monkeypatch.delenv(variable, raising=False)
    state = tmp_path / "image/var/lib/stanch/agent"
    state.mkdir(parents=True, mode=0o700)
    (state / "addresses.json").write_text("{}")
    steps = run("agent", "uninstall", "--root", str(tmp_path / "image"), "--dry-run", "--json").json["steps"]
    assert steps == [f"remove {state}/addresses.json"]


def test_only_root_may(run, used, monkeypatch):
    """Said at once, before anything is looked at."""
    monkeypatch.setattr(uninstall.os, "geteuid", lambda: 1000)
    ended = run(*line(used, "--dry-run"))
    assert ended.code != 0
    assert "sudo" in ended.err
