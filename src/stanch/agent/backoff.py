"""How long to wait before the next try."""

from collections.abc import Callable
from secrets import SystemRandom

Jitter = Callable[[], float]
"""Evenly spread in [0, 1): a fleet that lost its server together must not come back together."""

system_jitter: Jitter = SystemRandom().random


class Backoff:
    """Waits that double from `first` to `longest` seconds, each spread over its upper half."""

    def __init__(self, *, first: float = 1.0, longest: float = 60.0, jitter: Jitter = system_jitter) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._tries = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        wait = min(self._first * 2.0 ** min(self._tries, 32), self._longest)
        self._tries += 1
        return wait * (0.5 + 0.5 * self._jitter())

    def reset(self) -> None:
        """It worked: the next trouble is a new one."""
        self._tries = 0
