"""What the probes of the self-test share: where they look, what they answer, and a folder that goes again."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

from stanch.agent.host.clock import wall_clock
from stanch.agent.host.slow_questions import SlowQuestions
from stanch.agent.identity import check_private
from stanch.agent.journal_reading import Journalled, read_journal
from stanch.agent.own_folders import remove_tree
from stanch.agent.settings import Settings
from stanch.core.errors import VerificationFailed
from stanch.core.model import Model
from stanch.core.types import Text

T = TypeVar("T")

GROUP_PREFIX = "stanch-test-"
"""How the name of the control group begins that is made and removed again."""

_SCRATCH = re.compile(r"selftest-([0-9]{1,10})-[0-9a-f]{8}")


class Outcome(StrEnum):
    """How a probe ended."""

    OK = "ok"
    LIMITED = "limited"
    """It works, but not all of it."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """There was nothing to look at."""


class Check(Model):
    """What one probe found."""

    name: Text
    """Which."""
    state: Outcome
    """How it ended."""
    seen: Text
    """What was seen."""
    help: Text | None = None
    """What would help; null if nothing has to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The same, before it has its name."""

    state: Outcome
    seen: str
    help: str | None = None


def ok(seen: str) -> Finding:
    """All of it works."""
    return Finding(Outcome.OK, seen)


def limited(seen: str, help: str | None) -> Finding:  # noqa: A002 - the field's own name
    """It works, but not all of it."""
    return Finding(Outcome.LIMITED, seen, help)


def failed(seen: str, help: str | None) -> Finding:  # noqa: A002 - the field's own name
    """It does not work."""
    return Finding(Outcome.FAILED, seen, help)


def skipped(seen: str, help: str | None = None) -> Finding:  # noqa: A002 - the field's own name
    """There is nothing to try."""
    return Finding(Outcome.SKIPPED, seen, help)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the probes look, and what they may make meanwhile."""

    settings: Settings
    root: Path = Path("/")
    """The machine's own, but in tests: packages, accounts, autoruns and units are looked for below it."""
    group_prefix: str = GROUP_PREFIX
    now: Callable[[], datetime] = wall_clock
    threads: SlowQuestions[object] = field(default_factory=lambda: SlowQuestions("selftest"))

    async def in_thread(self, look: Callable[[], T]) -> T:
        """Look in a thread for which nobody has to wait when the time is over."""
        answer: list[T] = []
        await self.threads.ask(look, lambda: answer.append(look()))
        return answer[0]

    @cached_property
    def journal(self) -> Journalled:
        """What the journal says; NotFound or Unavailable."""
        return read_journal(self.settings.journal)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder below the state folder, gone afterwards. OSError, VerificationFailed."""
        check_private(self.settings.state)  # whoever else may write there could turn our paths elsewhere meanwhile
        folder = self.settings.state / f"selftest-{os.getpid()}-{token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def sweep(self) -> None:
        """Remove what an earlier test left that was killed."""
        with suppress(OSError, VerificationFailed):
            check_private(self.settings.state)
            for one in sorted(self.settings.state.iterdir()):
                found = _SCRATCH.fullmatch(one.name)
                if found and not Path(f"/proc/{found[1]}").exists() and one.is_dir() and not one.is_symlink():
                    remove_tree(one)


Look = Callable[[Bench], Awaitable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One thing that is tried."""

    name: str
    look: Look
    within: timedelta


async def looked(probe: Probe, bench: Bench) -> Finding:
    """What a probe finds, be it that it took too long."""
    async with asyncio.timeout(probe.within.total_seconds()):
        return await probe.look(bench)
