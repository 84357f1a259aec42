"""A scanner in memory: the fake of `core.scanning.Scanner`, and of the host's detections."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stanch.core.errors import TargetGone
from stanch.core.host import Record
from stanch.core.scanning import Advance, Engine, Event, Finding, Loaded, Object, Scan, Skip, Tally
from stanch.core.types import EndpointPath
from tests.fakes.life import Life


def finding(path: str = "/tmp/dropper", rule: str = "evil", **more: Any) -> Finding:
    """A file in which a rule has found something."""
    seen = Object(document="FileItem", name=path, path=EndpointPath(path), **more)
    return Finding(engine=Engine.YARA, rule=rule, objects=(seen,))


@dataclass
class FakeScanner:
    """Finds what a test says; reads all material, as the real one does."""

    life: Life = field(default_factory=Life)
    finds: list[Finding] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    tally: Tally | None = None
    """The last event; made of the others if the test says nothing."""
    advance: Advance = field(default_factory=lambda: Advance(files=1, total=2, bytes=10, at="/tmp"))
    """How far it is before it finds anything."""
    clamav: str = ""
    """Its version; empty where it is not installed."""
    ordered: list[Scan] = field(default_factory=list)
    read: dict[str, bytes] = field(default_factory=dict)
    """Name of a material to its bytes."""
    scans: dict[str, bool] = field(default_factory=dict)
    """Task to whether its scan is paused."""
    hangs: bool = False
    """Never end; the test must cancel."""
    ended_early: bool = False

    async def scan(self, scan: Scan) -> AsyncGenerator[Sequence[Event], None]:
        self.ordered.append(scan)
        try:
            for one in scan.materials:
                async with one.open() as content:
                    self.read[one.name] = await content.read(0, content.size)
                yield [Loaded(name=one.name, kind=one.kind, count=1)]
            self.life.step("scanner.looks")
            yield [self.advance]
            if self.hangs:
                await asyncio.Event().wait()
            yield [*self.finds, *self.skips]
            yield [self.tally or Tally(files=2, bytes=20, findings=len(self.finds))]
        except (GeneratorExit, asyncio.CancelledError):
            self.ended_early = True
            raise

    async def engines(self) -> Mapping[Engine, str]:
        return {Engine.CLAMAV: self.clamav} if self.clamav else {}

    async def pause(self, task: str, *, paused: bool) -> bool:
        self.life.step("scanner.pause")
        if task not in self.scans:
            raise TargetGone("No scan of this task runs", got=task)
        changed = self.scans[task] != paused
        self.scans[task] = paused
        return changed

    def running(self) -> Collection[str]:
        return tuple(self.scans)


@dataclass
class FakeDetections:
    """What the server is told."""

    life: Life = field(default_factory=Life)
    told: list[tuple[str, Record]] = field(default_factory=list)

    async def tell(self, kind: str, detail: Record) -> None:
        self.life.step("detections.tell")
        self.told.append((kind, detail))
