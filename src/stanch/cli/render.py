"""From typed values to blocks of text: fields, tables and notes, chosen by the type of each field alone.

Pure: nothing is printed here. Every text has passed through `plain`, so that no endpoint speaks to the terminal.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from math import log
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from stanch.cli.plain import plain
from stanch.core.files import FileInfo, FileType
from stanch.core.model import Model
from stanch.core.processes import OpenSocket
from stanch.core.scanning import Line, Object, Problem, Unknown
from stanch.core.types import EvidenceRef, Mode, Size, describe, show_duration, show_instant, show_mode
from stanch.derive.commands import annotation_of

INDENT = "  "
LONGEST_SUMMARY = 100
MOST_IN_ROW = 5
"""Findings' reasons and places, and the like, that one cell shows."""
WIDE = 9
"""Columns of a table that has none for what it does not tell."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names and values, one line each."""

    rows: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column heads."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    numeric: frozenset[int] = frozenset()
    """Columns to be aligned to the right."""
    tree: bool = False
    """Are rows indented by their depth? Then each must stay on one line."""


@dataclass(frozen=True, slots=True)
class Note:
    """A line for people; `hint` tells what to do next."""

    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Lines that a program printed, as it printed them."""

    lines: tuple[str, ...]
    title: str


Block = Fields | Table | Note | Listing


def blocks(value: Model, *, title: str = "") -> Iterator[Block]:
    """A value as blocks: its plain fields first, then what has rows of its own."""
    rows = tuple(_plain_rows(value))
    if rows:
        yield Fields(rows, title)
    yield from _listings(value)
    for name, one in _fields(value):
        if isinstance(one, EvidenceRef):
            yield Note(f"Fetch it with: stanch evidence get {plain(one.id)}")
        elif _is_table(one):
            yield _table(_words(name), one)
            yield from _how_to_fetch(one)


def _listings(value: Model, above: str = "") -> Iterator[Listing]:
    """What programs printed, however deep; of what is empty nothing."""
    for name, one in _fields(value):
        if isinstance(one, Model):
            yield from _listings(one, f"{_words(name)} ")
        elif _is_printed(value, name) and one:
            lines = one.expandtabs().removesuffix("\n").replace("\r\n", "\n").split("\n")
            yield Listing(tuple(map(plain, lines)), above.strip() or _words(name))


def _is_printed(value: BaseModel, name: str) -> bool:
    about = describe(annotation_of(type(value).model_fields[name]))
    return about is not None and about.name == "printed"


def _plain_rows(value: Model, above: str = "") -> Iterator[tuple[str, str]]:
    for name, one in _fields(value):
        label = f"{above}{_words(name)}"
        if _is_printed(value, name):
            continue
        if isinstance(one, EvidenceRef):
            yield label, show(one)
        elif isinstance(one, Model):
            yield from _plain_rows(one, f"{label} ")
        elif not _is_table(one):
            yield label, show(one)


def _fields(value: BaseModel) -> Iterator[tuple[str, Any]]:
    """Those that people see: what has `repr=False` is for programs, or nobody's business."""
    return ((name, getattr(value, name)) for name, info in type(value).model_fields.items() if info.repr)


def _is_table(value: object) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(isinstance(one, Model) for one in value)


def _how_to_fetch(values: Sequence[Model]) -> Iterator[Note]:
    """A note below a table of evidence."""
    inner = (one for value in values for one in (value, *(field for _, field in _fields(value))))
    first = list(islice((one for one in inner if isinstance(one, EvidenceRef)), 2))
    if len(first) == 1:
        yield Note(f"Fetch it with: stanch evidence get {plain(first[0].id)}")
    elif first:
        yield Note("Fetch each with: stanch evidence get EVIDENCE")


def _table(title: str, values: Sequence[Model]) -> Table:
    """A table of models of one type; a field `depth` becomes the indentation of the column that names the row.

    What is null in every row has no column; in a wide table neither has what is empty, zero or off, unless it must be
    told. A narrow one says no, too: that a process was *not* ended is worth its few letters.
    """
    declared = type(values[0]).model_fields
    wide = len(declared) >= WIDE
    some = {name for name, info in declared.items() if _is_told(name, info, values, wide=wide)} - {"depth"}
    some = some or set(declared)
    names = [name for name in declared if name != "depth" and name in some]
    tree = _tree_column(values[0], names) if "depth" in declared else None
    rows = tuple(tuple(_cell(one, name, tree) for name in names) for one in values)
    numeric = frozenset(n for n, name in enumerate(names) if all(_is_number(getattr(one, name)) for one in values))
    return Table(tuple(map(_words, names)), rows, title, numeric, tree=tree is not None)


def _is_told(name: str, info: FieldInfo, values: Sequence[Model], *, wide: bool) -> bool:
    silent = [None] if not wide or info.is_required() or info.default else [None, info.default]
    return any(getattr(one, name) not in silent for one in values)


def _tree_column(sample: Model, names: Sequence[str]) -> str | None:
    texts = [name for name in names if isinstance(getattr(sample, name), str)]
    return "name" if "name" in texts else next(iter(texts), None)


def _cell(value: Model, name: str, tree: str | None) -> str:
    one = getattr(value, name)
    text = plain(one.id) if isinstance(one, EvidenceRef) else show(one)
    return INDENT * getattr(value, "depth", 0) + text if name == tree else text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def show(value: object) -> str:
    """One value on one line, by its type."""
    return next((form(value) for kind, form in _FORMS if isinstance(value, kind)), None) or plain(value)


def _show_evidence(value: EvidenceRef) -> str:
    return f"{plain(value.name)}, {human_size(value.size)}, SHA-256 {value.sha256}"


def _show_file(value: FileInfo) -> str:
    size, mode, modified = human_size(value.size), show_mode(value.mode), show_instant(value.modified)
    return plain(f"{size}, {mode} {value.user}:{value.group}, {modified}")


def _show_socket(value: OpenSocket) -> str:
    ends = value.local if value.state in {"LISTEN", "UNCONN"} else f"{value.local} > {value.remote}"
    return plain(f"{value.protocol} {ends} {value.state}")


def _show_object(value: Object) -> str:
    about = [f"pid {value.pid}" if value.pid else "", human_size(value.size) if value.size else "", value.user]
    known = ", ".join(filter(None, about))
    return plain(value.name + (f" ({known})" if known else "") + (f" SHA-256 {value.sha256}" if value.sha256 else ""))


def _show_line(value: Line) -> str:
    return plain(value.text + (f": {value.got}" if value.got else ""))


def _show_problem(value: Problem) -> str:
    where = ", ".join(filter(None, [f"line {value.line}" if value.line else "", value.rule]))
    return plain(f"{where}: {value.text}" if where else value.text)


def _show_unknown(value: Unknown) -> str:
    return plain(f"{value.term} ({value.why})")


def _show_model(value: BaseModel) -> str:
    return " ".join(f"{name}={show(one)}" for name, one in _fields(value))


def _show_mapping(value: Mapping[str, Any]) -> str:
    return plain(json.dumps(dict(value), default=str, ensure_ascii=False))


def _show_several(value: Iterable[object]) -> str:
    """On one line; of long rows that stand in a row of their own the first, and how many there are."""
    rows = list(value)
    if not rows or not isinstance(rows[0], Line | Object | Problem | Unknown):
        return ", ".join(map(show, rows)) or "none"
    more = f" ... and {len(rows) - MOST_IN_ROW} more (--json has all)" if len(rows) > MOST_IN_ROW else ""
    return "; ".join(map(show, rows[:MOST_IN_ROW])) + more


_FORMS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (type(None), lambda _: "-"),
    (bool, lambda value: "yes" if value else "no"),
    (Mode, show_mode),
    (Size, lambda value: human_size(value)),  # noqa: PLW0108 - it is defined below
    (timedelta, show_duration),
    (datetime, show_instant),
    (SecretStr, lambda _: "********"),
    (EvidenceRef, _show_evidence),
    (FileInfo, _show_file),
    (FileType, lambda value: plain(value.name)),
    (OpenSocket, _show_socket),
    (Object, _show_object),
    (Line, _show_line),
    (Problem, _show_problem),
    (Unknown, _show_unknown),
    (BaseModel, _show_model),
    (Mapping, _show_mapping),
    ((list, tuple, set, frozenset), _show_several),
)
"""How a value of a type reads; the first that fits. Anything else is its own text."""


def summary(value: Model) -> str:
    """A value on one short line: its plain fields, and how many rows the others have."""
    parts = [f"{_words(name)} {_brief(one)}" for name, one in _fields(value)]
    return plain(", ".join(parts), longest=LONGEST_SUMMARY)


def _brief(value: object) -> str:
    if isinstance(value, EvidenceRef):
        return f"{value.id} ({human_size(value.size)})"
    return f"({len(value)})" if isinstance(value, tuple | list) and value else show(value)


def human_size(size: float) -> str:
    """Bytes as people read them."""
    step = 1024
    if size < step:
        return f"{size:.0f} bytes"
    power = min(int(log(size, step)), len(_UNITS))
    return f"{size / step**power:.1f} {_UNITS[power - 1]}"


_UNITS = ("KiB", "MiB", "GiB", "TiB")


def words(counts: Mapping[Any, int]) -> str:
    """How many of what: `3 done, 1 failed`."""
    return ", ".join(f"{count} {plain(name)}" for name, count in counts.items() if count) or "none"


def _words(name: str) -> str:
    return name.replace("_", " ")


def table(columns: Iterable[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A table of values of any type."""
    return Table(tuple(columns), tuple(tuple(map(show, row)) for row in rows), title)


def fields(title: str = "", /, **values: object) -> Fields:
    """Names and values of any type; underscores become spaces."""
    return Fields(tuple((_words(name), show(value)) for name, value in values.items()), title)
