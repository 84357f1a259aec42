"""Items: what there is on an endpoint, put as indicators ask for it.

An item is one file, one process, one port, ... Its values are known by the paths of terms. What is missing there is
*not known*, and makes a term unknown; what is there without a value is known not to be, and makes it false.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

Value = str | int | float | bool
"""STRING, HASH and IP are text; INT a whole number; DATE seconds since 1970 (UTC), DURATION seconds; BOOL a boolean."""

CUT: Final = float("nan")
"""The last element of a list that is not whole: no term fits it, and it leaves unknown what is not found in the list.

Without it, whoever opens more files than are looked at would make "it does not have that file open" true.
"""


class Kind(StrEnum):
    """What the values of a term are, and so how they are compared."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    DATE = "date"
    DURATION = "duration"
    BOOL = "bool"
    IP = "IP"
    HASH = "hash"
    """Hexadecimal digits; upper and lower case are the same, always."""


class Cost(IntEnum):
    """What it costs to know a value: the dearer ones are looked for only if they can still decide something."""

    FREE = 0
    """It is known as soon as the item is met: its name, its size."""
    LOOKUP = 1
    """A look at something else: the owner's name, the first bytes."""
    READ = 2
    """All of it must be read: hashes."""
    DEEP = 3
    """All of it must be read and searched: strings."""


@dataclass(frozen=True, slots=True)
class Supported:
    """A term that can be known on Linux."""

    kind: Kind
    what: str
    """What its value is here, in words for the reference."""
    cost: Cost = Cost.FREE


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing on the endpoint."""

    document: str
    """FileItem, ProcessItem, ..."""
    name: str
    """What it is called, for people: a path, a process with its number, ..."""
    values: Mapping[str, tuple[Value, ...]]
    """By path of term (without the document). Missing: not known. Empty: known to have none. See CUT."""
    about: Mapping[str, Value] = field(default_factory=dict)
    """What it takes to find it again: `path`, `pid`, `started` (ticks), `sha256`, `size`, `user`, as far as known."""


NOT_LOOKED_AT: Final = "(not looked at)"


def the_rest(document: str) -> Item:
    """Stands for what was not looked at: nothing is known of it, so that "no item has that" is not known either."""
    return Item(document=document, name=NOT_LOOKED_AT, values={})
