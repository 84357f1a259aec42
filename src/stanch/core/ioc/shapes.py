"""Shapes: what trees have in common that ask other values of the same paths; and what a shape comes to untouched.

Of fifty thousand terms on one path, an item fits hardly any. All those that it does not fit are the same to it: their
shape is the same (document, column, negated or not), and so is the shape of trees of them. So what a tree comes to
without a single fit is worked out once for each shape, and only trees that an item fits somewhere (*touched* ones) are
looked at one by one.

A `Verdict` has two truths. `holds`: does it hold, whatever for. `proven`: does it hold with a positive term that is
YES, which an indicator needs in order to match. UNKNOWN stands for what further values can still decide; what can never
be known of the item cannot make anything YES, and counts as NO. That is Kleene's logic as far as YES goes: negation
stands at the terms only, so a tree is YES exactly if it is so with every unknown term, negated or not, taken as NO.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from stanch.core.ioc.expression import Operator, Truth

NOTHING: Final[frozenset[str]] = frozenset()
NEVER = 0
"""The shape of what cannot be known here, or cannot hold."""


class Verdict(NamedTuple):
    """What a tree comes to."""

    holds: Truth
    proven: Truth
    to_hold: frozenset[str] = NOTHING
    """Paths that can still decide whether it holds."""
    to_prove: frozenset[str] = NOTHING
    """Paths that can still decide whether it is proven."""
    strict: bool = True
    """It cannot hold without being proven."""


NO: Final = Verdict(Truth.NO, Truth.NO)
YES: Final = Verdict(Truth.YES, Truth.YES)
FREE: Final = Verdict(Truth.YES, Truth.NO, strict=False)
"""A negation that holds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A term without its content, or a group of shapes."""

    operator: Operator | None = None
    parts: tuple[int, ...] = ()
    """Shapes, each once."""
    column: int = -1
    """Of a term: which column it asks."""
    negated: bool = False
    columns: frozenset[int] = frozenset()
    """All that are asked below."""
    negations: frozenset[int] = frozenset()
    """Those that a negated term asks."""
    positives: frozenset[int] = frozenset()
    """Those that a positive term asks."""


class Shapes:
    """Every shape once, by number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        self.all: list[Shape] = [Shape(Operator.OR)]

    def __getitem__(self, number: int) -> Shape:
        """The shape with a number."""
        return self.all[number]

    def term(self, column: int, *, negated: bool) -> int:
        """The number of the shape of a term."""
        key = (column, negated)
        if key in self._numbers:
            return self._numbers[key]
        mine = frozenset({column})
        none: frozenset[int] = frozenset()
        shape = Shape(
            column=column,
            negated=negated,
            columns=mine,
            negations=mine if negated else none,
            positives=none if negated else mine,
        )
        return self._new(key, shape)

    def group(self, operator: Operator, parts: Iterable[int]) -> int:
        """The number of the shape of a group; `parts` may name one several times."""
        distinct = tuple(sorted(set(parts)))
        if operator is Operator.AND and NEVER in distinct:
            return NEVER
        if operator is Operator.OR:
            distinct = tuple(part for part in distinct if part != NEVER)
            if not distinct:
                return NEVER
        key = (operator, distinct)
        if key in self._numbers:
            return self._numbers[key]
        shapes = [self.all[part] for part in distinct]
        return self._new(
            key,
            Shape(
                operator,
                distinct,
                columns=frozenset().union(*(shape.columns for shape in shapes)),
                negations=frozenset().union(*(shape.negations for shape in shapes)),
                positives=frozenset().union(*(shape.positives for shape in shapes)),
            ),
        )

    def _new(self, key: tuple[object, ...], shape: Shape) -> int:
        self.all.append(shape)
        self._numbers[key] = len(self.all) - 1
        return len(self.all) - 1


class Untouched:
    """What shapes come to for an item of which certain columns are known, and none of their terms fits."""

    __slots__ = ("_done", "_known", "_open", "_shapes")

    def __init__(self, shapes: Shapes, known: frozenset[int], still: Callable[[int], str | None] | None = None) -> None:
        """Known columns; and what is open of each other: a path, nothing to ask for, or None if nothing is."""
        self._shapes = shapes
        self._known = known
        self._open = still
        self._done: dict[int, Verdict] = {}

    def __getitem__(self, number: int) -> Verdict:
        """What a shape comes to."""
        done = self._done.get(number)
        if done is None:
            done = self._done[number] = self._work_out(self._shapes[number])
        return done

    def _work_out(self, shape: Shape) -> Verdict:
        if shape.operator is not None:
            return joined(shape.operator, [self[part] for part in shape.parts])
        if shape.column in self._known:
            return FREE if shape.negated else NO
        path = self._open(shape.column) if self._open else None
        if path is None:
            return NO
        paths = frozenset({path}) if path else NOTHING
        if shape.negated:
            return Verdict(Truth.UNKNOWN, Truth.NO, paths, strict=False)
        return Verdict(Truth.UNKNOWN, Truth.UNKNOWN, paths, paths)


def joined(operator: Operator, parts: Sequence[Verdict]) -> Verdict:
    """What a group comes to, from what its parts do; one of each kind is enough."""
    return _all(parts) if operator is Operator.AND else _any(parts)


def _any(parts: Sequence[Verdict]) -> Verdict:
    proven = Truth.any(part.proven for part in parts)
    if proven is Truth.YES:
        return YES
    holds = Truth.any(part.holds for part in parts)
    strict = all(part.strict for part in parts)
    return Verdict(holds, proven, _to_hold(holds, parts), _to_prove(proven, parts), strict)


def _all(parts: Sequence[Verdict]) -> Verdict:
    holds = Truth.all(part.holds for part in parts)
    if holds is Truth.NO:
        return NO
    proven = Truth.all((holds, Truth.any(part.proven for part in parts)))
    if proven is Truth.YES:
        return YES
    strict = any(part.strict for part in parts)
    to_hold = _to_hold(holds, parts)
    # If one part cannot hold without being proven, all that matters is that every part holds.
    to_prove = to_hold if strict else to_hold | _to_prove(proven, parts)
    return Verdict(holds, proven, to_hold, NOTHING if proven is Truth.NO else to_prove, strict)


def _to_hold(holds: Truth, parts: Sequence[Verdict]) -> frozenset[str]:
    if holds is not Truth.UNKNOWN:
        return NOTHING
    return NOTHING.union(*(part.to_hold for part in parts if part.holds is Truth.UNKNOWN))


def _to_prove(proven: Truth, parts: Sequence[Verdict]) -> frozenset[str]:
    if proven is not Truth.UNKNOWN:
        return NOTHING
    return NOTHING.union(*(part.to_prove for part in parts if part.proven is Truth.UNKNOWN))


__all__ = ["FREE", "NEVER", "NO", "NOTHING", "YES", "Shape", "Shapes", "Untouched", "Verdict", "joined"]
