"""What the scanner is made of, and the scans that run: what one scan needs of the endpoint, and how it is paused."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stanch.agent.host.clamd import Clamd
from stanch.agent.host.items import Collector
from stanch.agent.host.patience import Patience
from stanch.agent.host.scanner_files import ScanFolder
from stanch.agent.host.scanner_pressure import Totals, read_totals
from stanch.agent.host.scanner_processes import SECONDS
from stanch.agent.host.scanner_worker import COMMAND
from stanch.core.autoruns import Autoruns
from stanch.core.errors import Conflict, TargetGone
from stanch.core.types import EndpointPath


def _nothing() -> Sequence[EndpointPath]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Of one endpoint, and of one task's rights."""

    collectors: Mapping[str, Collector]
    """Document to what collects its items."""
    autoruns: Callable[[], Autoruns]
    """What starts by itself, as the task may see it."""
    folder: ScanFolder = field(default_factory=lambda: ScanFolder(path=None))
    groups: Path | None = None
    """The control group below which a scan gets its own; None for none."""
    forbidden: Callable[[], Sequence[EndpointPath]] = _nothing
    """What the owner of the machine lets nobody touch. Blocks."""
    command: Sequence[str] = COMMAND
    """Starts the worker."""
    clamd: Clamd = field(default_factory=Clamd)
    patience: Patience[int] = field(default_factory=lambda: Patience("scan processes", seconds=SECONDS))
    names: Patience[str] = field(default_factory=lambda: Patience("scan names", seconds=SECONDS))
    """Asks where names lead."""
    totals: Callable[[], Totals] = read_totals
    """The kernel's counters of pressure. Blocks, shortly."""
    root: Path = Path("/")
    ours: Collection[int] = ()
    """Our own processes, besides this one: their memory is not looked into."""
    silence: float = 600
    """Seconds without a word, above the limit for one object, after which a worker counts as dead."""


class Control:
    """One scan that runs, for whoever pauses it."""

    def __init__(self) -> None:
        self.ordered = False
        """Somebody wants it to wait."""
        self.changed = asyncio.Event()

    def set(self, *, paused: bool) -> bool:
        """Let it wait, or go on; was it otherwise before?"""
        before, self.ordered = self.ordered, paused
        self.changed.set()
        return before is not paused


class Scans:
    """The scans of all tasks that run now."""

    def __init__(self) -> None:
        self._running: dict[str, Control] = {}

    @contextmanager
    def entered(self, task: str) -> Iterator[Control]:
        """A task's scan, as long as it runs; Conflict if the task has one already."""
        if task in self._running:
            raise Conflict("This task's scan runs already", got=task, expected="one scan of a task at a time")
        control = self._running[task] = Control()
        try:
            yield control
        finally:
            del self._running[task]

    def of(self, task: str) -> Control:
        """The scan of a task; TargetGone if it has none that runs."""
        found = self._running.get(task)
        if found is None:
            running = ", ".join(sorted(self._running)) or "none runs"
            raise TargetGone("This task has no scan that runs here", got=task, expected=running[:500])
        return found

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have one."""
        return tuple(self._running)
