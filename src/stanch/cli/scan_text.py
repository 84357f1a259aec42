"""What a scan by hand tells people: findings as they come, and the summary. Pure; every text from a scan is foreign."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from stanch.cli.plain import plain
from stanch.cli.render import Block, Fields, Note, Table
from stanch.core.scanning import Advance, Event, Finding, Loaded, Skip, SkipReason, Tally
from stanch.core.types import seconds as of_seconds
from stanch.core.types import show_duration, show_size

FOUND: Final = 20
"""Exit code: something was found, whether the scan is complete or not."""
INCOMPLETE: Final = 21
"""Exit code: nothing was found, but the scan has not looked everywhere: it ended early, or had to skip something."""

MAX_LINES: Final = 12
"""Lines of why that are shown of one finding; all of them with `--json`."""
MAX_SKIPS: Final = 100_000
"""Skips that are kept to be listed."""
MAX_PATH: Final = 40
"""Characters of what is being looked at."""
SHOWN_SKIPS: Final = 10
SHOWN_PROBLEMS: Final = 20

WHY_SKIPPED: Final = {
    SkipReason.TOO_LARGE: "larger than --max-file-size",
    SkipReason.UNREADABLE: "no right to read it, or a read error",
    SkipReason.GONE: "vanished on the way",
    SkipReason.CHANGED: "written to while it was read",
    SkipReason.NOT_REGULAR: "a device, pipe or socket",
    SkipReason.TIMED_OUT: "the rules took too long on it",
    SkipReason.HANGS: "does not answer",
    SkipReason.NETWORK: "on a file system of the network (--network-drives looks there, too)",
    SkipReason.KERNEL: "made up by the kernel",
    SkipReason.EXCLUDED: "left out by --exclude",
    SkipReason.CRASHED: "the scanner died over it",
    SkipReason.FORBIDDEN: "the owner of the machine does not allow it",
    SkipReason.OTHER: "another reason",
}


@dataclass(kw_only=True)
class Seen:
    """What a scan has told so far."""

    findings: list[Finding] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    loaded: list[Loaded] = field(default_factory=list)
    tally: Tally = field(default_factory=lambda: Tally(complete=False, why_incomplete="it was interrupted"))
    last: Advance = field(default_factory=Advance)
    unlisted: int = 0
    """Skips beyond those that are kept."""
    named: frozenset[str] = frozenset()
    """Paths and processes that somebody has named: without them the scan is not complete."""
    _missed: list[str] = field(default_factory=list)

    def take(self, batch: Sequence[Event]) -> list[Finding]:
        """Take note of it; the findings among it."""
        new = [one for one in batch if isinstance(one, Finding)]
        self.findings += new
        for one in batch:
            if isinstance(one, Skip) and one.name in self.named:
                self._missed.append(f"{one.name} ({one.detail or one.reason})")
            match one:
                case Skip() if len(self.skips) < MAX_SKIPS:
                    self.skips.append(one)
                case Skip():
                    self.unlisted += 1
                case Loaded():
                    self.loaded.append(one)
                case Tally():
                    self.tally = self._with_named(one)
                case Advance():
                    self.last = one
        return new

    def _with_named(self, tally: Tally) -> Tally:
        """A name with a typing error in it must not read as: all is well there."""
        if not self._missed or not tally.complete:
            return tally
        why = f"not looked at: {'; '.join(self._missed[:SHOWN_SKIPS])}"
        return tally.model_copy(update={"complete": False, "why_incomplete": why[:4000]})

    def interrupt(self, after: float) -> None:
        """It ends after so many seconds, before its tally has come: the numbers are those told up to now."""
        far = {"files": self.last.files, "bytes": self.last.bytes, "processes": self.last.processes}
        skipped = Counter(one.reason for one in self.skips)
        found = {"findings": len(self.findings), "skipped": skipped, "seconds": round(after, 3)}
        self.tally = self.tally.model_copy(update={**far, **found})

    @property
    def exit_code(self) -> int:
        """0 only if it has looked everywhere and found nothing."""
        if self.findings:
            return FOUND
        return 0 if self.tally.looked_everywhere else INCOMPLETE

    def as_json(self, *, skipped: bool) -> dict[str, Any]:
        """All of it, for programs."""
        rows = self.skips if skipped else self.skips[:SHOWN_SKIPS]
        return {
            "found": len(self.findings),
            "complete": self.tally.complete,
            "looked_everywhere": self.tally.looked_everywhere,
            "findings": [one.model_dump(mode="json") for one in self.findings],
            "materials": [one.model_dump(mode="json") for one in self.loaded],
            "skips": [one.model_dump(mode="json") for one in rows],
            "skips_not_listed": len(self.skips) + self.unlisted - len(rows),
            "tally": self.tally.model_dump(mode="json"),
        }


def finding_lines(one: Finding) -> Iterator[str]:
    """A finding: what, where, and why."""
    title = f" - {plain(one.title, longest=200)}" if one.title and one.title != one.rule else ""
    yield f"FOUND {plain(one.rule, longest=200)}{title} ({one.engine}, {plain(PurePath(one.material).name)})"
    for place in one.objects:
        pid = f" (process {place.pid})" if place.pid is not None else ""
        sha256 = f"  sha256 {place.sha256}" if place.sha256 else ""
        yield f"  in {plain(place.name)}{pid}{sha256}"
    for line in one.why[:MAX_LINES]:
        got = f": {plain(line.got, longest=200)}" if line.got else ""
        yield f"  {'  ' * min(line.depth, 20)}- {plain(line.text, longest=300)}{got}"
    if len(one.why) > MAX_LINES:
        yield f"  ... and {len(one.why) - MAX_LINES} lines more (--json has all)"


def progress_line(seen: Seen) -> str:
    """How far it is, on one line."""
    at = seen.last
    done = f"{at.files}" if at.total is None else f"{at.files} of {at.total}"
    parts = [f"{len(seen.findings)} found" if seen.findings else "", f"{done} files", _size(at.bytes)]
    parts += [
        f"{at.processes} processes" if at.processes else "",
        _waiting(at) if at.paused else _end_of(plain(at.at)),
    ]
    return ", ".join(filter(None, parts))


def _waiting(at: Advance) -> str:
    """That it waits, for what, and how it would not."""
    return f"waiting: {plain(at.why, longest=100) or 'others need the machine'} (--no-gentle does not wait)"


def _end_of(path: str) -> str:
    """Its last characters: the line must not grow beyond the screen."""
    return path if len(path) <= MAX_PATH else f"…{path[-MAX_PATH:]}"


def summary(seen: Seen, *, all_skips: bool) -> Iterator[Block]:
    """What was looked at, what was not, and what does not count of the rules."""
    yield from _problems(seen.loaded)
    yield from _unknown(seen.loaded)
    yield from _skipped(seen, all_skips=all_skips)
    yield Fields(tuple(_numbers(seen)), "Scan")
    tally = seen.tally
    if not tally.complete:
        yield Note(f"INCOMPLETE: {plain(tally.why_incomplete) or 'it ended early'}. What was not found may be there.")
    what = f"{len(seen.findings)} found." if seen.findings else "Nothing was found."
    yield Note(what if tally.complete or seen.findings else "Nothing was found as far as it came.")


def _numbers(seen: Seen) -> Iterator[tuple[str, str]]:
    tally = seen.tally
    remembered = f" ({tally.remembered} not changed since an earlier scan)" if tally.remembered else ""
    yield "files", f"{max(tally.files, seen.last.files)}{remembered}"
    yield "read", _size(max(tally.bytes, seen.last.bytes)) or "0"
    processes = max(tally.processes, seen.last.processes)
    if processes:
        yield "processes", str(processes)
    for document, count in sorted(tally.items.items()):
        yield plain(document), str(count)
    waited = f", waited {_time(tally.paused_seconds)}" if tally.paused_seconds >= 1 else ""
    yield "time", f"{_time(tally.seconds)}{waited}"
    yield "rules and indicators", str(sum(one.count for one in seen.loaded))
    for engine, version in tally.engines.items():
        yield str(engine), plain(version, longest=200)
    unusual = [(one, why) for some in (tally.confined, tally.limited) for one, why in some.items() if why != "yes"]
    if unusual:
        yield "not as it should be", "; ".join(f"{plain(one)}: {plain(why, longest=200)}" for one, why in unusual)


def _problems(loaded: Sequence[Loaded]) -> Iterator[Block]:
    rows = [(one, problem) for one in loaded for problem in one.problems]
    if rows:
        shown = tuple(
            (plain(one.name), str(p.line or ""), plain(p.rule, longest=100), plain(p.text, longest=300))
            for one, p in rows[:SHOWN_PROBLEMS]
        )
        yield Table(("file", "line", "rule", "what is wrong"), shown, title="Do not count")
    if len(rows) > SHOWN_PROBLEMS:
        yield Note(f"... and {len(rows) - SHOWN_PROBLEMS} more (--json has all)")


def _unknown(loaded: Sequence[Loaded]) -> Iterator[Block]:
    times = Counter[tuple[str, str]]()
    for one in (unknown for some in loaded for unknown in some.unknown):
        times[one.term, one.why] += one.times
    rows = [(plain(term), str(n), plain(why, longest=200)) for (term, why), n in times.most_common()]
    if rows:
        title = "Terms that cannot be known here, and never matched"
        yield Table(("term", "times", "why"), tuple(rows[:SHOWN_PROBLEMS]), title=title)
    if len(rows) > SHOWN_PROBLEMS:
        yield Note(f"... and {len(rows) - SHOWN_PROBLEMS} more (--json has all)")


def _skipped(seen: Seen, *, all_skips: bool) -> Iterator[Block]:
    counts = seen.tally.skipped or Counter(one.reason for one in seen.skips)
    if not counts:
        return
    rows = tuple((str(one), str(n), WHY_SKIPPED[one]) for one, n in sorted(counts.items()))
    yield Table(("reason", "count", "what it means"), rows, title="Skipped")
    if all_skips:
        listed = tuple((plain(one.name), str(one.reason), plain(one.detail, longest=200)) for one in seen.skips)
        yield Table(("skipped", "reason", "detail"), listed)
    if seen.unlisted:
        yield Note(f"{seen.unlisted} more were skipped than the {MAX_SKIPS} that can be listed.")
    if not all_skips:
        yield Note("--skipped lists each of them.")


def _size(count: int) -> str:
    """Bytes as people read them, not exact."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return show_size(count) + " bytes" if count else ""


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else show_duration(of_seconds(seconds))  # noqa: PLR2004 - a minute
