"""Make engines of the rules and indicators that came: all of them are hostile bytes, and read only once confined."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from stanch.core.ioc.errors import Unreadable
from stanch.worker.scan import telling
from stanch.worker.scan.remembered import Known, Memory, rules_stamp
from stanch.worker.scan.rules import EXTERNALS, RuleSet, Source, engine, source_of

if TYPE_CHECKING:
    from stanch.core.ioc.expression import Indicator
    from stanch.core.ioc.judging import Judge, Match
    from stanch.worker.scan.hash_lists import HashLists

MAX_INDICATORS: Final = 200_000
"""Of all files."""
MAX_TERMS: Final = 600_000
"""Of all indicators: some 450 bytes of memory each, and what they say."""
MAX_BYTES: Final = 128 * 2**20
"""Of all files of indicators."""
MAX_PROBLEMS: Final = 200
MAX_UNKNOWN: Final = 500
MAX_NAMED: Final = 5
"""Indicators that are named as limited; the others are counted."""
_ENGINE_OF: Final[Mapping[str, str]] = {"yara": "yara", "openioc": "ioc", "stix": "ioc", "hashes": "hashes"}
_ABOUT: Final = ("path", "pid", "started", "sha256", "size", "user")


def import_for(kinds: frozenset[str]) -> None:
    """Load what reads these kinds: afterwards no library can be loaded."""
    if kinds & {"openioc", "stix"}:
        import stanch.core.ioc.judging
    if "openioc" in kinds:
        import stanch.core.ioc.openioc
    if "stix" in kinds:
        import stanch.core.ioc.stix
    if "hashes" in kinds:
        import stanch.worker.scan.hash_lists  # noqa: F401 - only to have it


class Loading:
    """Collects materials; `finish` makes engines of them, and tells what became of each."""

    def __init__(self, job: Mapping[str, Any], memory: Memory) -> None:
        self._job = job
        self._memory = memory
        self._engines = frozenset(job["engines"])
        self._told: list[dict[str, Any]] = []
        """`core.scanning.Loaded`, in order."""
        self._sources: list[tuple[int, Source]] = []
        self._indicators: list[tuple[int, Indicator]] = []
        self._ids: set[str] = set()
        self._terms = self._bytes = 0
        """Of all indicators, and of their files."""
        self.hashes: HashLists | None = None
        self.judge: Judge | None = None
        self.rules: RuleSet | None = None

    def add(self, kind: str, name: str, data: bytes) -> None:
        """One file; nothing that is in it is raised."""
        told: dict[str, Any] = {"name": telling.text(name), "kind": kind, "count": 0, "problems": []}
        self._told.append(told)
        if _ENGINE_OF[kind] not in self._engines:
            told["problems"] = [_problem("This scan does not use such material")]
        elif kind == "yara":
            self._sources.append((len(self._told) - 1, source_of(name, data)))
        elif kind == "hashes":
            self._add_hashes(told, name, data)
        else:
            self._add_indicators(told, kind, data)

    def _add_hashes(self, told: dict[str, Any], name: str, data: bytes) -> None:
        from stanch.worker.scan.hash_lists import HashLists

        self.hashes = self.hashes or HashLists()
        told["count"], problems = self.hashes.add(name, data)
        told["problems"] = [_problem(one.text, line=one.line) for one in problems[:MAX_PROBLEMS]]

    def _add_indicators(self, told: dict[str, Any], kind: str, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            got = f"all files of indicators up to here have {self._bytes} bytes, at most {MAX_BYTES} are read"
            told["problems"] = [_problem(f"{got}: it is left out, scan with it by itself")]
            self._bytes -= len(data)
            return
        try:
            found, problems = _read(kind, data)
        except Unreadable as error:
            told["problems"] = [_problem(str(error), line=error.line)]
            return
        told["problems"] = problems[:MAX_PROBLEMS]
        told["duplicates"] = [telling.text(one.id) for one in found if one.id in self._ids][:MAX_PROBLEMS]
        new = [one for one in found if one.id not in self._ids]
        room = self._room(new)
        if len(new) > room:
            bound = f"{MAX_INDICATORS} indicators and {MAX_TERMS} terms of all files are held"
            here = f"of the {len(new)} indicators and {sum(map(_terms, new))} terms here"
            said = _problem(f"at most {bound}: {here}, {len(new) - room} indicators are left out")
            told["problems"] = [said, *problems][:MAX_PROBLEMS]
        self._ids.update(one.id for one in new if one.id)  # those without an id are not the same
        self._indicators += [(len(self._told) - 1, one) for one in new[:room]]
        told["count"] = min(len(new), room)

    def _room(self, new: "Sequence[Indicator]") -> int:
        """How many of these can be held besides those that are."""
        room = min(len(new), MAX_INDICATORS - len(self._indicators))
        for n, one in enumerate(new[:room]):
            self._terms += (more := _terms(one))
            if self._terms > MAX_TERMS:
                self._terms -= more
                return n
        return room

    def finish(self) -> Sequence[Mapping[str, Any]]:
        """What became of each."""
        if self._sources:
            self._finish_rules()
        if self._indicators:
            self._finish_indicators()
        return self._told

    # --- rules -------------------------------------------------------------------------------------------------------

    def _finish_rules(self) -> None:
        """Rules that all counted before under this engine need not be compiled unless something is to be searched."""
        counts = [self._memory.get(rules_stamp(_named(source))) for _, source in self._sources]
        for (_, source), known in zip(self._sources, counts, strict=True):
            if known is not None and all(counts):
                _recall(source, known)
        self.rules = RuleSet(
            [source for _, source in self._sources],
            fast=bool(self._job["fast"]),
            tags=frozenset(self._job["tags"]),
            seconds=float(self._job["per_object"]),
        )
        if not all(counts):
            self.rules.ready()
        for n, source in self._sources:
            self._told[n]["count"] = source.count or 0
            self._told[n]["problems"] = [_problem(one.text, line=one.line, rule=one.rule) for one in source.problems]
            if source.count and not source.problems and not all(counts):
                self._memory.add(rules_stamp(_named(source)), _about(source))

    # --- indicators --------------------------------------------------------------------------------------------------

    def _finish_indicators(self) -> None:
        from stanch.core.ioc.judging import Judge

        self.judge = Judge(
            [one for _, one in self._indicators],
            switches=self._job["documents"],
            files=[at for at, _ in self._indicators],
        )
        for n in self.judge.without_positive[:MAX_PROBLEMS]:
            at, indicator = self._indicators[n]
            if len(self._told[at]["problems"]) < MAX_PROBLEMS:
                said = "it can never match here: each way to fulfil it takes a term that is unknown, or only denies"
                self._told[at]["problems"].append(_problem(said, rule=indicator.id))
        for at, unknown in self.judge.unknown_in.items():
            self._told[at]["unknown"] = [
                {"term": telling.text(one.name), "why": telling.text(one.why), "times": one.times}
                for one in unknown[:MAX_UNKNOWN]
            ]

    def can_find(self) -> bool:
        """Is there a rule, hash or indicator that can find something here? Else "nothing found" says nothing at all.

        Rules that are wrong cannot, nor indicators whose terms are unknown or switched off, nor hashes without files.
        """
        kinds = {one["kind"] for one in self._told if one["count"]}
        files = self._job["documents"].get("FileItem", True)
        indicators = self.judge is not None and len(self.judge.without_positive) < len(self._indicators)
        return "yara" in kinds or ("hashes" in kinds and files) or indicators

    def limited(self) -> str:
        """Which indicators may have missed a match, in words; empty for none."""
        some = self.judge.limited if self.judge is not None else ()
        if not some:
            return ""
        named = ", ".join(_called(self._indicators[source][1]) for source in some[:MAX_NAMED])
        more = f", and {len(some) - MAX_NAMED} more" if len(some) > MAX_NAMED else ""
        return f"more different items than can be combined: a match may be missed of {named}{more}"

    def findings(self, matches: "Iterable[Match]") -> Iterator[dict[str, Any]]:
        """What indicators matched, as the wire has it."""
        for one in matches:
            at, indicator = self._indicators[one.source]
            over = _is_over(indicator)
            yield telling.finding(
                engine="ioc",
                rule=one.indicator,
                title=one.title,
                material=self._told[at]["name"],
                objects=[_object(item) for item in one.items],
                why=([telling.line(f"its author stood by it until {indicator.valid_until} only")] if over else [])
                + [
                    telling.line(reason.text, depth=min(reason.depth, 200), about=reason.item, got=reason.got)
                    for reason in one.branch
                ],
                tags=("expired",) if over else (),
            )

    def versions(self) -> dict[str, str]:
        """Engine to its version."""
        used = {"yara": engine() if self.rules else "", "ioc": "yes" if self.judge else ""}
        return {name: version for name, version in {**used, "hashes": "yes" if self.hashes else ""}.items() if version}


def _read(kind: str, data: bytes) -> "tuple[Sequence[Indicator], list[dict[str, Any]]]":
    """The indicators, and what of them does not count."""
    if kind == "openioc":
        from stanch.core.ioc.openioc import read_openioc

        return [read_openioc(data)], []
    from stanch.core.ioc.stix import read_stix

    bundle = read_stix(data)
    left = [_problem(f"left out: {note}") for note in bundle.unused]
    return bundle.indicators, [*left, *(_problem(str(one), line=one.line) for one in bundle.problems[:MAX_PROBLEMS])]


def _terms(indicator: "Indicator") -> int:
    from stanch.core.ioc.expression import terms_of

    return sum(1 for _ in terms_of(indicator.root))


def _is_over(indicator: "Indicator") -> bool:
    """Did its author set an end to it, which is over? It is looked for all the same: what it means is told."""
    if not indicator.valid_until:
        return False
    from stanch.core.ioc.stix import is_over

    return is_over(indicator, time.time())  # noqa: TID251 - compared with a date of the file


def _called(indicator: "Indicator") -> str:
    return telling.text(indicator.id or indicator.title or "an indicator without an id")[:100]


def _named(source: Source) -> bytes:
    return hashlib.sha256(source.sha256 + engine().encode() + b"2").digest()


def _about(source: Source) -> Known:
    """What is remembered of a file of rules, in the places of two hashes: how many count, and what they ask about."""
    asks = sum(1 << n for n, one in enumerate(EXTERNALS) if one in (source.asks or ()))
    return Known({"md5": (source.count or 0).to_bytes(16, "big"), "sha1": asks.to_bytes(20, "big")})


def _recall(source: Source, known: Known) -> None:
    asks = int.from_bytes(known.hashes["sha1"], "big")
    source.count = int.from_bytes(known.hashes["md5"], "big")
    source.asks = frozenset(one for n, one in enumerate(EXTERNALS) if asks >> n & 1)


def _problem(words: str, *, line: int = 0, rule: str = "") -> dict[str, Any]:
    return {"line": line, "rule": telling.text(rule), "text": telling.text(words)}


def _object(item: Any) -> dict[str, Any]:
    about = {key: item.about[key] for key in _ABOUT if key in item.about}
    return {"document": item.document, "name": telling.text(item.name), **about}
