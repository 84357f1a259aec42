"""`kill -9` at every step of every action: nothing lost, nothing done twice that must not be, and the truth told.

The table is the registry: a new action is in it at once.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stanch.core.action import AfterCrash, AnyAction
from stanch.core.errors import StanchError
from stanch.core.task import State
from tests.agent.killing.program import registry, sample

ROOT = Path(__file__).resolve().parents[3]
ACTIONS = registry()


def lives(folder: Path, story: str, action: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How the undisturbed run ended, and each that was killed."""
    command = [sys.executable, "-m", "tests.agent.killing.program", str(folder), story, action]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-4000:]
    clean, *killed = map(json.loads, ended.stdout.splitlines())
    return clean, killed


@pytest.mark.parametrize("action", ACTIONS.values(), ids=lambda one: one.name)
def test_every_action_can_be_tried(action: AnyAction) -> None:
    """The first example of every action, or its sample, are parameters that can be tried with a kill at every step."""
    try:
        action.parse(sample(action))
    except StanchError as error:
        pytest.fail(f"give {action.name} an example that says all it needs, or a sample in program.py: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIONS)
def test_kill_at_every_step(folder: Path, name: str) -> None:
    """However often and wherever the agent is killed, the task ends once, and its report is true."""
    action = ACTIONS[name]
    clean, killed = lives(folder, "order", name)
    assert len(killed) >= 4
    assert clean["states"] in ([State.DONE], [State.FAILED]), clean["error"]
    for one in killed:
        where = f"killed at {one['killed_at']}" + (" and again" if one["killed_again"] else "")
        assert len(one["states"]) == 1, f"{where}: {one['states']}"
        if one["states"] == clean["states"]:
            assert one["world"] == clean["world"], where
            assert one["effects"] == clean["effects"], where
            assert undo_of(action, one) == undo_of(action, clean), where
        else:
            assert action.after_crash in {AfterCrash.UNKNOWN, AfterCrash.REVERT}, f"{where}: {one['error']}"
            assert (one["states"], one["error"]) == ([State.UNKNOWN], "interrupted"), where
        if action.after_crash in {AfterCrash.UNKNOWN, AfterCrash.REVERT}:
            assert Counter(one["steps"]) <= Counter(clean["steps"]), f"{where}: done twice"


def undo_of(action: AnyAction, ended: dict[str, Any]) -> object:
    """What would take it back: the same, whether or not the agent was killed in between."""
    if ended["result"] is None:
        return None
    back = action.undo_params(action.parse(sample(action)), action.parse_result(ended["result"]))
    return back and (back[0], back[1].model_dump(mode="json"))


@pytest.mark.slow
def test_what_must_not_be_repeated_is_unknown_somewhere(folder: Path) -> None:
    """The kill does reach the middle of a run: an action that must not be repeated ends unknown there."""
    _clean, killed = lives(folder, "order", "hit_once")
    ends = Counter(one["states"][0] for one in killed)
    assert ends[State.UNKNOWN] >= 3
    assert ends[State.DONE] >= 1


@pytest.mark.slow
def test_kill_while_it_is_cancelled(folder: Path) -> None:
    """An isolation that is cancelled while it waits for its confirmation is gone in the end, wherever we die."""
    clean, killed = lives(folder, "cancel", "isolate")
    assert clean["states"] == [State.CANCELLED]
    for one in [clean, *killed]:
        assert one["states"] in ([State.CANCELLED], [State.UNKNOWN]), one["killed_at"]
        assert one["error"] in {"cancelled", "interrupted"}, one["killed_at"]
        assert one["world"]["firewall"]["rules"] == "None", one["killed_at"]
        assert one["effects"] == [], one["killed_at"]
