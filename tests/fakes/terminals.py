"""Terminals that close as the test says: the fake of `core.terminal`."""

from dataclasses import dataclass, field

from stanch.core.errors import StanchError
from stanch.core.processes import ProcessId
from stanch.core.terminal import Closed, Shell, Started, Why
from tests.fakes.life import Life


@dataclass
class FakeTerminals:
    """Opens and closes each at once, as `closes` says."""

    life: Life = field(default_factory=Life)
    closes: Closed = field(default_factory=lambda: Closed(why=Why.EXIT, code=0, pid=4711, sent=42, received=5))
    refusal: str | None = None
    """Why none can be opened."""
    fails: StanchError | None = None
    """What opening one raises."""
    opened: list[Shell] = field(default_factory=list)
    """What ran, in order."""

    async def open(self, shell: Shell, *, started: Started) -> Closed:
        if self.fails is not None:
            raise self.fails
        self.life.step("terminals.start")
        await started(ProcessId(pid=self.closes.pid, started=1))
        self.life.step("terminals.run")
        self.opened.append(shell)
        self.life.step("terminals.end")
        return self.closes

    async def why_not(self, shell: Shell) -> str | None:
        return self.refusal
