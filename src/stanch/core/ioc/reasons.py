"""Why an indicator matched, for people: the branch of its tree that holds, line by line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from stanch.core.ioc.comparing import Asked, key_of, single
from stanch.core.ioc.expression import Expression, Operator, Term
from stanch.core.ioc.forest import Forest, Touched
from stanch.core.ioc.indexing import MAX_VALUES
from stanch.core.ioc.items import Kind, Value
from stanch.core.ioc.reading import EPOCH
from stanch.core.ioc.shapes import Untouched

MAX_LINES = 200
MAX_SHOWN = 200
"""Characters of a value."""
MAX_TERM = 500
"""Characters of a term."""

Told = Callable[[int, Term], tuple[str, str]]
"""A term by its node: the item for which it holds, and its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One line of why an indicator matched: a branch of its tree, from the top."""

    depth: int
    """How far it is indented."""
    text: str
    """The term or the group, in words."""
    item: str = ""
    """The name of the item for which it holds; empty for a group."""
    got: str = ""
    """The value that it has, shortened."""


def branch(forest: Forest, root: int, touched: Touched, untouched: Untouched, told: Told) -> tuple[Reason, ...]:
    """The lines of a scope that is proven, with the groups above it."""
    return tuple(islice(_lines(forest, root, touched, untouched, told), MAX_LINES))


def _lines(forest: Forest, root: int, touched: Touched, untouched: Untouched, told: Told) -> Iterator[Reason]:
    above = forest.above(root)
    if len(above) > MAX_LINES // 2:
        above = above[-MAX_LINES // 2 :]
    for depth, node in enumerate(above):
        yield Reason(depth=depth, text=_words(forest.expression[node]))
    for node, below in forest.decisive(root, touched, untouched):
        expression = forest.expression[node]
        item, got = told(node, expression) if isinstance(expression, Term) else ("", "")
        depth = min(len(above) + below, MAX_LINES)
        yield Reason(depth=depth, text=_words(expression), item=shown(item, MAX_TERM), got=got)


def _words(expression: Expression) -> str:
    if isinstance(expression, Term):
        return shown(str(expression), MAX_TERM)
    return "all of" if expression.operator is Operator.AND else "one of"


def value_that_fits(question: Asked, values: Sequence[Value]) -> str:
    """The first value that fits, for people; empty if none does."""
    fits = single(question)
    for value in islice(values, MAX_VALUES):
        try:
            if fits(key_of(value, question.kind)):
                return as_text(value, question.kind)
        except ValueError:
            continue
    return ""


def as_text(value: Value, kind: Kind) -> str:
    """A value, for people."""
    if kind is Kind.DATE and isinstance(value, int | float):
        try:
            return (EPOCH + timedelta(seconds=value)).isoformat().replace("+00:00", "Z")
        except (OverflowError, ValueError):
            return str(value)
    return shown(value if isinstance(value, str) else str(value).lower(), MAX_SHOWN)


def shown(text: str, most: int) -> str:
    """Text on one line, shortened; characters that steer a terminal or cannot be seen are spelled out."""
    head = text[:most]
    if not head.isprintable():
        head = "".join(one if one.isprintable() else _spelled(one) for one in head)
    return head if len(head) <= most and len(text) <= most else f"{head[: most - 1]}…"


def _spelled(one: str) -> str:
    r"""A character as an escape; what stands for a byte that is no UTF-8 as that byte, `\xff`."""
    code = ord(one)
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return one.encode("unicode_escape").decode()
