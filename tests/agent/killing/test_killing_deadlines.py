"""`kill -9` at every step of what a deadline lifts: once, told once, and back to what it was."""

from pathlib import Path

import pytest

from tests.agent.killing.test_killing import lives


@pytest.mark.slow
@pytest.mark.parametrize("action", ["isolate", "suspend_process"])
def test_kill_while_a_deadline_lifts(folder: Path, action: str) -> None:
    """A deadline lifts and is told exactly once, wherever we die while it does."""
    clean, killed = lives(folder, "deadline", action)
    for one in [clean, *killed]:
        assert one["notices"] == ["effect-lifted"], one["killed_at"]
        assert one["world"] == clean["world"], one["killed_at"]
        assert one["effects"] == [], one["killed_at"]


@pytest.mark.slow
def test_kill_while_a_deadline_enables(folder: Path) -> None:
    """Autoruns whose time is over start again, all of each, and that is told once for each, wherever we die."""
    clean, killed = lives(folder, "deadline", "disable_autorun")
    for one in [clean, *killed]:
        assert one["notices"] == ["effect-lifted", "effect-lifted"], one["killed_at"]
        assert one["world"] == clean["world"], one["killed_at"]
        assert one["effects"] == [], one["killed_at"]
    assert clean["world"]["autoruns"]["disabled"] == "{}"
