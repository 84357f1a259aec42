"""The agent's life, which every fake shares, and time, which passes only when a test says so."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


class AgentKilled(BaseException):
    """The agent was killed here. Clean-up code of an action runs in a test, but can change nothing any more."""


@dataclass
class Life:
    """The agent's life: each change is a step, and from step `ends_at` (counted from 1) on, nothing has an effect."""

    ends_at: int | None = None
    steps: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        """Something is about to be changed; AgentKilled if the agent does not live to do it."""
        if self.ends_at is not None and len(self.steps) + 1 >= self.ends_at:
            raise AgentKilled(what)
        self.steps.append(what)

    def restart(self, *, ends_at: int | None = None) -> None:
        """The agent starts again, its steps counted anew."""
        self.ends_at = ends_at
        self.steps.clear()


@dataclass
class FakeClock:
    """Time that passes only when a test says so."""

    time: datetime = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def now(self) -> datetime:
        """The agent's time."""
        return self.time

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self.time += by
