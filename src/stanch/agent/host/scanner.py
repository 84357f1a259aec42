"""The scanner of this machine: `core.scanning` on Linux.

Each scan has a worker process of its own (`stanch.worker.scan`), which opens the hostile bytes and can do nothing else.
The agent starts and bounds it (`scanner_worker`, `scanner_limits`), gives it the rules, the items and the names of what
it is to look at (`scanner_feeding`), and validates what it says (`scanner_hearing`).
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing

from stanch.agent.host.scanner_parts import Parts, Scans
from stanch.agent.host.scanner_scan import OneScan
from stanch.core.errors import Invalid, StanchError
from stanch.core.scanning import Area, Engine, Event, Scan, Tally


class LinuxScanner:
    """The scanner in the hands of one task."""

    def __init__(self, *, task: str, scans: Scans, parts: Parts) -> None:
        self._task = task
        self._scans = scans
        self._parts = parts

    async def scan(self, scan: Scan) -> AsyncGenerator[Sequence[Event], None]:
        """Do it; events in batches, a Tally as the last. Leaving it early ends it at once."""
        _check(scan)
        folder = self._parts.folder
        with self._scans.entered(self._task) as control, folder.opened(self._task, cache=scan.cache) as known:
            one = OneScan(self._task, scan, self._parts, known=known, control=control)
            async with aclosing(one.events()) as batches:
                async for batch in batches:
                    if batch and isinstance(batch[-1], Tally) and one.complete:
                        await folder.finish(self._task, cache=scan.cache)
                    if batch:
                        yield batch

    async def engines(self) -> Mapping[Engine, str]:
        """The engines that this endpoint has besides our own, with their versions: ClamAV, if it is there."""
        try:
            return {Engine.CLAMAV: await self._parts.clamd.version()}
        except StanchError:
            return {}

    async def pause(self, task: str, *, paused: bool) -> bool:
        """Let the scan of a task wait or go on; was it otherwise before? TargetGone if it has no scan that runs."""
        await asyncio.sleep(0)
        return self._scans.of(task).set(paused=paused)

    def running(self) -> Collection[str]:
        """Tasks whose scans run, paused ones too."""
        return self._scans.tasks


def _check(scan: Scan) -> None:
    if not scan.materials and Engine.CLAMAV not in scan.engines:
        raise Invalid("There is nothing to scan with", got="no rules and no indicators", expected="at least one file")
    if scan.files is not None and (scan.files.area is Area.CUSTOM) != bool(scan.files.paths):
        raise Invalid(
            "The area and the paths do not fit",
            got=f"area {scan.files.area}, {len(scan.files.paths)} paths",
            expected="paths with the area custom, and with no other",
        )
