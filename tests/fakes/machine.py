"""A machine that only remembers: the fake of `core.machine`.

It comes up again at once, and the agent on it seems to have lived on: an agent that really ends is the killing test's.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from stanch.core.errors import Unsupported
from stanch.core.machine import Ending, Hindrance
from stanch.core.types import hours
from tests.fakes.life import Life


@dataclass
class FakeMachine:
    """A machine whose boot is a number."""

    life: Life = field(default_factory=Life)
    boot: int = 1
    up: timedelta = hours(1)
    """How long this boot lasts; passes only when a test says so."""
    brought_down: list[Ending] = field(default_factory=list)
    container: str | None = None
    """Why it cannot be brought down."""
    hindered_by: tuple[Hindrance, ...] = ()
    deaf: bool = False
    """Does init take the request and do nothing?"""
    waited: list[timedelta] = field(default_factory=list)

    async def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def up_for(self) -> timedelta:
        return self.up

    async def why_not(self) -> str | None:
        return self.container

    async def hindrances(self) -> tuple[Hindrance, ...]:
        return self.hindered_by

    async def bring_down(self, ending: Ending) -> None:
        self.life.step(f"machine.bring_down {ending}")
        if self.container is not None:
            raise Unsupported(self.container)
        self.brought_down.append(ending)
        if not self.deaf:
            self.boot += 1

    async def await_end(self, *, within: timedelta) -> None:
        self.waited.append(within)
