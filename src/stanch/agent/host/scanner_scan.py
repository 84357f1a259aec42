"""One scan from beginning to end: a worker, another one if a file kills it, and what they say as events.

What a worker died over is left out by the next one, and told. The next one knows what the first has learned, so little
is done twice; what it finds again is not told again.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from typing import Final

from stanch.agent.host.scanner_allowance import SLACK, Allowance
from stanch.agent.host.scanner_asked import Asked
from stanch.agent.host.scanner_attempt import Attempt, Throttle
from stanch.agent.host.scanner_boot import first_sectors
from stanch.agent.host.scanner_feeding import Feeder, forbidden, wants_clamd
from stanch.agent.host.scanner_files import Known
from stanch.agent.host.scanner_hearing import Ended, LooksAt, Message, Wanted
from stanch.agent.host.scanner_limits import bound
from stanch.agent.host.scanner_parts import Control, Parts
from stanch.agent.host.scanner_processes import Running, ours, running
from stanch.agent.host.scanner_worker import Worker, nonsense
from stanch.agent.path_rules import is_below
from stanch.core.errors import ActionFailed, Invalid, StanchError, Unavailable
from stanch.core.scan_wire import AT_SLOT, AT_SLOTS, OpenedFile, looked_at
from stanch.core.scanning import Advance, Area, Engine, Event, Finding, Loaded, Scan, Skip, SkipReason, Tally
from stanch.core.types import EndpointPath

MAX_DEATHS: Final = 5
"""Workers that may die in one scan before it ends, incomplete."""
MAX_DEATHS_LOADING: Final = 2
"""Workers that may die before any has loaded the rules: then it is no bad luck."""
MAX_SILENT: Final = 2
"""Workers that may say nothing until they are given up: each of them takes as long as that."""
MAX_SEEN: Final = 200_000
"""Findings and skips that are recognised when the next worker tells them again."""


class OneScan:
    """Use `events` once."""

    def __init__(self, task: str, scan: Scan, parts: Parts, *, known: Known, control: Control) -> None:
        self._task = task
        self._scan = scan
        self._parts = parts
        self._known = known
        self._throttle = Throttle(control, parts.totals, gentle=scan.limits.gentle)
        self._began = time.monotonic()
        self._running = Running()
        self._sectors: list[OpenedFile] = []
        self._forbidden: Sequence[EndpointPath] = ()
        self._left_out: list[str] = []
        self._at: tuple[str, ...] = ()
        self._own: list[Skip] = []
        """Skips that we tell, and not the worker."""
        self._counts: Counter[SkipReason] = Counter()
        """Of them, and of those that we tell otherwise than the worker does."""
        self._loaded: list[Loaded] = []
        self._findings = 0
        self._before: set[int] = set()
        self._now: set[int] = set()
        self._last = Advance()
        self._asked = Asked(scan, opened=(), forbidden=())
        self._lacking: dict[str, None] = {}
        """Documents that indicators ask for, and that were not read, or not all of them."""
        self._limited: dict[str, str] = {}
        self._clamav = ""
        """Why it was not asked."""
        self._clamav_is_dead = False
        """It is there, and does not answer."""
        self._how = ""
        self._deaths = self._silent = 0
        """Workers that died, and those of them that said nothing until they were given up."""
        self._wanted = False
        """Has a worker loaded everything, and said what it wants?"""
        self._end: Ended | None = None
        self.complete = False
        """Has it looked at all files?"""

    async def events(self) -> AsyncGenerator[Sequence[Event], None]:
        """What happens, a Tally as the last."""
        try:
            await asyncio.to_thread(self._prepare)
            how = ""
            for death in range(MAX_DEATHS + 1):
                async with aclosing(self._attempt(death)) as batches:
                    async for batch in batches:
                        yield batch
                if self._end is not None:
                    break
                how = self._died(death)
                if self._silent >= MAX_SILENT:
                    break
            yield self._told_ourselves()
            yield [self._tally(how)]
        finally:
            await asyncio.to_thread(self._close)

    def _prepare(self) -> None:
        """What has no path must be open before the worker starts. Blocks."""
        self._forbidden = tuple(self._parts.forbidden())
        files = self._scan.files
        if files is not None and files.area is Area.CRITICAL:
            self._running = running(ours(self._parts.ours), self._parts.patience)
            self._sectors, skips = first_sectors()
            self._tell([*self._running.skips, *skips])

    def _close(self) -> None:
        self._running.close()
        for one in self._sectors:
            os.close(one["fd"])
        self._sectors.clear()

    # --- one worker --------------------------------------------------------------------------------------------------

    async def _attempt(self, number: int) -> AsyncGenerator[Sequence[Event], None]:
        with ExitStack() as stack:
            clamd = await self._clamd(stack)
            at = _shared(stack)
            opened = [*self._running.opened, *self._sectors]
            self._lacking.clear()
            self._asked = Asked(self._scan, opened=opened, forbidden=self._forbidden)
            inherited = (at, self._known.remembered, self._known.learned, clamd, *(one["fd"] for one in opened))
            worker = await Worker.start(self._parts.command, descriptors=[one for one in inherited if one is not None])
            try:
                await self._limit(worker, number)
                feeder = Feeder(
                    scan=self._scan,
                    parts=self._parts,
                    known=self._known,
                    at=at,
                    clamd=clamd,
                    left_out=tuple(self._left_out),
                    running=self._running.paths,
                    opened=opened,
                    forbidden=self._forbidden,
                    tell=self._tell,
                    asked=self._asked.add,
                    lacks=lambda document: self._lacking.update({document: None}),
                )
                async with aclosing(self._heard(worker, feeder)) as batches:
                    async for batch in batches:
                        yield batch
            finally:
                await worker.end()
            self._how = worker.how
            self._at = (*self._at, *looked_at(os.pread(at, AT_SLOT * AT_SLOTS, 0)))

    async def _heard(self, worker: Worker, feeder: Feeder) -> AsyncGenerator[Sequence[Event], None]:
        silence = self._parts.silence + self._scan.limits.per_object.total_seconds()
        attempt = Attempt(worker, feeder, self._throttle, silence=silence)
        allowance = Allowance(self._scan.limits.findings)
        async with aclosing(attempt.messages()) as messages:
            async for message in messages:
                allowance.take(message)
                batch = [*self._told_ourselves(), *self._take(message)]
                if batch:
                    yield batch
                if self._end is not None:
                    return
        self._silent += attempt.silent

    async def _clamd(self, stack: ExitStack) -> int | None:
        """A connection to ClamAV, if it is asked for and there."""
        if not wants_clamd(self._scan):
            return None
        try:
            line = await asyncio.to_thread(self._parts.clamd.connect)
        except StanchError as error:
            self._clamav = str(error)
            self._clamav_is_dead = isinstance(error, Unavailable)
            return None
        line.settimeout(None)  # how it waits is said in the connection itself, and so for the worker, too
        return stack.enter_context(line).fileno()

    async def _limit(self, worker: Worker, number: int) -> None:
        bounds = await asyncio.to_thread(
            lambda: bound(
                worker.pid, parent=self._parts.groups, name=f"{self._task}-{number}", gentle=self._scan.limits.gentle
            )
        )
        worker.at_end = bounds.end
        self._limited = dict(bounds.told)

    def _died(self, death: int) -> str:
        """Leave out what the worker was at, and tell it; how it has died, in words."""
        how = f"the scanner ended by {self._how}"
        self._deaths += 1
        if not self._wanted and death + 1 >= MAX_DEATHS_LOADING:
            raise ActionFailed(
                "The scanner ends before it has loaded the rules", got=how, hint="`stanch agent selftest` may tell why."
            )
        new = [one for one in dict.fromkeys(self._at) if one not in self._left_out]
        self._left_out += new
        names = (os.fsencode(one).decode("utf-8", "backslashreplace")[:4000] for one in new)
        self._tell([Skip(name=one, reason=SkipReason.CRASHED, detail=how) for one in names])
        self._at = ()
        self._before |= self._now
        self._now = set()
        return how

    # --- what it says ------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> Sequence[Event]:
        match message:
            case LooksAt():
                self._at = message.names
            case Wanted():
                self._wanted = True
                self._check_loaded()
            case Ended():
                self._end = message
                if message.tally is None:
                    raise ActionFailed("The scan failed", got=message.error or "no reason was told")
            case _:
                return [self._as_ours(one) for one in message if self._is_new(one)]
        return ()

    def _check_loaded(self) -> None:
        """Invalid if there is nothing to look for."""
        nothing = self._loaded and not any(one.count for one in self._loaded)
        if nothing and (self._clamav or not wants_clamd(self._scan)):
            problem = next((p for one in self._loaded for p in one.problems), None)
            where = f" at line {problem.line}" if problem is not None and problem.line else ""
            raise Invalid(
                "None of the rules and indicators counts",
                got=f"{problem.text}{where}"[:500] if problem is not None else "nothing that is known on Linux",
                expected="at least one rule, indicator or hash",
                hint="`stanch ioc check FILE` explains a file of indicators.",
            )

    def _is_new(self, event: Event) -> bool:
        """False for what an earlier worker of this scan has told."""
        match event:
            case Finding():
                self._asked.check(event)
                self._findings += 1
                if self._findings > self._scan.limits.findings + SLACK:
                    raise nonsense("more findings than it may have")
                key = hash((event.engine, event.rule, *(one.name for one in event.objects)))
            case Skip():
                key = hash((event.name, event.reason))
            case Loaded():
                key = hash((event.name, event.kind))
                if len(self._loaded) >= len(self._scan.materials) * (MAX_DEATHS + 1):
                    raise nonsense("more files of rules than it was given")
                self._loaded.append(event)
            case Tally():
                raise nonsense("numbers in the middle")
            case _:
                return True
        if key in self._before:
            self._findings -= isinstance(event, Finding)
            return False
        if len(self._now) < MAX_SEEN:
            self._now.add(key)
        return True

    def _as_ours(self, event: Event) -> Event:
        """As the worker says it; but what the owner of the machine forbids it only knows as left out."""
        if isinstance(event, Advance):
            self._last = event.model_copy(update=self._throttle.told())
            return self._last
        if isinstance(event, Skip) and event.reason is SkipReason.EXCLUDED and event.name.startswith("/"):
            path = EndpointPath(event.name)
            if is_below(path, self._forbidden) is not None:
                self._counts.update({SkipReason.FORBIDDEN: 1, SkipReason.EXCLUDED: -1})
                return forbidden(path)
        return event

    def _tell(self, skips: Sequence[Skip]) -> None:
        new = [one for one in skips if hash((one.name, one.reason)) not in self._before]
        self._now.update(hash((one.name, one.reason)) for one in new)
        self._counts.update(one.reason for one in new)
        self._own += new

    def _told_ourselves(self) -> Sequence[Event]:
        told, self._own = self._own, []
        return told

    # --- the end -----------------------------------------------------------------------------------------------------

    def _tally(self, how: str) -> Tally:
        """The worker's numbers and ours; without a worker's, as far as it came."""
        told = self._end.tally if self._end is not None else None
        self.complete = told is not None and told.complete
        if told is None:
            why = f"{self._deaths} scanners died; the last: {how}"[:4000]
            last = self._last
            told = Tally(complete=False, why_incomplete=why, files=last.files, bytes=last.bytes)
        skipped = Counter(told.skipped)
        skipped.update(self._counts)
        return told.model_copy(
            update={
                **self._incomplete(told),
                "findings": self._findings,
                "skipped": {one: n for one, n in skipped.items() if n > 0},
                "seconds": round(time.monotonic() - self._began, 3),
                "paused_seconds": round(self._throttle.total(), 3),
                "limited": {**self._limited, **self._pressure()},
                "engines": {**told.engines, **({Engine.CLAMAV: self._clamav} if self._clamav else {})},
            }
        )

    def _incomplete(self, told: Tally) -> Mapping[str, object]:
        """A document that an indicator asks for and that was not read is a place that was not looked at.

        An engine that is there and was not asked is as good as that. One that is not installed is none of ours.
        """
        whys = [f"{one}: not all of it could be read, so what is asked of it may be unknown" for one in self._lacking]
        whys += [self._clamav] if self._clamav_is_dead else []
        if not whys:
            return {}
        whys[:0] = filter(None, [told.why_incomplete])
        return {"complete": False, "why_incomplete": "; ".join(whys)[:4000]}

    def _pressure(self) -> Mapping[str, str]:
        """How often it has stepped back; only told where it has, or could not."""
        patient = self._throttle.patient
        if patient.why:
            waited = f"waited {patient.waited:.0f} s for others: {', '.join(sorted(patient.why))}"
            return {"pressure": waited}
        return {}


def _shared(stack: ExitStack) -> int:
    """Memory in which a worker says what it is at: its descriptor, open as long as the stack."""
    shared = os.memfd_create("stanch-at")
    stack.callback(os.close, shared)
    os.ftruncate(shared, AT_SLOT * AT_SLOTS)
    return shared
