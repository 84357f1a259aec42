"""What a term is: supported on Linux, official but unknown here, or perhaps misspelt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from stanch.core.ioc.items import Supported
from stanch.core.ioc.stix_paths import NOWHERE
from stanch.core.ioc.terms import DOCUMENTS

PLATFORMS: Mapping[str, str] = {"w": "Windows", "m": "macOS", "l": "Linux"}
"""The letters of the list to what they mean."""
LONGEST = 200
"""Characters of a name that is compared with others."""
MOST_NEAR = 3

_EVENTS = "events of the past are not kept on endpoints"


class Standing(StrEnum):
    """Where a term stands."""

    SUPPORTED = "supported"
    """It can be known on Linux."""
    UNKNOWN_HERE = "unknown on Linux"
    """The official list has it; it cannot be known here."""
    UNOFFICIAL = "no official term"
    """The list has no such name: of a later version, of another system, or misspelt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the name of a term."""

    standing: Standing
    what: str
    """What it is here; or why it is not known, in words."""
    near: tuple[str, ...] = ()
    """Names that are much like it, the nearest first."""


@lru_cache(maxsize=1)
def official_terms() -> Mapping[str, frozenset[str]]:
    """Every name of the official list, Document/Path, to the platforms that it has there; read when first asked."""
    from stanch.core.ioc.official_terms import TERMS

    found = {f"{document}/{path}": frozenset(letters) - {"-"} for document, letters, path in _entries(TERMS)}
    return MappingProxyType(dict(sorted(found.items(), key=lambda one: one[0].lower())))


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    document = letters = ""
    for line in text.strip().splitlines():
        words = line.split()
        if not line.startswith(" "):
            document, letters, *words = words
        for path in words:
            yield document, letters, path


@lru_cache(maxsize=1)
def event_documents() -> frozenset[str]:
    """Kinds of events: files of 1.1 name them as documents, the list has them below its document `eventItem`."""
    return frozenset(name.split("/")[1] for name in official_terms() if name.startswith("eventItem/"))


def platforms_of(name: str) -> str:
    """The platforms of an official term, in words; empty if the list names none, or has no such term."""
    letters = official_terms().get(name, frozenset())
    return ", ".join(word for letter, word in PLATFORMS.items() if letter in letters)


def supported_of(document: str, path: str) -> Supported | None:
    """What a term is on Linux; None if it cannot be known. Upper and lower case of the path do not count."""
    return DOCUMENTS.get(document, {}).get(path) or _lower_paths().get((document, path.lower()))


@lru_cache(maxsize=1)
def _lower_paths() -> Mapping[tuple[str, str], Supported]:
    return {(name, path.lower()): one for name, paths in DOCUMENTS.items() for path, one in paths.items()}


def known_of(name: str, *, suggest: bool = True) -> Known:
    """Where a term stands, by its name Document/Path. To suggest what was meant takes about a millisecond."""
    document, _, path = name.partition("/")
    supported = supported_of(document, path)
    if supported is not None:
        return Known(standing=Standing.SUPPORTED, what=supported.what)
    if document == NOWHERE:
        return Known(standing=Standing.UNOFFICIAL, what=f"the STIX path {path} has no place on an endpoint")
    if name in official_terms():
        return Known(standing=Standing.UNKNOWN_HERE, what=_why_unknown(document, name))
    if document in event_documents():
        return Known(standing=Standing.UNKNOWN_HERE, what=_EVENTS)
    near = _near(name) if suggest else ()
    what = "no term of the official list" + (f"; did you mean {' or '.join(near)}?" if near else "")
    return Known(standing=Standing.UNOFFICIAL, what=what, near=near)


def _why_unknown(document: str, name: str) -> str:
    where = platforms_of(name)
    if document == "eventItem":
        return _EVENTS
    if document not in DOCUMENTS:
        return f"there is no {document} on Linux" + (f" ({where} only)" if where and "Linux" not in where else "")
    if where and "Linux" not in where:
        return f"{where} only"
    return "it is not looked for here"


@lru_cache(maxsize=1)
def _lower_names() -> Mapping[str, str]:
    ours = (f"{document}/{path}" for document, paths in DOCUMENTS.items() for path in paths)
    return {one.lower(): one for one in (*official_terms(), *ours)}


def _near(name: str) -> tuple[str, ...]:
    if len(name) > LONGEST:
        return ()
    lower = _lower_names()
    return tuple(lower[one] for one in get_close_matches(name.lower(), lower, MOST_NEAR, 0.85))
