"""How a term compares: its content, read as the kind of the values asks for, or why it does not fit.

The kind that a term has on Linux decides, not the type that its indicator gives it: `int` with `is` on a text compares
texts. Only where the text is asked for a number or a date (greater, less, an interval), the type says which.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from stanch.core.ioc.expression import Condition, Term
from stanch.core.ioc.items import Kind, Value
from stanch.core.ioc.patterns import One, translated
from stanch.core.ioc.reading import Address, Network, Span, address, boolean, hashed, network, span

MAX_VALUE = 1 << 20
"""Characters of one value; a longer one is not known."""
MAX_CONTENT = 8192
"""Characters of the content of a term."""

Key = str | int | float | bool | Address
"""A value as it is compared."""


class How(IntEnum):
    """How the key of a term is compared with a value."""

    EQUAL = 0
    EQUAL_FOLDED = 1
    """Without upper and lower case."""
    PATTERN = 2
    """A regular expression of RE2."""
    PATTERN_FOLDED = 3
    """Likewise, on the value in lower case (casefold)."""
    WITHIN = 4
    ABOVE = 5
    BELOW = 6
    NETWORK = 7


@dataclass(frozen=True, slots=True)
class Asked:
    """What a term asks of a value."""

    kind: Kind
    """As what the value is compared."""
    how: How
    key: Key | Span | Network
    """A key, a pattern of RE2, numbers from one to another, or a network."""


_NUMBERS = frozenset({Kind.INT, Kind.FLOAT, Kind.DATE, Kind.DURATION})
_TYPES = {
    "int": Kind.INT,
    "integer": Kind.INT,
    "long": Kind.INT,
    "float": Kind.FLOAT,
    "double": Kind.FLOAT,
    "date": Kind.DATE,
    "datetime": Kind.DATE,
    "duration": Kind.DURATION,
}
_ORDER = {Condition.IS: How.WITHIN, Condition.GREATER_THAN: How.ABOVE, Condition.LESS_THAN: How.BELOW}
_INTERVAL = re.compile(r"\S\s+TO\s+\S")
_HALF = re.compile("[\ud800-\udfff]")
_TEXTS = frozenset({Condition.CONTAINS, Condition.MATCHES, Condition.STARTS_WITH, Condition.ENDS_WITH})


def asked(term: Term, kind: Kind) -> Asked:
    """What a term asks of values of this kind; ValueError with why if that is nothing that can be answered."""
    if len(term.content) > MAX_CONTENT:
        raise ValueError(f"a content of more than {MAX_CONTENT} characters")
    if kind is Kind.STRING:
        return _of_text_or_number(term)
    if kind in _NUMBERS:
        return _of_number(term, kind)
    if kind is Kind.IP and term.condition in _TEXTS:
        return _of_text(term)
    if term.condition is not Condition.IS:
        raise _unfit(term, kind)
    if kind is Kind.IP:
        return _of_address(term.content)
    key = boolean(term.content) if kind is Kind.BOOL else hashed(term.content, term.path)
    return Asked(kind, How.EQUAL, key)


def _unfit(term: Term, kind: Kind) -> ValueError:
    return ValueError(f"the condition {term.condition} does not fit {_WORDS[kind]}")


_WORDS = {
    Kind.STRING: "a text",
    Kind.INT: "a whole number",
    Kind.FLOAT: "a number",
    Kind.DATE: "a date",
    Kind.DURATION: "a duration",
    Kind.BOOL: "true or false",
    Kind.IP: "an address",
    Kind.HASH: "a hash",
}


def _of_text_or_number(term: Term) -> Asked:
    number = _TYPES.get(term.type.rpartition(":")[2].lower())
    ordered = term.condition in {Condition.GREATER_THAN, Condition.LESS_THAN}
    between = term.condition is Condition.IS and _INTERVAL.search(term.content)
    if number is not None and (ordered or between):
        return _of_number(term, number)
    if ordered:
        raise _unfit(term, Kind.STRING)
    return _of_text(term)


def _of_number(term: Term, kind: Kind) -> Asked:
    how = _ORDER.get(term.condition)
    if how is None:
        raise _unfit(term, kind)
    between = span(term.content, kind)
    if how is How.WITHIN and between.point:
        return Asked(kind, How.EQUAL, between.low)
    return Asked(kind, how, between)


def _of_address(content: str) -> Asked:
    asked_for = network(content)
    if asked_for.prefixlen == asked_for.max_prefixlen:
        return Asked(Kind.IP, How.EQUAL, asked_for.network_address)
    return Asked(Kind.IP, How.NETWORK, asked_for)


def _of_text(term: Term) -> Asked:
    content = whole(term.content)
    if term.condition is Condition.IS:
        if term.preserve_case:
            return Asked(Kind.STRING, How.EQUAL, content)
        return Asked(Kind.STRING, How.EQUAL_FOLDED, folded(content))
    if not content:
        raise ValueError("an empty content, which is in everything")
    if term.condition is Condition.MATCHES:
        return Asked(Kind.STRING, How.PATTERN, translated(content, preserve_case=term.preserve_case))
    if term.preserve_case:
        return Asked(Kind.STRING, How.PATTERN, _literal(term.condition, content))
    return Asked(Kind.STRING, How.PATTERN_FOLDED, _literal(term.condition, folded(content)))


def _literal(condition: Condition, text: str) -> str:
    quoted = _SPECIAL.sub(r"\\\g<0>", text).replace("\0", r"\x00")
    before = r"\A" if condition is Condition.STARTS_WITH else ""
    after = r"\z" if condition is Condition.ENDS_WITH else ""
    return f"{before}{quoted}{after}"


_SPECIAL = re.compile(r"[^\w\s\0]", re.ASCII)


def whole(text: str) -> str:
    """Text in which each half of a character (a byte of a name that is no UTF-8) is U+FFFD."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def folded(text: str) -> str:
    """Text without upper and lower case; the same object if it is so already."""
    lower = text.casefold()
    return text if lower == text else lower


def key_of(value: Value, kind: Kind) -> Key:
    """A value of an item as it is compared; ValueError if it is none of this kind, or too long, or CUT."""
    if value != value:  # noqa: PLR0124 - CUT, which is not a number, and equals nothing
        raise ValueError("the list goes on")
    if isinstance(value, str) and len(value) > MAX_VALUE:
        raise ValueError("too long")
    if kind is Kind.STRING:
        return whole(value) if isinstance(value, str) else str(value).lower()
    if kind is Kind.HASH:
        return hashed(str(value))
    if kind is Kind.IP:
        return address(str(value))
    if kind is Kind.BOOL:
        return value if isinstance(value, bool) else boolean(str(value))
    return _number(value, kind)


def _number(value: Value, kind: Kind) -> int | float:
    if isinstance(value, str):
        return span(value, kind).low
    if isinstance(value, bool) or value != value:  # noqa: PLR0124 - not a number
        raise ValueError("no number")
    return value


def single(question: Asked) -> Callable[[Key], bool]:
    """Asks one question of one value at a time: slower than an index, and what an index must agree with."""
    how, wanted = question.how, question.key
    if isinstance(wanted, Span):
        within = {How.WITHIN: wanted.holds, How.ABOVE: wanted.above, How.BELOW: wanted.below}[how]
        return lambda key: isinstance(key, int | float) and within(key)
    if isinstance(wanted, Network):
        return lambda key: isinstance(key, Address) and key in wanted
    if how in {How.PATTERN, How.PATTERN_FOLDED}:
        one = One(str(wanted))
        return lambda key: one.found(folded(str(key)) if how is How.PATTERN_FOLDED else str(key))
    return lambda key: (folded(str(key)) if how is How.EQUAL_FOLDED else key) == wanted
