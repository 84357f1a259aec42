"""Scopes that take items of several documents: what is kept of each until all were seen, and then combined.

Of the items of one document only those are kept that differ in what counts: which terms of the scope they fit, and
what is known of them that negated terms ask. An indicator of a file and a process so costs a few entries, not all files
times all processes.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from stanch.core.ioc.forest import Forest, Touched
from stanch.core.ioc.indexing import Column, Whose
from stanch.core.ioc.items import Item
from stanch.core.ioc.shapes import YES, Untouched

MAX_VECTORS = 256
"""Different kinds of items of one document that one scope keeps."""
MAX_EXAMPLES = 16
"""Items of one kind that are told."""
MAX_TRIES = 5_000
"""Combinations that are tried for one scope."""
MAX_COMPARED = 5_000_000
"""Terms of items that are compared for one scope, to find out which of too many can be forgotten."""


class Vector(NamedTuple):
    """What counts of an item for one scope."""

    fits: frozenset[int]
    """Terms that its values fit."""
    known: frozenset[int]
    """Columns of negated terms that are known of it."""


@dataclass(frozen=True, slots=True)
class Example:
    """An item, without the values that do not matter."""

    item: Item
    got: Mapping[int, str]
    """Term to the value that fits, for people."""


GoOn = Callable[[], bool]
"""Asked again and again while items are combined: may it go on?"""


def always() -> bool:
    """Nobody wants it to end."""
    return True


_NOBODY = Vector(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Combination:
    """Items that fulfil a scope together."""

    touched: Touched
    untouched: Untouched
    examples: Mapping[Whose, Sequence[Example]]
    """Items that do it alike; only where one item is meant."""


@dataclass(slots=True)
class Scope:
    """One scope over several documents, and what was seen for it."""

    forest: Forest
    columns: Sequence[Column]
    root: int
    some: tuple[Whose, ...] = ()
    """Where one item must be as the positive (and negated) terms say."""
    every: tuple[Whose, ...] = ()
    """Where only negated terms speak: no item of the document may have what they name."""
    hidden: frozenset[int] = frozenset()
    """Columns of `every`: a single item says nothing of them."""
    limited: bool = False
    """More was seen than could be kept or tried: it may miss a match."""
    _seen: dict[Whose, dict[Vector, list[Example]]] = field(default_factory=dict)
    _compared: int = 0

    @property
    def about(self) -> Collection[Whose]:
        """All items that it is about."""
        return self._seen.keys()

    def __post_init__(self) -> None:
        shape = self.forest.shapes[self.forest.shape[self.root]]
        positive = {self.columns[column].whose for column in shape.positives}
        everything = {self.columns[column].whose for column in shape.columns}
        self.some = tuple(sorted(positive))
        self.every = tuple(sorted(everything - positive))
        self.hidden = frozenset(column for column in shape.columns if self.columns[column].whose in self.every)
        self._seen = {whose: {} for whose in everything}

    def counts_untouched(self, whose: Whose) -> bool:
        """Can an item matter that fits none of its terms?"""
        if whose in self.every:
            return True
        shape = self.forest.shape[self.root]
        mine = frozenset(number for number, column in enumerate(self.columns) if column.whose == whose)
        rest = Untouched(self.forest.shapes, mine, lambda column: None if column in mine else "")
        return bool(self._negations(whose)) and rest[shape].proven.value > 0

    def _negations(self, whose: Whose) -> frozenset[int]:
        shape = self.forest.shapes[self.forest.shape[self.root]]
        return frozenset(number for number in shape.negations if self.columns[number].whose == whose)

    def note(self, whose: Whose, fits: frozenset[int], known: frozenset[int], example: Callable[[], Example]) -> None:
        """Keep what counts of an item."""
        vector = Vector(fits, known & self._negations(whose))
        seen = self._seen[whose]
        examples = seen.get(vector)
        if examples is None:
            examples = self._room(whose, vector)
        if examples is not None and len(examples) < MAX_EXAMPLES:
            examples.append(example())

    def _room(self, whose: Whose, vector: Vector) -> list[Example] | None:
        """A place for a vector. When there are many, only those count that no other makes needless."""
        seen = self._seen[whose]
        if len(seen) >= MAX_VECTORS:
            self._compared += (len(vector.fits) + 1) * len(seen)
            if self._compared > MAX_COMPARED:
                self.limited = True
                return None
            if any(self._replaces(whose, one, vector) for one in seen):
                return None
            needless = next((one for one in seen if self._replaces(whose, vector, one)), None)
            if needless is None:
                self.limited = True
                return None
            del seen[needless]
        return seen.setdefault(vector, [])

    def _replaces(self, whose: Whose, one: Vector, other: Vector) -> bool:
        """Does whatever the other fulfils (or, if none may have it, spoils) hold with the one as well?"""
        if whose in self.every:
            one, other = other, one
        positive = self.forest.is_positive
        more = {leaf for leaf in one.fits if positive(leaf)} >= {leaf for leaf in other.fits if positive(leaf)}
        fewer = {leaf for leaf in one.fits if not positive(leaf)} <= {leaf for leaf in other.fits if not positive(leaf)}
        return more and fewer and one.known >= other.known

    @property
    def waits(self) -> bool:
        """Was anything seen that it could take?"""
        return any(self._seen[whose] for whose in self.some)

    def combinations(self, go_on: GoOn = always) -> Iterator[Combination]:
        """Every choice of items that fulfils it, those that take the most items first; until `go_on` denies it."""
        if self.limited and any(len(self._seen[whose]) >= MAX_VECTORS for whose in self.every):
            return
        trying = _Trying(self, [list(self._seen[whose]) or [self._clean(whose)] for whose in self.every], go_on)
        best = [_at_best(self._seen[whose], self.forest) for whose in self.some]
        waiting: list[tuple[Vector, ...]] = [()] if trying.holds((*best, *trying.best)) else []
        while waiting:
            chosen = waiting.pop()
            if len(chosen) == len(self.some):
                yield from self._combined(chosen, trying)
            else:
                left = best[len(chosen) + 1 :]
                choices = ((*chosen, one) for one in (*self._seen[self.some[len(chosen)]], _NOBODY))
                hopeful = [some for some in choices if trying.holds((*some, *left, *trying.best))]
                waiting += reversed(hopeful)
            if trying.is_over:
                break
        self.limited = self.limited or trying.is_over

    def _combined(self, chosen: tuple[Vector, ...], trying: "_Trying") -> Iterator[Combination]:
        taken = {whose: one for whose, one in zip(self.some, chosen, strict=True) if one is not _NOBODY}
        held = trying.held(tuple(taken.values())) if taken else None
        if held is not None:
            yield Combination(*held, {whose: self._seen[whose][one] for whose, one in taken.items()})

    def _clean(self, whose: Whose) -> Vector:
        """No item at all: none has what is named."""
        return Vector(frozenset(), self._negations(whose))


class _Trying:
    """Tries choices of items, and counts how often: what is not decided after so many is told as not known.

    Negation stands at the terms only. So more positive terms that fit, fewer negated ones, and more that is known never
    make a tree less true: one look at the best that items can do together shows which choices are hopeless, and one
    look at their worst spares to try all items of which none may have something.
    """

    def __init__(self, scope: Scope, others: Sequence[Sequence[Vector]], go_on: GoOn) -> None:
        self._scope = scope
        self._go_on = go_on
        self._others = others
        """Of each document of which no item may have something: what its items are like."""
        self.best = [_at_best(some, scope.forest) for some in others]
        self._worst = [_at_worst(some) for some in others]
        self._spent = 0
        self.is_over = False
        """It was tried too often, or somebody wants it to end: what it says no to may hold."""

    def holds(self, vectors: Sequence[Vector]) -> bool:
        """Do they fulfil it together?"""
        return self._tried(vectors) is not None

    def held(self, taken: Sequence[Vector]) -> tuple[Touched, Untouched] | None:
        """What makes it hold, whichever item of the documents of which none may have something is looked at."""
        first = self._tried((*taken, *(some[0] for some in self._others)))
        if first is None or self.holds((*taken, *self._worst)):
            return first
        return first if self._none_spoils(taken) and self._all_hold(taken) else None

    def _none_spoils(self, taken: Sequence[Vector]) -> bool:
        """Is there none with which it cannot hold, whatever the others are?"""
        for place, some in enumerate(self._others):
            rest = (*self.best[:place], *self.best[place + 1 :])
            if not all(self.holds((*taken, one, *rest)) for one in some):
                return False
        return True

    def _all_hold(self, taken: Sequence[Vector]) -> bool:
        return all(self.holds((*taken, *rest)) for rest in product(*self._others))

    def _tried(self, vectors: Sequence[Vector]) -> tuple[Touched, Untouched] | None:
        self._spent += 1
        self.is_over = self.is_over or self._spent > MAX_TRIES or not self._go_on()
        if self.is_over:
            return None
        scope = self._scope
        touched = scope.forest.touched(frozenset[int]().union(*(one.fits for one in vectors)))
        untouched = Untouched(scope.forest.shapes, frozenset[int]().union(*(one.known for one in vectors)))
        holds = scope.root in touched.roots and scope.forest.verdict(scope.root, touched, untouched) == YES
        return (touched, untouched) if holds else None


def _at_best(some: Iterable[Vector], forest: Forest) -> Vector:
    """What no item does better than."""
    fits, known = _NOBODY
    for one in some:
        fits, known = fits | one.fits, known | one.known
    return Vector(frozenset(leaf for leaf in fits if forest.is_positive(leaf)), known)


def _at_worst(some: Sequence[Vector]) -> Vector:
    """What no item does worse than, where all terms are negated."""
    fits = frozenset[int]().union(*(one.fits for one in some))
    return Vector(fits, some[0].known.intersection(*(one.known for one in some)))
