"""What a scan tells: events in batches, and the numbers of all of it. Any thread may tell.

Whoever does not read what is told holds the scan up: nothing is kept but one batch.
"""

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from stanch.core.scan_wire import MAX_ANSWER, MAX_BATCH

EVERY: Final = 0.2
"""Seconds after which whatever waits is told."""
MAX_SKIPS: Final = 20_000
"""Skipped objects that are listed; all of them are counted."""
LONGEST: Final = 4000
"""Characters of any text."""
MAX_PATH: Final = 4095
"""Bytes of a path with which the kernel can be asked (`core.types.MAX_PATH_BYTES`)."""
AIM: Final = 65_536
"""Bytes of a message of events."""
_MAX_EVENT: Final = MAX_ANSWER // 4
"""Bytes of one event: a larger one is told with few of its reasons, or with none."""
_UNSEEN: Final = frozenset({"unreadable", "hangs", "crashed", "other"})
"""Of what was not even looked at. What is excluded, or is gone, is none of the files that a scan speaks of."""
_LOOKS_ESCAPED: Final = re.compile(rb"\\(?=x[0-9a-fA-F]{2})")


class Wire:
    """Messages to the agent, one line each, never torn by another thread."""

    def __init__(self, file: int = 1) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, *messages: Mapping[str, Any]) -> None:
        """Blocks until they are taken."""
        lines = (json.dumps(one, separators=(",", ":")) + "\n" for one in messages)
        data = memoryview("".join(lines).encode("ascii"))
        with self._lock:
            while data:
                data = data[os.write(self._file, data) :]


class Tells(Protocol):
    """Hears of what was looked at, as `Telling`."""

    def looked(self, *, size: int, remembered: bool, skipped: bool = False) -> None:
        """A file is done."""
        ...

    def judged(self, document: str, count: int = 1) -> None:
        """So many items were judged."""
        ...

    def skip(self, name: bytes | str, reason: str, detail: str = "", *, judged: bool = False) -> None:
        """Something is not looked at, or not all of it."""
        ...

    def finding(self, finding: Mapping[str, Any]) -> None:
        """Something was found."""
        ...


class Telling:
    """Collects events and numbers."""

    def __init__(self, wire: Wire, *, most_findings: int, most_rules: int) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._events: list[list[Any]] = []
        self._size = 0
        self._skips = 0
        self._most_findings = most_findings
        self._most_rules = most_rules
        self._rules: set[str] = set()
        self._begun = time.monotonic()
        self.files = self.remembered = self.bytes = self.processes = self.findings = 0
        self.done = 0
        """Files that were looked at or skipped."""
        self.items: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.unseen = False
        """Was a file or folder not looked at that was to be? Then nobody knows that no file is like this or that."""
        self.total: int | None = None
        self.incomplete: list[str] = []
        self.stop = threading.Event()
        """Set when nothing more is to be looked at."""

    def looked(self, *, size: int, remembered: bool, skipped: bool = False) -> None:
        """A file is done, of which so many bytes were read; one that was skipped does not count as looked at."""
        with self._lock:
            self.done += 1
            self.files += not skipped
            self.bytes += size
            self.remembered += remembered

    def looked_elsewhere(self, numbers: tuple[int, int, int, int], items: Mapping[str, int]) -> None:
        """As `looked` and `judged`, of what another process did: `hands.Reported.numbers` and `.items`."""
        with self._lock:
            self.done += numbers[0]
            self.files += numbers[1]
            self.remembered += numbers[2]
            self.bytes += numbers[3]
            self.items.update(items)

    def known(self, count: int) -> None:
        """So many files are remembered, and need not be looked at."""
        with self._lock:
            self.files += count
            self.remembered += count

    def judged(self, document: str, count: int = 1) -> None:
        """So many items were judged."""
        with self._lock:
            self.items[document] += count

    def searched(self) -> None:
        """The memory of a process is done."""
        with self._lock:
            self.processes += 1

    def skip(self, name: bytes | str, reason: str, detail: str = "", *, judged: bool = False) -> None:
        """Something is not looked at, or not all of it; `judged`: indicators had it all the same, or it is no file."""
        with self._lock:
            self.unseen = self.unseen or (not judged and reason in _UNSEEN)
            self.skipped[reason] += 1
            self._skips += 1
            if self._skips > MAX_SKIPS:
                return
            self._add(["skip", {"name": text(name), "reason": reason, "detail": detail[:LONGEST]}])

    def finding(self, finding: Mapping[str, Any]) -> None:
        """Something was found; one too many ends the scan."""
        with self._lock:
            if self.stop.is_set():
                return
            self.findings += 1
            self._rules.add(f"{finding['engine']} {finding['material']} {finding['rule']}")
            self._add(["finding", finding])
            if self.findings >= self._most_findings:
                self._end(f"{self.findings} finds, as many as are allowed")
            elif self._most_rules and len(self._rules) >= self._most_rules:
                self._end(f"{len(self._rules)} rules have found something, as many as are allowed")

    def end(self, why: str) -> None:
        """Nothing more is to be looked at."""
        with self._lock:
            self._end(why)

    def missing(self, why: str) -> None:
        """The scan goes on, but is not complete."""
        with self._lock:
            if why not in self.incomplete and len(self.incomplete) < 20:  # noqa: PLR2004 - reasons that people read
                self.incomplete.append(why)

    def advance(self, *, paused: bool, at: bytes) -> None:
        """Tell how far it is, and whatever waits."""
        with self._lock:
            told = {"files": self.done, "bytes": self.bytes, "total": self.total, "processes": self.processes}
            self._add(["advance", {**told, "paused": paused, "at": text(at)}])
            self._flush()

    def flush(self) -> None:
        """Tell whatever waits."""
        with self._lock:
            self._flush()

    def tally(self, **more: Any) -> dict[str, Any]:
        """The numbers of all of it."""
        with self._lock:
            return {
                "files": self.files,
                "remembered": self.remembered,
                "bytes": self.bytes,
                "processes": self.processes,
                "items": dict(self.items.most_common(50)),
                "skipped": dict(self.skipped),
                "findings": self.findings,
                "complete": not self.incomplete,
                "why_incomplete": "; ".join(self.incomplete)[:LONGEST],
                "seconds": round(time.monotonic() - self._begun, 3),
                **more,
            }

    def _end(self, why: str) -> None:
        if not self.stop.is_set():
            self.incomplete.append(why)
            self.stop.set()

    def _add(self, event: list[Any]) -> None:
        size = len(json.dumps(event))
        while size > _MAX_EVENT and event[1].get("why"):
            event[1] = {**event[1], "why": event[1]["why"][: len(event[1]["why"]) // 2]}
            size = len(json.dumps(event))
        if self._size + size > AIM:
            self._flush()
        self._events.append(event)
        self._size += size
        if len(self._events) >= MAX_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._events:
            self._wire.send({"type": "events", "events": self._events})
            self._events, self._size = [], 0


def text(name: bytes | str) -> str:
    r"""As people read it: bytes that are no UTF-8 as `\xff`; bounded."""
    if isinstance(name, str):
        try:
            raw = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            raw = name.encode("utf-8", "backslashreplace")
    else:
        raw = name
    return raw.decode("utf-8", "backslashreplace")[:LONGEST]


def path_about(path: bytes) -> dict[str, str]:
    """What an object tells of its path: nothing if the kernel could not be asked with it, or if it leads nowhere."""
    return {"path": path_text(path)} if path.startswith(b"/") and len(path) <= MAX_PATH else {}


def path_text(path: bytes) -> str:
    """As `core.types.EndpointPath.of` has it: the bytes can be had back."""
    return _LOOKS_ESCAPED.sub(rb"\\x5c", path).decode("utf-8", "backslashreplace")


def line(words: str, *, depth: int = 0, about: str = "", got: str = "") -> dict[str, Any]:
    """A line of why."""
    return {"depth": depth, "text": text(words), "object": text(about), "got": text(got)}


def finding(
    *,
    engine: str,
    rule: str,
    material: str,
    objects: Sequence[Mapping[str, Any]],
    title: str = "",
    why: Sequence[Mapping[str, Any]] = (),
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    """A `core.scanning.Finding`, bounded."""
    return {
        "engine": engine,
        "rule": text(rule),
        "title": text(title),
        "material": text(material),
        "objects": list(objects[:20]),
        "why": list(why[:200]),
        "tags": [tag[:200] for tag in tags[:50]],
    }
