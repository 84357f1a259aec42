"""STIX 2.0 and 2.1 bundles of indicators with STIX patterns, read into the expression tree.

One indicator that is not understood is a problem of its own: the others count all the same. Of an object that is there
in several versions the latest counts, as the standard says; one that its author took back is left out and named.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Indicator, terms_of
from stanch.core.ioc.items import Kind
from stanch.core.ioc.reading import span
from stanch.core.ioc.stix_pattern import read_pattern

MAX_BYTES = 16 * 1_048_576
"""Bytes of one file."""
MAX_OBJECTS = 200_000
MAX_PARTS = 1_500_000
"""Texts, objects, lists and numbers of one file: each takes some 60 bytes of memory, however short it is."""
MAX_TERMS = 600_000
"""Terms of one file: a comparison becomes several where its value may be in several places."""
MAX_NOTES = 50
"""Different things that are noted about one file."""
LONGEST_LINE = 500
"""Characters of an id, a name, a date."""
LONGEST_TEXT = 20_000
"""Characters of a description."""

_EARLIER = "an earlier version of an indicator"

_Object = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle holds for us."""

    indicators: Sequence[Indicator]
    problems: Sequence[Unreadable]
    """Indicators that are not understood: the others count all the same."""
    ignored: int
    """Objects that are no indicators, or none that count."""
    notes: Sequence[str] = ()
    """What was ignored, in words: how many patterns of which kind, which indicators were taken back."""
    unused: Sequence[str] = ()
    """Of these notes, those about indicators for which nothing else is looked for."""


def read_stix(data: bytes) -> Bundle:
    """All indicators of a bundle, or of one indicator object; Unreadable if it is neither."""
    if len(data) > MAX_BYTES:
        raise Unreadable("The file is too large", got=f"{len(data)} bytes", expected=f"at most {MAX_BYTES} bytes")
    top = _loaded(data)
    reader = _Reader(_line(top.get("spec_version")) if top.get("type") == "bundle" else "")
    for one in _latest(_objects(top), reader):
        reader.take(one)
    return reader.bundle()


def _loaded(data: bytes) -> _Object:
    parts = max(data.count(b'"') // 2 + data.count(b"{") + data.count(b"["), data.count(b","))
    if parts > MAX_PARTS:
        raise Unreadable("The JSON is too large", got=f"{parts} parts", expected=f"at most {MAX_PARTS}")
    try:
        found: object = json.loads(data)
    except json.JSONDecodeError as error:
        raise Unreadable("The file is no JSON", got=error.msg, expected="a STIX bundle", line=error.lineno) from None
    except RecursionError:
        raise Unreadable("The JSON nests too deeply", got="more than can be read", expected="a STIX bundle") from None
    except ValueError as error:  # an encoding that it is not in, or a number of thousands of digits
        raise Unreadable("The file is no JSON", got=str(error), expected="a STIX bundle") from None
    if not isinstance(found, dict):
        raise Unreadable("The file is no STIX", got=type(found).__name__, expected="a bundle, or an indicator")
    return found


def _objects(top: _Object) -> Sequence[object]:
    if top.get("type") == "indicator":
        return [top]
    some = top.get("objects", [])
    if top.get("type") != "bundle" or not isinstance(some, list):
        got = f"the type {_line(top.get('type')) or 'none'}"
        raise Unreadable("The file is no STIX", got=got, expected="a bundle with objects, or an indicator")
    if len(some) > MAX_OBJECTS:
        raise Unreadable("The bundle is too large", got=f"{len(some)} objects", expected=f"at most {MAX_OBJECTS}")
    return some


def _latest(some: Sequence[object], reader: "_Reader") -> Iterator[_Object]:
    """The indicators, each in its latest version; the others are counted."""
    latest: dict[str, _Object] = {}
    for place, one in enumerate(some):
        if not isinstance(one, dict):
            reader.problem(Unreadable("An object of the bundle is none", got=type(one).__name__, expected="an object"))
        elif one.get("type") != "indicator":
            reader.leave("")
        else:
            key = _line(one.get("id")) or f"without id {place}"
            before = latest.get(key)
            if before is not None:
                reader.leave(_EARLIER)
            if before is None or _moment(one) > _moment(before):
                latest[key] = one
    yield from latest.values()


def _moment(one: _Object) -> str:
    """When it was modified, to be compared: a second comes before its own parts."""
    return _line(one.get("modified")).removesuffix("Z")


def is_over(indicator: Indicator, now: float) -> bool:
    """Is it over by now (seconds since 1970)? Its author no longer stands by it. No date is never over."""
    try:
        return bool(indicator.valid_until) and span(indicator.valid_until, Kind.DATE).low <= now
    except ValueError:
        return False


def _line(value: object, longest: int = LONGEST_LINE) -> str:
    """A text of the file, shortened; of anything else nothing. Half a character, as JSON can say it, becomes `?`."""
    return value[:longest].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


class _Reader:
    """Takes one indicator after the other."""

    def __init__(self, version: str) -> None:
        self._version = version
        """Of the bundle, where 2.0 has it."""
        self._indicators: list[Indicator] = []
        self._problems: list[Unreadable] = []
        self._left: dict[str, int] = {}
        self._terms = 0

    def leave(self, why: str) -> None:
        """This object does not count; so many different reasons are told, and the others together."""
        told = why if why in self._left or len(self._left) < MAX_NOTES else "others"
        self._left[told] = self._left.get(told, 0) + 1

    def problem(self, error: Unreadable) -> None:
        """This one is not understood."""
        self._problems.append(error)

    def bundle(self) -> Bundle:
        """All that was taken."""
        said = {why: f"{times} times {why}" if times > 1 else why for why, times in self._left.items() if why}
        return Bundle(
            indicators=tuple(self._indicators),
            problems=tuple(self._problems),
            ignored=sum(self._left.values()),
            notes=tuple(said.values()),
            unused=tuple(note for why, note in said.items() if why != _EARLIER),
        )

    def take(self, one: _Object) -> None:
        """One more indicator."""
        name, kind = _line(one.get("id")) or _line(one.get("name")), one.get("pattern_type", "stix")
        if one.get("revoked") is True:
            self.leave(f"{name}: revoked by its author")
        elif kind != "stix":
            self.leave(f"a pattern of the type {_line(kind, 40) or 'none'}")
        else:
            self._read(one, name)

    def _read(self, one: _Object, name: str) -> None:
        pattern = one.get("pattern")
        try:
            if not isinstance(pattern, str):
                raise Unreadable("It has no pattern", got=type(pattern).__name__, expected="a text")
            if self._terms > MAX_TERMS:
                raise Unreadable("It comes too late", got=f"more than {MAX_TERMS} terms", expected="fewer in one file")
            root = read_pattern(pattern.encode("utf-8", "replace").decode())
            self._terms += sum(1 for _ in terms_of(root))
        except Unreadable as error:
            message = f"{name}: {error.message}"
            self.problem(Unreadable(message, got=error.got, expected=error.expected, line=error.line))
            return
        until = _line(one.get("valid_until"))
        said = self._version or _line(one.get("spec_version")) or ("2.1" if "pattern_type" in one else "2.0")
        self._indicators.append(
            Indicator(
                id=_line(one.get("id")),
                title=_line(one.get("name")),
                description=_line(one.get("description"), LONGEST_TEXT),
                author=_line(one.get("created_by_ref")),
                created=_line(one.get("created")),
                modified=_line(one.get("modified")),
                format=f"STIX {said[:20]}",
                root=root,
                valid_until=until,
            )
        )
