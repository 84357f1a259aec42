"""Count failed attempts, so that guessing is slow; in memory of a fixed size."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from stanch.core.errors import TooManyRequests

MAX_KEYS = 10_000
"""When more are counted, the oldest are forgotten; guessing from so many addresses still meets the hash's cost."""


@dataclass(slots=True)
class _Window:
    began: float
    count: int = 0


class Attempts:
    """At most so many failures for one key in so many seconds."""

    def __init__(self, *, allowed: int, seconds: float, monotonic: Callable[[], float]) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._monotonic = monotonic
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def check(self, key: str) -> None:
        """Raise TooManyRequests if this key has failed too often lately."""
        window = self._current(key)
        if window is not None and window.count >= self._allowed:
            wait = max(1, round(window.began + self._seconds - self._monotonic()))
            raise TooManyRequests("Too many failed attempts", hint=f"Wait {wait} seconds, then try again.")

    def failed(self, key: str) -> None:
        """Count a failure."""
        window = self._current(key)
        if window is None:
            window = self._windows[key] = _Window(self._monotonic())
        window.count += 1
        while len(self._windows) > MAX_KEYS:
            self._windows.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of this key."""
        self._windows.pop(key, None)

    def __len__(self) -> int:
        return len(self._windows)

    def _current(self, key: str) -> _Window | None:
        """The window of this key, unless it is over."""
        window = self._windows.get(key)
        if window is not None and self._monotonic() - window.began >= self._seconds:
            del self._windows[key]
            return None
        return window
