"""Follow an order to its end.

The event stream is fast but may lose messages; the order itself is the truth. So each look opens the stream *first*,
reads the order *then*, and passes on what the stream says until it falls silent, is cut, or has not been checked for
a while; then it looks again. A server whose stream does not work at all is asked every two seconds instead.
"""

from collections.abc import Callable, Iterator
from typing import Final

from pydantic import ValidationError

from stanch.client.http import Http, read
from stanch.core.errors import Unavailable
from stanch.core.rest import OrderView, TaskEvent, TaskView
from stanch.core.task import State

CHECK_SECONDS: Final = 10.0
"""How long the stream is believed without reading the order again."""

RECONNECT_SECONDS: Final = 0.2
POLL_SECONDS: Final = 2.0
GIVE_UP_AFTER: Final = 30
"""So many failures in a row, with no answer in between, end the watch: about a minute."""


class Watch:
    """One order, being followed."""

    def __init__(self, http: Http, order: str, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._http, self._order, self._clock, self._sleep = http, order, clock, sleep
        self._states = dict[str, State]()
        self._seen = False
        self._stream_works = True

    def events(self) -> Iterator[TaskEvent]:
        """Changes and progress until all tasks are final; Unavailable if the server stays silent for a minute."""
        failures = 0
        while not self._over():
            try:
                yield from self._look()
                failures = 0
            except Unavailable:
                failures += 1
                if failures > GIVE_UP_AFTER:
                    raise
            if not self._over():
                self._sleep(RECONNECT_SECONDS if self._stream_works and not failures else POLL_SECONDS)

    def _over(self) -> bool:
        return self._seen and all(state.final for state in self._states.values())

    def _look(self) -> Iterator[TaskEvent]:
        """The truth now, and what the stream says after it."""
        opened = False
        try:
            if self._stream_works:
                with self._http.events("events", query={"order": self._order}) as lines:
                    opened = True
                    yield from self._truth()
                    yield from self._streamed(lines)
                return
        except Unavailable:
            if opened:  # cut or silent: look again
                return
        yield from self._truth()
        self._stream_works = False  # the server answers, but does not stream

    def _truth(self) -> Iterator[TaskEvent]:
        order = read(OrderView, self._http.ask("GET", f"orders/{self._order}"))
        self._seen = True
        for task in order.tasks:
            if self._states.get(task.id) is not task.state:
                self._states[task.id] = task.state
                yield _event_of(task)

    def _streamed(self, lines: Iterator[str]) -> Iterator[TaskEvent]:
        until = self._clock() + CHECK_SECONDS
        while not self._over() and self._clock() < until:
            line = next(lines, None)
            if line is None:
                return
            event = _parsed(line)
            if event is not None and self._is_news(event):
                yield event

    def _is_news(self, event: TaskEvent) -> bool:
        """Was it not known yet? The stream may lag behind the truth, so it never reopens what is final."""
        known = self._states.get(event.task)
        if event.order != self._order or (known is not None and known.final):
            return False
        if event.state is None:
            return True
        self._states[event.task] = event.state
        return event.state is not known


def _event_of(task: TaskView) -> TaskEvent:
    return TaskEvent(type="task", task=task.id, order=task.order, endpoint=task.endpoint, state=task.state)


def _parsed(line: str) -> TaskEvent | None:
    """An event; None for one that this version does not know."""
    try:
        return TaskEvent.model_validate_json(line)
    except ValidationError:
        return None
