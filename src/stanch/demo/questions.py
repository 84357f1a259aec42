"""The story's side of the outside world's control socket."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Span:
    """What arrived in a span of time, by stream."""

    streams: dict[str, dict[str, Any]]
    strays: tuple[str, ...]
    idle: tuple[dict[str, Any], ...]
    now: float

    def count(self, *names: str) -> int:
        """How many of these arrived."""
        return sum(self.streams.get(name, {}).get("count", 0) for name in names)

    def last(self, *names: str) -> float | None:
        """When the last of these arrived."""
        return max(self._of("last", names), default=None)

    def first(self, *names: str) -> float | None:
        """When the first of these arrived."""
        return min(self._of("first", names), default=None)

    def _of(self, field: str, names: Iterable[str]) -> list[float]:
        found = (self.streams.get(name, {}).get(field) for name in names)
        return [float(one) for one in found if one is not None]


class OutsideWorld:
    """Ask the outside world what it sees."""

    def __init__(self, control: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(control))
        self._lines = self._socket.makefile("rwb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()
        self._socket.close()

    def seen(self, *, since: float = 0, until: float | None = None) -> Span:
        """What arrived from `since` until `until` (CLOCK_MONOTONIC; default: now)."""
        return self._ask({"op": "report", "since": since} | ({} if until is None else {"until": until}))

    def push(self, family: int) -> Span:
        """Send bytes into the idle connections of this family; what is seen right after it."""
        return self._ask({"op": "push", "family": family})

    def _ask(self, question: dict[str, Any]) -> Span:
        self._lines.write(json.dumps(question).encode() + b"\n")
        self._lines.flush()
        answer = json.loads(self._lines.readline())
        return Span(answer["streams"], tuple(answer["strays"]), tuple(answer["idle"]), answer["now"])
