"""Counting failures, in memory of a fixed size."""

import pytest

from stanch.core.errors import TooManyRequests
from stanch.server import attempts
from stanch.server.attempts import Attempts


class Ticks:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_too_many_failures_one_has_to_wait() -> None:
    """And is told how long."""
    ticks = Ticks()
    counted = Attempts(allowed=3, seconds=60, monotonic=ticks)
    for _ in range(3):
        counted.check("ada")
        counted.failed("ada")
    with pytest.raises(TooManyRequests, match="60 seconds"):
        counted.check("ada")
    counted.check("grace")


def test_time_forgives() -> None:
    """When the window is over, counting begins anew."""
    ticks = Ticks()
    counted = Attempts(allowed=1, seconds=60, monotonic=ticks)
    counted.failed("ada")
    ticks.now = 60
    counted.check("ada")


def test_success_forgives() -> None:
    """Who signs in has not guessed."""
    counted = Attempts(allowed=1, seconds=60, monotonic=Ticks())
    counted.failed("ada")
    counted.succeeded("ada")
    counted.check("ada")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr(attempts, "MAX_KEYS", 10)
    counted = Attempts(allowed=1, seconds=60, monotonic=Ticks())
    for n in range(100):
        counted.failed(str(n))
    assert len(counted) == 10
    counted.check("0")
    with pytest.raises(TooManyRequests):
        counted.check("99")
