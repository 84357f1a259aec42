"""What the scanner's worker says, taken apart: a worker has met hostile bytes, so nothing but what fits is believed.

A line is small enough to be read at once; its events are validated a few at a time, so that the agent's other work goes
on between them.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from stanch.agent.host.scanner_worker import nonsense
from stanch.core.scan_wire import MAX_BATCH
from stanch.core.scanning import Advance, Event, Finding, Loaded, Skip, Tally

MAX_NAMES: Final = 64
"""Objects that a worker looks at, at a time."""
MAX_NAME: Final = 5000
MAX_DOCUMENTS: Final = 64
MAX_PATHS: Final = 2000
"""Paths of one document that may be wanted."""

_LONG: Final = 32 * 2**10
"""Bytes of a line above which it is read in a thread."""
_SLICE: Final = 0.004
"""Seconds of validating, between which others have their turn."""
_PIECE: Final = 100
"""Events that are handed on at once: what is done with each of them takes time, too."""

_EVENTS: Final[Mapping[str, Callable[[Any], Event]]] = {
    "finding": Finding.model_validate,
    "skip": Skip.model_validate,
    "advance": Advance.model_validate,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What it needs to know."""

    documents: Mapping[str, frozenset[str]]
    files: bool


@dataclass(frozen=True, slots=True)
class LooksAt:
    """What it is about to look at."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """It is at its end."""

    tally: Tally | None
    error: str


Message = Wanted | LooksAt | Ended | Sequence[Event]


async def heard(line: bytes) -> AsyncIterator[Message]:
    """What a line says: one message, or events in pieces. ActionFailed for nonsense."""
    said = await asyncio.to_thread(_read, line) if len(line) > _LONG else _read(line)
    match said.get("type"):
        case "events":
            async for piece in _events(said.get("events")):
                yield piece
        case "loaded":
            yield [_valid(Loaded.model_validate, said.get("loaded"))]
        case "wants":
            yield _wanted(said)
        case "at":
            yield LooksAt(_names(said.get("names"), MAX_NAMES))
        case "end":
            yield _ended(said)
        case other:
            raise nonsense(f"a message of type {other!r}")


def _read(line: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise nonsense(f"no JSON: {line[:100]!r}") from None
    if not isinstance(said, dict):
        raise nonsense(f"no object: {line[:100]!r}")
    try:
        return _without_surrogates(said) if b"\\ud" in line.lower() else said
    except RecursionError:
        raise nonsense("what is nested too deep") from None


def _without_surrogates(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Odd bytes as escapes, but in names that are given back to a worker as they came."""
    return said if said.get("type") == "at" else {one: _plain(value) for one, value in said.items()}


def _plain(value: Any) -> Any:
    match value:
        case str():
            try:
                return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            except UnicodeEncodeError:
                return value.encode("utf-8", "backslashreplace").decode()
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {_plain(one): _plain(inner) for one, inner in value.items()}
    return value


async def _events(some: object) -> AsyncIterator[Sequence[Event]]:
    if not isinstance(some, list) or not 1 <= len(some) <= MAX_BATCH:
        raise nonsense(f"no batch of 1 to {MAX_BATCH} events")
    piece, since = list[Event](), time.monotonic()
    for one in some:
        piece.append(_event(one))
        if len(piece) >= _PIECE or time.monotonic() - since > _SLICE:
            yield piece
            await asyncio.sleep(0)
            piece, since = [], time.monotonic()
    if piece:
        yield piece


def _event(one: object) -> Event:
    match one:
        case [str(kind), dict(fields)] if kind in _EVENTS:
            return _valid(_EVENTS[kind], fields)
    raise nonsense(f"no event: {one!r}"[:300])


def _valid(validate: Callable[[Any], Event], fields: object) -> Event:
    try:
        return validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise nonsense(f"what does not fit: {where}: {first['msg']}"[:400]) from None
    except UnicodeError as error:
        raise nonsense(f"what does not fit: {error}"[:400]) from None


def _wanted(said: Mapping[str, Any]) -> Wanted:
    documents, files = said.get("documents"), said.get("files")
    if not isinstance(documents, dict) or len(documents) > MAX_DOCUMENTS or not isinstance(files, bool):
        raise nonsense("it wants nothing that is known")
    return Wanted({one: frozenset(_names(paths, MAX_PATHS)) for one, paths in documents.items()}, files)


def _names(some: object, most: int) -> tuple[str, ...]:
    if not isinstance(some, list) or len(some) > most:
        raise nonsense(f"no list of at most {most} names")
    if not all(isinstance(one, str) and len(one) <= MAX_NAME for one in some):
        raise nonsense("names that are none")
    return tuple(some)


def _ended(said: Mapping[str, Any]) -> Ended:
    tally, error = said.get("tally"), said.get("error", "")
    if not isinstance(error, str):
        raise nonsense("an error that is no text")
    checked = None if tally is None else _valid(Tally.model_validate, tally)
    return Ended(checked if isinstance(checked, Tally) else None, error[:1000])
