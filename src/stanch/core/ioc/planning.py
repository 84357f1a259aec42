"""What is still to be asked of an item, worked out once for each set of paths that are known of it.

For all scopes that an item does not touch, the answer depends on their shapes only; there are few. Only scopes that it
touches, of indicators that ask for something still missing too, are looked at one by one: with fifty thousand
hashes there are none, and the answer is one look into a table.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stanch.core.ioc.expression import Truth
from stanch.core.ioc.forest import Forest
from stanch.core.ioc.indexing import Column, Whose
from stanch.core.ioc.items import Item
from stanch.core.ioc.shapes import NOTHING, Untouched

MAX_PLANS = 1_000
"""Sets of known paths that are remembered for one document."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the known paths leave open."""

    untouched: Untouched
    asks: Mapping[int, frozenset[str]]
    """Shape to the paths that it asks for, untouched; those that ask for none are not there."""
    all: frozenset[str]
    look: tuple[int, ...]
    """Columns that are known and can make a difference."""


@dataclass(slots=True)
class Document:
    """One document (one of several items of it): which columns there are, and the plans."""

    whose: Whose
    forest: Forest
    columns: Sequence[Column]
    """Of all documents."""
    mine: frozenset[int] = frozenset()
    paths: frozenset[str] = frozenset()
    _plans: dict[tuple[frozenset[str], frozenset[int]], Plan] = field(default_factory=dict)
    _shares: dict[int, Mapping[int, int]] = field(default_factory=dict)

    def needs(self, item: Item) -> frozenset[str]:
        """Paths that the item lacks and that can still change what matches."""
        known = self.paths.intersection(item.values)
        if len(known) == len(self.paths):
            return NOTHING
        plan = self._plan(known, frozenset())
        if not plan.look:
            return plan.all
        hits: set[int] = set()
        dirty: set[int] = set()
        for number in plan.look:
            column = self.columns[number]
            found, clean = column.found(item.values[column.path])
            hits |= found
            if not clean:
                dirty.add(number)
        if dirty:
            plan = self._plan(known, frozenset(dirty))
        return self._with(plan, hits) if hits else plan.all

    def _with(self, plan: Plan, hits: set[int]) -> frozenset[str]:
        """What is open when some terms fit: scopes that are touched ask for other paths than their shape does."""
        forest = self.forest
        touched = forest.touched(hits)
        gone = Counter(forest.shape[root] for root in touched.roots)
        asking: list[tuple[int, frozenset[str]]] = []
        matched: dict[int, int] = {}
        for root in touched.roots:
            verdict = forest.verdict(root, touched, plan.untouched)
            if verdict.proven is Truth.YES:
                matched[forest.source[root]] = root
            elif verdict.proven is Truth.UNKNOWN:
                asking.append((forest.source[root], verdict.to_prove))
        for source, near in matched.items():
            gone.update(self._share(source, near))
            gone.subtract(forest.shape[root] for root in touched.roots if forest.source[root] == source)
        rest = (paths for shape, paths in plan.asks.items() if forest.roots_of[shape] > gone[shape])
        return NOTHING.union(*rest, *(paths for source, paths in asking if source not in matched))

    def _share(self, source: int, near: int) -> Mapping[int, int]:
        """Shape to how many scopes of an indicator have it."""
        share = self._shares.get(source)
        if share is None:
            share = Counter(self.forest.shape[root] for root in self.forest.roots_of_source(source, near))
            if len(self._shares) < MAX_PLANS:
                self._shares[source] = share
        return share

    def _plan(self, known: frozenset[str], dirty: frozenset[int]) -> Plan:
        plan = self._plans.get((known, dirty))
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[known, dirty] = self._made(known, dirty)
        return plan

    def _made(self, known: frozenset[str], dirty: frozenset[int]) -> Plan:
        clean = frozenset(one for one in self.mine if self.columns[one].path in known) - dirty
        missing = frozenset(one for one in self.mine if self.columns[one].path not in known)
        untouched = Untouched(self.forest.shapes, clean, self._still(known))
        asks = {shape: untouched[shape].to_prove for shape in self.forest.roots_of}
        look = {one for columns in self.forest.together if columns & missing for one in columns & self.mine} - missing
        return Plan(
            untouched,
            {shape: paths for shape, paths in asks.items() if paths},
            NOTHING.union(*asks.values()),
            tuple(sorted(look)),
        )

    def _still(self, known: frozenset[str]) -> "_Still":
        return _Still(self.whose, self.columns, known)


@dataclass(frozen=True, slots=True)
class _Still:
    """What is open of a column that is not known: its path, or nothing to ask this item for, or nothing at all."""

    whose: Whose
    columns: Sequence[Column]
    known: frozenset[str]

    def __call__(self, number: int) -> str | None:
        column = self.columns[number]
        if column.whose != self.whose:
            return ""
        return None if column.path in self.known else column.path
