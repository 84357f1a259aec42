"""How far tasks are that run now, as their endpoints said last. In memory: who waits longer hears it again."""

from collections import Counter, OrderedDict
from collections.abc import Mapping

from stanch.core.frames import ProgressFrame
from stanch.core.rest import TaskProgress
from stanch.server.clock import Clock

MAX_TASKS = 10_000
"""The oldest are forgotten."""


class ProgressBoard:
    """The newest progress of each task, from its first frame to its end."""

    def __init__(self, now: Clock, *, most: int = MAX_TASKS) -> None:
        self._now = now
        self._most = most
        self._told: OrderedDict[str, tuple[str, TaskProgress]] = OrderedDict()

    def put(self, order: str, frame: ProgressFrame) -> TaskProgress:
        """Keep it; who pauses for the same reason as before does so since then."""
        now, before = self._now(), self.of(frame.task)
        goes_on = before is not None and before.paused == frame.paused
        since = before.paused_since if before is not None and goes_on else now
        told = TaskProgress(
            **frame.model_dump(include={"done", "total", "unit", "text", "paused"}),
            paused_since=since if frame.paused else None,
            at=now,
        )
        self._told[frame.task] = (order, told)
        self._told.move_to_end(frame.task)
        while len(self._told) > self._most:
            self._told.popitem(last=False)
        return told

    def of(self, task: str) -> TaskProgress | None:
        """What its endpoint said last; None if nothing."""
        return self._told[task][1] if task in self._told else None

    def drop(self, task: str) -> None:
        """It has come to its end."""
        self._told.pop(task, None)

    def paused(self) -> Mapping[str, int]:
        """Order to how many of its tasks wait; only those of which any does."""
        return Counter(order for order, told in self._told.values() if told.paused)
