"""`python -m stanch.worker.lint`: look through one pack of rules or indicators, and tell what in it counts.

The pack is the standard input; one line of JSON is the answer. Its bytes are hostile: everything is imported first,
then the process confines itself, and only then it reads. Rules, lists and indicators are read by what a scan reads them
with, so that what counts here counts there. Files come one after another: memory holds one of them.
"""

import encodings.latin_1
import encodings.utf_8
import encodings.utf_8_sig
import encodings.utf_16
import encodings.utf_16_be
import encodings.utf_16_le
import json
import os
import signal
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NoReturn

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Indicator, terms_of
from stanch.core.ioc.official import supported_of
from stanch.core.ioc.openioc import read_openioc
from stanch.core.ioc.stix import read_stix
from stanch.worker.confinement import confine, taken
from stanch.worker.scan.hash_lists import HashLists
from stanch.worker.scan.loading import MAX_INDICATORS
from stanch.worker.scan.rule_text import statements
from stanch.worker.scan.rules import RuleSet, Source, source_of

CPU_SECONDS = 60
NICE = 10
FIRST_TO_GO = b"1000"
"""Out of memory, the kernel is to choose this process: an agent is among the last, and its children inherit that."""
MEMORY = 512 * 2**20
"""As much as a scan has: what is too large for one is found here, before it ends each of them."""
MAX_LINE = 8 * 2**20
MAX_PROBLEMS = 1000
MAX_PER_FILE = 50
"""Problems of one file that are told; the others are counted."""
MAX_UNKNOWN = 500
LONGEST_TEXT = 500
IN, OUT = 0, 1
BLOCK = 2**20

_SMALL_BUNDLE: Final = json.dumps(
    {
        "type": "bundle",
        "id": "bundle--00000000-0000-4000-8000-000000000000",
        "objects": [
            {
                "type": "indicator",
                "spec_version": "2.1",
                "id": "indicator--00000000-0000-4000-8000-000000000001",
                "pattern_type": "stix",
                "pattern": "[file:name = 'a' AND file:size > 1] OR [ipv4-addr:value = '10.0.0.1']",
                "valid_from": "2026-01-01T00:00:00Z",
            }
        ],
    }
).encode()
"""Reads as one from outside does: so everything that a reader loads late is loaded in time."""

_LOADED = (
    encodings.latin_1,
    encodings.utf_8,
    encodings.utf_8_sig,
    encodings.utf_16,
    encodings.utf_16_be,
    encodings.utf_16_le,
    unicodedata,
)
"""What is otherwise loaded when it is first used: too late here."""


class OutOfTime(BaseException):
    """The processor time is used up. No Exception: no reader may take it for a problem of its file."""


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.files: list[tuple[int, int]] = []
        self.problems: list[Mapping[str, object]] = []
        self.unknown: Counter[str] = Counter()
        self.hashes = HashLists()
        """All lists together, as a scan has them: it holds so many, and no more."""
        self.sources: list[Source] = []
        """Rules that count, file by file: a scan compiles all of them together."""
        self.room = MAX_INDICATORS
        """Indicators that a scan still takes."""
        self._seen: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        """Of this file: a scan leaves out only what an earlier file has."""
        self._name = ""
        self._count = self._wrong = 0

    def begin(self, name: str) -> None:
        """The next file."""
        self._name, self._count, self._wrong = name, 0, 0

    def counts(self, number: int = 1) -> None:
        """So many rules, indicators or hashes more that count."""
        self._count += number

    def also(self, rule: str) -> None:
        """A rule of this name; it is told if an earlier file has one. Both count, but who reads of it cannot tell."""
        before = self._seen.setdefault(rule, self._name)
        if before != self._name:
            self.wrong(0, rule, f"{before} has a rule of this name already")

    def twice(self, key: str) -> bool:
        """Has an earlier file this identifier? Then it is left out, and told."""
        before = self._seen.get(key) if key else None  # those without an id are not the same
        if before is not None:
            self.wrong(0, key, f"{before} has an indicator with this id already: this one is left out")
        self._ids[key] = self._name
        return before is not None

    def wrong(self, line: int, rule: str, text: str) -> None:
        """Something that does not count."""
        self._wrong += 1
        if self._wrong <= MAX_PER_FILE and len(self.problems) < MAX_PROBLEMS:
            about = {"file": self._name, "line": line, "rule": _short(rule), "text": _short(text)}
            self.problems.append(about)

    def none_counts(self) -> None:
        """After all: no rule of any file."""
        self.files = [(0, wrong) for _, wrong in self.files]

    def end(self) -> None:
        """The file is over."""
        self.files.append((self._count, self._wrong))
        for key, name in self._ids.items():
            self._seen.setdefault(key, name)
        self._ids.clear()

    def asked(self, indicator: Indicator) -> None:
        """Count the terms of an indicator that cannot be known here."""
        for term in terms_of(indicator.root):
            if supported_of(term.document, term.path) is None and (
                term.name in self.unknown or len(self.unknown) < MAX_UNKNOWN
            ):
                self.unknown[term.name] += 1


def _short(text: str) -> str:
    """A text that may be put into JSON, and is not long."""
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode()


# --- kinds -----------------------------------------------------------------------------------------------------------


def lint_yara(data: bytes, found: Findings) -> None:
    """Compile one file as a scan does: what is wrong is taken out and named, rule by rule, and the rest counts."""
    source = source_of("", data)
    RuleSet([source], fast=True, tags=frozenset(), seconds=1).ready()
    for one in source.problems:
        found.wrong(one.line, one.rule, one.text)
    if not source.count:
        return
    for rule in dict.fromkeys(one.name for one in statements(source.text) if one.word == "rule"):
        found.also(rule)
    found.counts(source.count)
    found.sources.append(source)


def together(found: Findings) -> str:
    """Compile all rules at once, as a scan does, which needs memory for all of them; why that fails, or nothing."""
    if len(found.sources) <= 1:
        return ""
    try:
        if RuleSet(found.sources, fast=True, tags=frozenset(), seconds=1).ready() is not None:
            return ""
    except MemoryError:
        pass
    found.none_counts()
    return "all rules together take more memory than a scan has: import them as several contents"


def lint_openioc(data: bytes, found: Findings) -> None:
    """Read one indicator."""
    try:
        _take(read_openioc(data), found)
    except Unreadable as error:
        found.wrong(error.line, "", _reason(error))


def lint_stix(data: bytes, found: Findings) -> None:
    """Read the indicators of a bundle."""
    try:
        bundle = read_stix(data)
    except Unreadable as error:
        found.wrong(error.line, "", _reason(error))
        return
    for one in bundle.problems:
        found.wrong(one.line, "", _reason(one))
    for note in bundle.unused:
        found.wrong(0, "", f"left out: {note}")
    for indicator in bundle.indicators:
        _take(indicator, found)


def _take(indicator: Indicator, found: Findings) -> None:
    if found.twice(indicator.id):
        return
    if not found.room:
        found.wrong(0, indicator.id, f"only {MAX_INDICATORS} indicators are held at once: this one is left out")
        return
    found.room -= 1
    found.counts()
    found.asked(indicator)


def _reason(error: Unreadable) -> str:
    parts = (error.message, f"got {error.got}" if error.got else "")
    return ", ".join([*filter(None, parts), *([f"expected {error.expected}"] if error.expected else [])])


def lint_hashes(data: bytes, found: Findings) -> None:
    """Read a list as a scan does."""
    count, problems = found.hashes.add("", data)
    found.counts(count)
    for one in problems:
        found.wrong(one.line, "", one.text)


LINTERS: Mapping[str, Callable[[bytes, Findings], None]] = {
    "yara": lint_yara,
    "openioc": lint_openioc,
    "stix": lint_stix,
    "hashes": lint_hashes,
}


# --- the process -----------------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """Look through the pack on standard input. The exit status is 0 if there is an answer at all."""
    _warm_up()
    signal.signal(signal.SIGXCPU, _out_of_time)
    gave_way = taken({"nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, NICE), "oom": _go_first})
    confined = confine(cpu_seconds=CPU_SECONDS, memory=MEMORY)
    answer = {"confined": {**gave_way, **confined}, **look(_Input())}
    _write(json.dumps(answer).encode())
    os._exit(0)  # nothing is left to be tidied up, and the tidying would ask the kernel for what is forbidden now


def _go_first() -> None:
    file = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, FIRST_TO_GO)
    finally:
        os.close(file)


def _warm_up() -> None:
    """Let everything load that is loaded when it is first used."""
    lint_yara(b"rule a { condition: true }", Findings())
    lint_yara(b"rule b { condition: c }", Findings())
    lint_hashes(b"0" * 32, Findings())
    for read, some in ((read_openioc, b"<ioc/>"), (read_stix, b"{}"), (read_stix, _SMALL_BUNDLE)):
        with suppress(Unreadable):
            read(some)


def _out_of_time(_signal: int, _frame: object) -> NoReturn:
    raise OutOfTime


class _Input:
    """Standard input, so many bytes at a time."""

    def __init__(self) -> None:
        self._rest = b""

    def line(self) -> bytes:
        """The first line."""
        buffer = bytearray()
        while b"\n" not in buffer:
            piece = os.read(IN, BLOCK)
            if not piece or len(buffer) > MAX_LINE:
                raise ValueError("the pack has no list of files")
            buffer += piece
        line, _, self._rest = bytes(buffer).partition(b"\n")
        return line

    def take(self, size: int) -> bytes:
        """Exactly so many bytes; ValueError if there are not so many."""
        pieces = [self._rest[:size]]
        self._rest = self._rest[size:]
        missing = size - len(pieces[0])
        while missing:
            piece = os.read(IN, min(missing, BLOCK))
            if not piece:
                raise ValueError("the pack is shorter than its list of files says")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


def look(source: _Input) -> Mapping[str, object]:
    """Everything that is told of a pack: of as many files as there was time for."""
    found, why = Findings(), ""
    try:
        for name, kind, data in _files(source):
            found.begin(name)
            _look_at(LINTERS[kind], data, found)
            found.end()
        why = together(found)
    except OutOfTime:
        why = f"it took over {CPU_SECONDS} seconds of the processor"
    except MemoryError:
        why = "it took too much memory"
    except (ValueError, KeyError, TypeError) as error:
        why = f"the pack cannot be read: {error}"[:LONGEST_TEXT]
    unknown = [[term, times] for term, times in found.unknown.most_common()]
    return {"files": found.files, "problems": found.problems, "unknown": unknown, "why_incomplete": why}


def _files(source: _Input) -> Iterator[tuple[str, str, bytes]]:
    """Name, kind and bytes of each file. The server has looked at the list already: this only follows it."""
    index = json.loads(source.line())
    for one in index["files"]:
        yield str(one["name"]), str(index["kind"]), source.take(int(one["size"]))


def _look_at(lint: Callable[[bytes, Findings], None], data: bytes, found: Findings) -> None:
    """Look at one file; whatever its reader raises is a problem of this file alone."""
    try:
        lint(data, found)
    except MemoryError:
        found.wrong(0, "", "it took too much memory")
    except Exception as error:  # noqa: BLE001 - hostile bytes: the other files are looked at all the same
        found.wrong(0, "", f"it cannot be read: {type(error).__name__}: {error}")


def _write(answer: bytes) -> None:
    rest = memoryview(answer)
    while rest:
        rest = rest[os.write(OUT, rest) :]


if __name__ == "__main__":
    main()
