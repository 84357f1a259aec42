"""What was ordered and what was done to the endpoint, with the time of each: what the observer judges by.

All times are CLOCK_MONOTONIC in seconds. A span says what was forbidden from when to when; it begins when the isolation
was confirmed, and ends when its release was ordered, or just before its deadline. A window says when something may
get out all the same, because somebody else had removed the rules a moment before.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.torture import lab as places

SLACK = 0.2
"""Seconds before its deadline at which an isolation is no longer judged."""

GATEWAY_PORT = 8444
MINE = [*places.HOST, *places.CONTAINER]
"""Whom a block binds."""


@dataclass(slots=True)
class Held:
    """Something in force: an isolation or a block."""

    since: float
    earliest_end: float | None
    """No deadline ends it before; None for never."""
    latest_end: float | None
    """Its deadline has ended it by then."""
    allow: list[dict[str, Any]] = field(default_factory=list)
    span: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Ledger:
    """Everything that was done."""

    window_seconds: float
    began: float = field(default_factory=time.monotonic)
    spans: list[dict[str, Any]] = field(default_factory=list)
    windows: list[list[Any]] = field(default_factory=list)
    moves: list[tuple[float, str]] = field(default_factory=list)
    strandings: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=lambda: [*places.SERVERS[0]])
    """Where the server is, as it has announced."""

    def note(self, text: str) -> None:
        """Something was done."""
        self.moves.append((time.monotonic() - self.began, text))

    def strand(self, text: str) -> None:
        """The endpoint is stranded."""
        self.note(f"STRANDED: {text}")
        self.strandings.append(text)

    def isolated(self, since: float, until: float | None, allow: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """From then on everything is forbidden but these."""
        servers = [[address, GATEWAY_PORT] for address in self.servers]
        return self._add({"since": since, "until": until, "servers": servers, "allow": list(allow)})

    def blocked(self, since: float, until: float | None, network: str) -> dict[str, Any]:
        """From then on this network is forbidden."""
        only = {"network": network}
        return self._add({"since": since, "until": until, "only": only, "sources": MINE})

    def _add(self, span: dict[str, Any]) -> dict[str, Any]:
        if span["until"] is not None:
            span["until"] -= SLACK
        self.spans.append(span)
        return span

    def end(self, span: dict[str, Any], at: float) -> None:
        """It is forbidden no longer."""
        span["until"] = at if span["until"] is None else min(at, span["until"])

    def window(self, why: str, *, since: float, until: float | None, device: str | None = None) -> list[Any]:
        """Somebody else has removed the rules; without an end for now, or until a moment and what repair takes."""
        end = None if until is None else until + self.window_seconds
        self.windows.append([since, end, device, why])
        return self.windows[-1]

    def close_windows(self) -> None:
        """Whoever repairs is back since now."""
        for one in self.windows:
            if one[1] is None:
                one[1] = time.monotonic() + self.window_seconds

    @property
    def any_window_open(self) -> bool:
        """Is something removed that nobody could repair yet?"""
        return any(one[1] is None for one in self.windows)
