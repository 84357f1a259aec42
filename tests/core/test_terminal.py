"""How a terminal ended, as it is told."""

import pytest
from pydantic import ValidationError

from stanch.core.terminal import Closed, Shell, Why
from stanch.core.types import minutes


@pytest.mark.parametrize("wrong", [{"code": 256}, {"code": -1}, {"sent": -1}, {"pid": 0}, {"signal": "x" * 21}])
def test_what_ended_it_is_bounded(wrong):
    """An agent cannot make the server keep, or the console show, what no shell can end with."""
    with pytest.raises(ValidationError):
        Closed.model_validate({"why": "exit", "pid": 7, "sent": 0, "received": 0, **wrong})


def test_every_reason_survives_its_own_json():
    """Why it was closed is the same at the other end."""
    for why in Why:
        closed = Closed(why=why, pid=7, sent=1, received=2, signal="SIGHUP")
        assert Closed.model_validate_json(closed.model_dump_json()) == closed


def test_a_shell_needs_its_limits():
    """Nobody can ask for a terminal that stays open for ever by saying nothing."""
    with pytest.raises(TypeError):
        Shell()
    assert Shell(idle=minutes(1), lasts=minutes(2)).program is None
