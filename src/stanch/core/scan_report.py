"""What every scan answers, and the way from the scanner's events to that answer: what the scan actions share.

Of what is found and what is skipped, the first rows are in the answer and all of them in evidence, as lines of JSON, if
there are more: nothing is lost, and the agent holds no more than one piece in memory.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from stanch.core.action import Result
from stanch.core.errors import Invalid, StanchError
from stanch.core.evidence import Lines
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.scanning import (
    Advance,
    Count,
    Engine,
    Event,
    Finding,
    Loaded,
    Object,
    Scan,
    Skip,
    SkipReason,
    Tally,
)
from stanch.core.taking import told
from stanch.core.types import EndpointPath, EvidenceRef, Text, show_size

INLINE_FINDINGS = 1000
FINDINGS_BYTES = 2**20
INLINE_SKIPS = 200
SKIPS_BYTES = 2**18
"""Rows, and bytes of them, in the answer itself."""

PIECE_BYTES = 8 * 2**20
"""What is collected in memory before it is sent."""

MAX_PIECES = 1000
MAX_MATERIALS = 20_000
MATERIALS_BYTES = 2**19
IN_DETECTION = 20
"""Findings that a detection tells."""

DETECTION_BYTES = 65_536

MAX_OBJECTS = 1000
"""Files and processes that something can be done about."""

_MOST_NAMED = 5
"""Places that one line names."""

Pieces = Annotated[tuple[EvidenceRef, ...], Field(max_length=MAX_PIECES)]


class SkippedCount(Model):
    """How many were skipped for one reason."""

    reason: Annotated[SkipReason, Field(description="Why.")]

    count: Count
    """How many."""


class DocumentCount(Model):
    """How many items of one document were judged."""

    document: Annotated[str, Field(max_length=64)]
    """FileItem, ProcessItem, ..."""

    count: Count
    """How many."""


class EngineTold(Model):
    """An engine, and what became of it."""

    engine: Annotated[Engine, Field(description="Which.")]

    version: Text
    """Its version, or why it was not used."""


class Scanned(Result):
    """What a scan has found, and what it has not looked at."""

    found: Count
    """How many findings there are."""

    complete: bool
    """False if it ended before it had looked everywhere, could not look at a place that the order names, could not read
    all of a document that an indicator asks for, or had nothing that could have found anything here, so that nothing
    found says little; or could not do to all finds what was ordered."""

    why_incomplete: Text = ""
    """Why it ended early, what it could not look at, or what it could not do."""

    looked_everywhere: bool = False
    """True if it came to its end, and nothing that was wanted was skipped (unreadable, timed-out, hangs, crashed,
    changed, forbidden, other): only then does "nothing found" mean that nothing is there. By the same rule a scan by
    hand ends with 0 and not with 21."""

    findings: Annotated[tuple[Finding, ...], Field(max_length=INLINE_FINDINGS)] = ()
    """The first of them."""

    findings_evidence: Pieces = ()
    """All of them, if they are more than these: one JSON object in each line."""

    files: Count = 0
    """Files that were looked at, those included that are known from an earlier scan."""

    remembered: Count = 0
    """Of them, known from an earlier scan and not changed since: not read again."""

    bytes: Count = 0
    """Bytes that were read."""

    processes: Count = 0
    """Processes whose memory was looked into."""

    items: Annotated[tuple[DocumentCount, ...], Field(max_length=50)] = ()
    """What else was judged, by document."""

    skipped: Annotated[tuple[SkippedCount, ...], Field(max_length=len(SkipReason))] = ()
    """What was not looked at, or not all of it, by reason."""

    skips: Annotated[tuple[Skip, ...], Field(max_length=INLINE_SKIPS)] = ()
    """The first of it."""

    skips_evidence: Pieces = ()
    """All of it, if it is more than this: one JSON object in each line."""

    materials: Annotated[tuple[Loaded, ...], Field(max_length=MAX_MATERIALS)] = ()
    """The files of rules and indicators: how many of them count, what is wrong with the others, terms unknown here."""

    engines: Annotated[tuple[EngineTold, ...], Field(max_length=len(Engine))] = ()
    """What looked for it."""

    seconds: Annotated[float, Field(ge=0, le=2**40)] = 0
    """How long it took."""

    paused_seconds: Annotated[float, Field(ge=0, le=2**40)] = 0
    """Of that, waited: on order, or since others needed the machine."""

    unusual: Annotated[tuple[Text, ...], Field(max_length=60)] = ()
    """How the scanner could not be confined or slowed as it should be, on this machine."""


@dataclass(kw_only=True)
class _Rows:
    """Rows of one kind: the first in memory, all of them as evidence once they are too many."""

    host: Host
    kind: str
    most: int
    most_bytes: int
    total: int = 0
    first: list[Any] = field(default_factory=list)
    pieces: list[EvidenceRef] = field(default_factory=list)
    lost: int = 0
    _held: int = 0
    _lines: bytearray = field(default_factory=bytearray)

    async def add(self, row: LooseModel) -> None:
        self.total += 1
        line = row.model_dump_json(exclude_defaults=True).encode() + b"\n"
        if len(self.first) < self.most and self._held < self.most_bytes:  # what cannot be told is not kept
            self.first.append(row)
            self._held += len(line)
        if len(self.pieces) >= MAX_PIECES - 1:
            self.lost += 1
            return
        self._lines += line
        if len(self._lines) >= PIECE_BYTES:
            await self._send()

    def inline(self) -> tuple[Any, ...]:
        return told(self.first, most=self.most_bytes)

    async def end(self) -> None:
        """Send what is left, if not all of it is in the answer."""
        if self._lines and (self.pieces or len(self.inline()) < self.total):
            await self._send()

    async def _send(self) -> None:
        piece = Lines(self.kind, len(self.pieces) + 1, bytes(self._lines))
        self._lines.clear()
        self.pieces.append(await self.host.evidence.send(piece))


@dataclass(kw_only=True)
class Report:
    """A scan on its way to its answer."""

    host: Host
    detection: str
    """Kind of detection that finds are told as."""
    unit: str = "files"
    named: Collection[str] = ()
    """Places and processes that the order names: the scan is not complete without them."""
    materials: list[Loaded] = field(default_factory=list)
    tally: Tally = field(default_factory=lambda: Tally(complete=False, why_incomplete="The scanner told no end."))
    counts: Counter[SkipReason] = field(default_factory=Counter)
    objects: list[Object] = field(default_factory=list)
    """Files and processes in which something was found, each once: the first of them."""
    beyond: int = 0
    """Finds in others."""
    answer: Callable[..., Scanned] = Scanned
    """Makes the result of a scan that does not come to its end."""
    _last: Advance = field(default_factory=Advance)
    _missed: list[str] = field(default_factory=list)
    _known: set[tuple[object, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._findings = _Rows(host=self.host, kind="findings", most=INLINE_FINDINGS, most_bytes=FINDINGS_BYTES)
        self._skips = _Rows(host=self.host, kind="skipped", most=INLINE_SKIPS, most_bytes=SKIPS_BYTES)

    @property
    def findings(self) -> Sequence[Finding]:
        """The first that were found."""
        return self._findings.first

    @property
    def found(self) -> int:
        """How many findings there are."""
        return self._findings.total

    async def run(self, scan: Scan) -> None:
        """Do the scan, and tell the server what it has found; what it had found, if it is cut short.

        Raises what `Scanner.scan` raises, after that was told.
        """
        try:
            async with aclosing(self.host.scanner.scan(scan)) as batches:
                async for batch in batches:
                    for one in batch:
                        await self._take(one)
        except (asyncio.CancelledError, Exception) as error:
            # A cancel, a limit, a scanner that fails: what was found until then is told all the same.
            self._keep(error)
            with suppress(StanchError):
                await asyncio.shield(detect(self, complete=False))
            raise
        await self._findings.end()
        await self._skips.end()
        await self._check_named(scan)
        await detect(self, complete=self.tally.complete)

    def _keep(self, error: BaseException) -> None:
        """Let what there is be the result of a task that has no other: the first rows, the rest is lost."""
        why = str(error)[:2000] or "it was stopped"
        last = self._last
        so_far = {"files": last.files, "bytes": last.bytes, "processes": last.processes}
        self.tally = self.tally.model_copy(
            update={**so_far, "complete": False, "why_incomplete": f"The scan did not come to its end: {why}"}
        )
        self.host.journal.keep(self.answer(**self.told()))

    async def _check_named(self, scan: Scan) -> None:
        """A name with a typing error in it must not read as: all is well there."""
        missed = [*dict.fromkeys([*self._missed, *await self._gone()])]
        if scan.names and not self.tally.processes and not missed:
            missed.append(f"no process is called {' or '.join(scan.names[:_MOST_NAMED])}")
        if missed and self.tally.complete:
            more = f" and {len(missed) - _MOST_NAMED} more" if len(missed) > _MOST_NAMED else ""
            why = f"Not looked at: {'; '.join(one[:300] for one in missed[:_MOST_NAMED])}{more}"
            self.tally = self.tally.model_copy(update={"complete": False, "why_incomplete": why})

    async def _gone(self) -> list[str]:
        """Named places where nothing is. The scanner tells them, but by where their links lead."""
        paths = [one for one in self.named if one.startswith("/")]
        if not self.counts[SkipReason.GONE] or self.counts[SkipReason.HANGS]:
            return []
        gone = list[str]()
        for one in paths:
            with suppress(StanchError):
                if await self.host.files.look(EndpointPath(one)) is None:
                    gone.append(f"{one} ({SkipReason.GONE})")
        return gone

    async def _take(self, event: Event) -> None:
        match event:
            case Finding():
                await self._findings.add(event)
                self._remember(event.objects)
                self._tell(self._last)
            case Skip():
                self.counts[event.reason] += 1
                if event.name in self.named:
                    self._missed.append(f"{event.name} ({event.reason})")
                await self._skips.add(event)
            case Loaded():
                if len(self.materials) < MAX_MATERIALS:
                    self.materials.append(event)
            case Tally():
                self.tally = event
            case Advance():
                self._last = event
                self._tell(event)

    def _remember(self, objects: Sequence[Object]) -> None:
        for one in objects:
            key = (one.document, one.path, one.pid, one.started, one.sha256)
            if key in self._known:
                continue
            if len(self.objects) < MAX_OBJECTS:
                self._known.add(key)
                self.objects.append(one)
            else:
                self.beyond += 1

    def _tell(self, at: Advance) -> None:
        done = at.processes if self.unit == "processes" else at.files
        found = f"{self._findings.total} found, " if self._findings.total else ""
        paused = (at.why or "it waits") if at.paused else ""
        what = " at ".join(filter(None, ["paused" if paused else "", at.at])) if paused else at.at
        text = f"{found}{show_size(at.bytes)}, {what}" if at.bytes else f"{found}{what}"
        self.host.progress(done, at.total, self.unit, text[:300], paused=paused[:200])

    @property
    def _looked_everywhere(self) -> bool:
        skipped = {one: n for one, n in (self.tally.skipped or self.counts).items() if n}
        return self.tally.model_copy(update={"skipped": skipped}).looked_everywhere

    def told(self) -> dict[str, Any]:
        """The fields of `Scanned`."""
        tally = self.tally
        lost = self._findings.lost + self._skips.lost
        why = tally.why_incomplete or (f"{lost} rows were too many to be kept" if lost else "")
        return {
            "found": self.found,
            "findings": self._findings.inline(),
            "findings_evidence": tuple(self._findings.pieces),
            "complete": tally.complete and not lost,
            "why_incomplete": why,
            "looked_everywhere": self._looked_everywhere and not lost,
            "files": tally.files,
            "remembered": tally.remembered,
            "bytes": tally.bytes,
            "processes": tally.processes,
            "items": tuple(DocumentCount(document=one, count=n) for one, n in sorted(tally.items.items())),
            "skipped": tuple(SkippedCount(reason=one, count=n) for one, n in (tally.skipped or self.counts).items()),
            "skips": self._skips.inline(),
            "skips_evidence": tuple(self._skips.pieces),
            "materials": told(self.materials, most=MATERIALS_BYTES),
            "engines": tuple(EngineTold(engine=one, version=text) for one, text in tally.engines.items()),
            "seconds": tally.seconds,
            "paused_seconds": tally.paused_seconds,
            "unusual": _unusual(tally),
        }


def _unusual(tally: Tally) -> tuple[str, ...]:
    every = {**tally.confined, **tally.limited}
    return tuple(f"{measure}: {what}"[:4000] for measure, what in every.items() if what != "yes")


async def detect(report: Report, *, complete: bool) -> None:
    """Tell the server what was found, once: an order that goes on after a crash tells it again only if it is more.

    If the agent is killed between the telling and the record of it, it is told twice.
    """
    host, found = report.host, report.findings
    recorded = host.journal.recorded() or {}
    if report.found <= int(recorded.get("told", 0)):
        return
    first = told([one.model_copy(update={"why": ()}) for one in found[:IN_DETECTION]], most=DETECTION_BYTES)
    rows = [one.model_dump(mode="json", exclude_defaults=True) for one in first]
    early = {} if complete else {"incomplete": True}
    await host.detections.tell(report.detection, {"found": report.found, **early, "findings": rows})
    await host.journal.record({**recorded, "told": report.found})


def nothing_to_scan_with(what: str, *, hint: str) -> StanchError:
    """The error of a scan without anything to look for."""
    return Invalid("There is nothing to scan with", got="no rules, no content", expected=what, hint=hint)
