"""YARA rules: compiled from source, each file in a namespace of its own, and asked about content.

What does not compile is taken out and named, rule by rule; the rest counts. Nothing is ever included from elsewhere,
and compiled rules are never read. Externals are set for every file.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yara

from stanch.worker.scan.narrowing import Narrowing, class_of
from stanch.worker.scan.rule_places import MAX_PLACES, firsts, hidden, probe
from stanch.worker.scan.rule_text import Statement, at_line, plain, statements, without

EXTERNALS: Final = ("filename", "filepath", "extension", "filetype", "owner")
"""What rules may ask about a file besides its content."""
MAX_PROBLEMS: Final = 200
"""Of one file: then all of it is left out."""
REPAIR_SECONDS: Final = 20.0
"""For taking bad rules out of all files; whatever is still bad then is left out as a whole."""
MAX_REPAIRED: Final = 16 * 2**20
"""Characters of a file out of which bad rules are taken: its statements are all in memory then."""
MAX_SHOWN: Final = 64
"""Bytes of a string that matched, as they are told."""
MAX_STRINGS: Final = 200
"""Places that are told of one match."""
MOST_FLOODING: Final = 2
"""Strings that are there a million times, with which a search is given up. A file can be made so that it holds all
strings of a rule nearly that often, which takes 64 bytes for each place: then the limit of the memory ends it."""
BEGINNING: Final = 2**16
"""Bytes that are searched of such a file."""
MAX_MADE: Final = 32
"""What is kept of what was made to tell the places of what was found."""
_OLD_WAY: Final = 3
"""Parts of a string that matched, in old releases."""

yara.set_config(max_match_data=MAX_SHOWN + 1)  # more of each place would be kept in memory for nothing

PREPARED: Final = ("elf", "other")
"""Classes of files of which every machine has some."""

_LINE: Final = re.compile(r"line (\d+)")
_ON_ITS_OWN: Final = frozenset({"filename", "filepath", "extension"})
_OF_EACH: Final = _ON_ITS_OWN | {"owner"}


_Name = tuple[str, str]
"""Name space and name of a rule."""


class TooLong(Exception):
    """The rules took longer than they may."""


class NotScanned(Exception):
    """The engine gave up, for the reason given."""


class _Flood(NotScanned):
    """Strings of the rules are there so often that all their places would take gigabytes."""


class TooOften(Exception):
    """The same, and what holds for the beginning of the content alone."""

    def __init__(self, hits: "Sequence[Hit]") -> None:
        super().__init__(f"strings of the rules are there too often: only its first {BEGINNING} bytes count")
        self.hits = hits


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What does not count, and why."""

    line: int = 0
    rule: str = ""
    text: str


@dataclass(slots=True, kw_only=True)
class Source:
    """One file of rules."""

    name: str
    text: str
    sha256: bytes
    count: int | None = None
    """Rules that count, once that is known."""
    asks: frozenset[str] | None = None
    """Of EXTERNALS, those that a rule may ask about; None until somebody has looked."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A rule that holds."""

    rule: str
    source: str
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    strings: tuple[tuple[str, str], ...]
    """What matched where, and how it looks."""


def source_of(name: str, data: bytes) -> Source:
    """Rules are UTF-8 as a rule; bytes that are not are taken one by one, as the engine does."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return Source(name=name, text=text.replace("\0", " "), sha256=hashlib.sha256(data).digest())


class RuleSet:
    """All rules of a scan. Compiled when they are first needed, or when `ready` says so; then asked by any thread."""

    def __init__(self, sources: Sequence[Source], *, fast: bool, tags: frozenset[str], seconds: float) -> None:
        self._sources = sources
        self._fast = fast
        self._tags = tags
        self._timeout = max(1, int(seconds + 0.999))
        self._lock = threading.Lock()
        self._finding_places = threading.Lock()
        """Held by the one thread that may need much memory."""
        self._compiled: yara.Rules | None = None
        self._narrowed: dict[str, yara.Rules | None] = {}
        self._made: dict[tuple[object, frozenset[_Name]], yara.Rules | None] = {}
        self._understood: list[Narrowing] | None = None
        self._empty = not sources
        self.asks = frozenset[str]().union(*map(_asks, sources))
        """Externals that some rule may ask about."""
        self.key = self._key()
        """Names these rules, this engine, and how it is asked: what was clean once is clean again under this name."""

    def _key(self) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{engine()} {sorted(self._tags)}".encode())
        for one in self._sources:
            digest.update(one.sha256)
        return digest.digest()

    @property
    def asks_whose(self) -> bool:
        """Does a rule ask what a file is called, or whose it is? Then each is clean under a name of its own."""
        return not self.asks.isdisjoint(_OF_EACH)

    def key_for(self, path: bytes, owner: str) -> bytes:
        """The name under which this very file is clean: rules may ask what it is called, and whose it is."""
        if not self.asks_whose:
            return self.key
        digest = hashlib.blake2b(self.key, digest_size=16)
        if self.asks & _ON_ITS_OWN:
            digest.update(path)
        if "owner" in self.asks:
            digest.update(b"\0" + owner.encode("utf-8", "surrogateescape"))
        return digest.digest()

    @property
    def empty(self) -> bool:
        """Is there no rule that counts?"""
        return self._empty

    def ready(self) -> yara.Rules | None:
        """Compile, if that has not been done; None if no rule counts."""
        with self._lock:
            if self._compiled is None and not self._empty:
                self._compiled = _compiled(self._sources)
                self._empty = self._compiled is None
            return self._compiled

    def prepare(self) -> None:
        """Compile what most files need, before there are several processes that would each do it."""
        for class_ in PREPARED:
            self._for(class_)

    def can_match(self, first: bytes) -> bool:
        """Can any rule hold for a file that begins with these bytes (four at least, if it has them)?"""
        return self._for(class_of(first)) is not None

    def match(self, data: Any, externals: Mapping[str, str]) -> list[Hit]:
        """The rules that hold for this content. TooLong, TooOften, NotScanned."""
        rules = self._for(class_of(bytes(data[:4])))
        try:
            return self._match(rules, {"data": data}, externals)
        except _Flood:
            begin = bytes(data[:BEGINNING])
        raise TooOften(self._match(rules, {"data": begin}, externals))

    def match_process(self, pid: int) -> list[Hit]:
        """The rules that hold for the memory of this process. TooLong, NotScanned."""
        return self._match(self.ready(), {"pid": pid}, {})

    def _for(self, class_: str) -> yara.Rules | None:
        """The rules that can hold for files of a class; compiled when the first of them comes."""
        rules = self.ready()
        if rules is None:
            return None
        with self._lock:
            if class_ not in self._narrowed:
                if self._understood is None:
                    self._understood = [Narrowing(one.text if one.count else "") for one in self._sources]
                texts = [one.text_for(class_) for one in self._understood]
                self._narrowed[class_] = _narrow(rules, self._sources, texts)
            return self._narrowed[class_]

    def _match(self, rules: yara.Rules | None, what: Mapping[str, Any], externals: Mapping[str, str]) -> list[Hit]:
        if rules is None:
            return []
        found = self._asked(rules, what, externals, fast=True)
        wanted = [one for one in found if not self._tags or self._tags.intersection(one.tags)]
        places = self._places(wanted, found, what, externals) if wanted else {}
        return [_hit(self._sources, one, places.get(_name(one), one)) for one in wanted]

    def _places(
        self, wanted: Sequence[Any], found: Sequence[Any], what: Mapping[str, Any], externals: Mapping[str, str]
    ) -> Mapping[_Name, Any]:
        """Rule to a match with its places, which whoever is clean does not pay for; without those that have none."""
        names = frozenset(map(_name, found))
        try:
            with self._finding_places:
                if self._fast or self._are_many(found, what, names):
                    again = self._asked(self._of_found(firsts, names), what, {}, fast=True)
                else:
                    rules = self._of_found(_whole, frozenset((space, "") for space, _ in map(_name, wanted)))
                    again = self._asked(rules, what, externals, fast=False)
        except (TooLong, NotScanned, yara.Error):
            return {}
        return {_name(one): one for one in again}

    def _are_many(self, found: Sequence[Any], what: Mapping[str, Any], names: frozenset[_Name]) -> bool:
        """Have the strings of these rules so many places that they would take too much memory? yara.Error."""
        strings = sum(len(one.strings) for one in found)
        if "data" in what and strings * len(what["data"]) <= MAX_PLACES:  # one at each byte, at most
            return False
        return bool(self._asked(self._of_found(probe, names), what, {}, fast=False))

    def _of_found(self, make: Callable[[str, Collection[str]], str], names: frozenset[_Name]) -> yara.Rules | None:
        """What is made of the text of these rules, for each of their files; None for nothing."""
        if (make, names) not in self._made:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            of = {space: {rule for one, rule in names if one == space} for space, _ in names}
            texts = {space: make(self._sources[int(space)].text, rules) for space, rules in of.items()}
            some = {space: text for space, text in texts.items() if text}
            self._made[make, names] = _engine_of(some) if some else None
        return self._made[make, names]

    def _asked(
        self, rules: yara.Rules | None, what: Mapping[str, Any], externals: Mapping[str, str], *, fast: bool
    ) -> Sequence[Any]:
        if rules is None:
            return []
        flooding = 0

        def on_warning(kind: int, _about: object) -> int:
            nonlocal flooding
            flooding += kind == yara.CALLBACK_TOO_MANY_MATCHES
            return int(yara.CALLBACK_CONTINUE if flooding < MOST_FLOODING else yara.CALLBACK_ABORT)

        try:
            found: Sequence[Any] = rules.match(
                **what, externals=dict(externals), fast=fast, timeout=self._timeout, warnings_callback=on_warning
            )
        except yara.TimeoutError as error:
            raise TooLong from error
        except (yara.Error, MemoryError) as error:
            if flooding >= MOST_FLOODING or isinstance(error, MemoryError):
                raise _Flood("strings of the rules are there too often for the memory that it may take") from error
            raise NotScanned(str(error)[:500] or type(error).__name__) from error
        return found


def _asks(source: Source) -> frozenset[str]:
    if source.asks is None:
        source.asks = frozenset(one for one in EXTERNALS if one in source.text)
    return source.asks


def engine() -> str:
    """Its name and version."""
    return f"YARA {yara.YARA_VERSION}"


# --- compiling -------------------------------------------------------------------------------------------------------


def _compiled(sources: Sequence[Source]) -> yara.Rules | None:
    """All of them in one; if that fails, those that can be repaired."""
    try:
        return _compile({str(n): one.text for n, one in enumerate(sources)}, sources)
    except yara.Error:
        pass
    until = time.monotonic() + REPAIR_SECONDS
    _repair_all(sources, until)
    left = {str(n): one.text for n, one in enumerate(sources) if one.count}
    try:
        return _compile(left, sources) if left else None
    except yara.Error as error:
        for one in sources:
            one.problems.append(Problem(text=f"The rules do not compile together: {error}"[:500]))
            one.count = 0
        return None


def _compile(texts: Mapping[str, str], sources: Sequence[Source]) -> yara.Rules:
    quiet = {n: hidden(text) for n, text in texts.items()}
    try:
        compiled = _engine_of(quiet)
    except yara.Error:
        if quiet == texts:
            raise
        _engine_of(texts)  # is it the rules themselves? Otherwise those of which we made something odd stay as they are
        compiled = _engine_of({n: quiet[n] if _is_sound(quiet[n]) else text for n, text in texts.items()})
    _take_counts(sources[n] for n in map(int, texts))
    return compiled


def _take_counts(sources: Iterable[Source]) -> None:
    for one in sources:
        if one.count is None:
            one.count = _count(one.text)


def _engine_of(texts: Mapping[str, str]) -> yara.Rules:
    return yara.compile(sources=dict(texts), includes=False, externals=dict.fromkeys(EXTERNALS, ""))


def _is_sound(text: str) -> bool:
    try:
        _engine_of({"0": text})
    except yara.Error:
        return False
    return True


def _narrow(rules: yara.Rules, sources: Sequence[Source], less: Sequence[str]) -> yara.Rules | None:
    """Of these rules those that are in the texts too; None for none."""
    texts = {str(n): (one.text, less[n]) for n, one in enumerate(sources) if one.count}
    if all(len(whole) == len(part) for whole, part in texts.values()):
        return rules
    left = {n: part for n, (_, part) in texts.items() if part}
    try:
        return _compile(left, sources) if left else None
    except yara.Error:
        return _compile({n: _whole_if_needed(*both) for n, both in texts.items() if both[1]}, sources)


def _whole_if_needed(whole: str, less: str) -> str:
    """A rule that is left asks for one that is not: then all of them stay."""
    return less if _is_sound(less) else whole


def _count(text: str) -> int:
    return sum(one.word == "rule" for one in statements(plain(text)))


def _repair_all(sources: Sequence[Source], until: float) -> None:
    """Find the bad ones by halves: of thousands of files a few are bad as a rule, and to compile each takes long."""
    if len(sources) == 1:
        _repair(sources[0], until)
        return
    try:
        _engine_of({str(n): one.text for n, one in enumerate(sources)})
    except (yara.Error, UnicodeError):
        half = len(sources) // 2
        _repair_all(sources[:half], until)
        _repair_all(sources[half:], until)
    else:
        _take_counts(sources)


def _repair(source: Source, until: float) -> None:
    """Take out what does not compile, one by one."""
    while True:
        try:
            yara.compile(source=source.text, includes=False, externals=dict.fromkeys(EXTERNALS, ""))
        except (yara.Error, UnicodeError) as error:
            if not _taken_out(source, str(error), until):
                source.text, source.count = "", 0
                return
        else:
            source.count = _count(source.text)
            return


def _taken_out(source: Source, error: str, until: float) -> bool:
    """Name the problem, and take its statement out; False if all of the file must go."""
    found = _LINE.search(error)
    line = int(found[1]) if found else 0
    said = (error[found.end() :] if found else error).lstrip(": ")[:500]
    if len(source.text) > MAX_REPAIRED:
        source.problems.append(Problem(line=line, text=said))
        source.problems.append(Problem(text="The whole file is left out: it is too large to take single rules out."))
        return False
    here = at_line(statements(plain(source.text)), line)
    source.problems.append(Problem(line=line, rule="" if here is None else here.name, text=_explained(said, here)))
    if here is None:
        source.problems.append(Problem(text="The whole file is left out: the error is in no rule."))
    elif time.monotonic() > until or len(source.problems) >= MAX_PROBLEMS - 1:
        source.problems.append(Problem(text="The rest of the file is left out: it has too many errors."))
    else:
        source.text = without(source.text, here)
        return True
    return False


def _explained(said: str, here: Statement | None) -> str:
    if here is not None and here.word == "include":
        return "includes are not followed: put the rules into the scan as a file of their own"
    return said


# --- telling ---------------------------------------------------------------------------------------------------------


def _name(match: Any) -> _Name:
    return str(match.namespace), str(match.rule)


def _whole(text: str, _rules: Collection[str]) -> str:
    return text


def _hit(sources: Sequence[Source], match: Any, places: Any) -> Hit:
    return Hit(
        rule=str(match.rule),
        source=sources[int(match.namespace)].name,
        tags=tuple(str(tag)[:200] for tag in match.tags[:50]),
        meta={key: str(value)[:1000] for key, value in list(match.meta.items())[:200]},
        strings=tuple(_strings(places)),
    )


def _strings(match: Any) -> Iterator[tuple[str, str]]:
    left = MAX_STRINGS
    for string in match.strings:
        instances = string.instances
        for one in instances[: max(1, min(left, MAX_STRINGS // max(1, len(match.strings))))]:
            if left <= 0:
                return
            left -= 1
            yield f"{string.identifier} at {one.offset:#x}, {one.matched_length} bytes", _shown(one.matched_data)


def _shown(data: bytes) -> str:
    """Printable ASCII as it is, the rest as numbers."""
    some = data[:MAX_SHOWN]
    text = "".join(chr(one) if 0x20 <= one < 0x7F else f"\\x{one:02x}" for one in some)  # noqa: PLR2004 - ASCII
    return text + ("..." if len(data) > MAX_SHOWN else "")
