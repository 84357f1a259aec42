"""The one expression tree that indicators of every format become, and its three truths.

A `Term` asks one thing of items of one kind (a file, a process, ...); a `Group` joins terms and groups. `Truth` has
three values, as Kleene's logic has: what cannot be known stays unknown until something else decides.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Union


class Truth(Enum):
    """Does it hold?"""

    NO = 0
    UNKNOWN = 1
    YES = 2

    def __invert__(self) -> "Truth":
        return Truth(2 - self.value)

    @classmethod
    def all(cls, truths: Iterable["Truth"]) -> "Truth":
        """The least of them; YES of none."""
        least = cls.YES
        for one in truths:
            if one is cls.NO:
                return one
            least = min(least, one, key=lambda truth: truth.value)
        return least

    @classmethod
    def any(cls, truths: Iterable["Truth"]) -> "Truth":
        """The greatest of them; NO of none."""
        greatest = cls.NO
        for one in truths:
            if one is cls.YES:
                return one
            greatest = max(greatest, one, key=lambda truth: truth.value)
        return greatest


class Condition(StrEnum):
    """How a value is compared."""

    IS = "is"
    CONTAINS = "contains"
    MATCHES = "matches"
    STARTS_WITH = "starts-with"
    ENDS_WITH = "ends-with"
    GREATER_THAN = "greater-than"
    LESS_THAN = "less-than"


WORDS: Mapping[Condition, tuple[str, str]] = {
    Condition.IS: ("is", "is not"),
    Condition.CONTAINS: ("contains", "does not contain"),
    Condition.MATCHES: ("matches", "does not match"),
    Condition.STARTS_WITH: ("starts with", "does not start with"),
    Condition.ENDS_WITH: ("ends with", "does not end with"),
    Condition.GREATER_THAN: ("is greater than", "is not greater than"),
    Condition.LESS_THAN: ("is less than", "is not less than"),
}
"""How people say it, and how they deny it."""


class Operator(StrEnum):
    """How the parts of a group are joined."""

    AND = "AND"
    OR = "OR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One question about an item: the value at a path of a document, compared with a content."""

    id: str
    document: str
    """Kind of item: FileItem, ProcessItem, ..."""
    path: str
    """Where in it, without the document: Md5sum, PEInfo/DetectedAnomalies/string, ..."""
    condition: Condition
    content: str
    type: str
    """As the indicator says: string, int, date, md5, IP, ..."""
    negate: bool = False
    preserve_case: bool = False

    @property
    def name(self) -> str:
        """Its full name, as term lists have it."""
        return f"{self.document}/{self.path}"

    def __str__(self) -> str:
        says, denies = WORDS[self.condition]
        return f"{self.name} {denies if self.negate else says} {self.content}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Terms and groups, joined."""

    id: str
    operator: Operator
    parts: tuple["Expression", ...]
    apart: bool = False
    """Has each part of an AND items of its own, as between the observations of a STIX pattern? The judge can do it.
    Otherwise all terms of one document below an AND are about one and the same item."""


Expression = Union[Term, Group]  # noqa: UP007 - one of them names the other before it is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One indicator, as its file says it."""

    id: str
    title: str
    description: str = ""
    author: str = ""
    created: str = ""
    modified: str = ""
    valid_until: str = ""
    """When its author no longer stands by it, as the file says; empty for never."""
    format: str
    """OpenIOC 1.0, OpenIOC 1.1, ..."""
    root: Group
    ignored: tuple[str, ...] = ()
    """What the file says that was not understood and does not change what is matched, in words."""


def terms_of(expression: Expression) -> Iterator[Term]:
    """Every term below, in order."""
    waiting = [expression]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Term):
            yield one
        else:
            waiting += reversed(one.parts)


def depth_of(expression: Expression) -> int:
    """How deep it nests: 1 for a term."""
    deepest, waiting = 0, [(expression, 1)]
    while waiting:
        one, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(one, Group):
            waiting += [(part, depth + 1) for part in one.parts]
    return deepest
