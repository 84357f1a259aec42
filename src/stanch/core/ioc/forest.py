"""All trees of all indicators, cut into scopes and laid out flat: what the judge walks upwards from a term that fits.

A *scope* is a part of a tree whose terms on one document are about one and the same item: a topmost AND with all that
is nested in it, or a term that stands in no AND. The ORs above the scopes only say that one of them is enough.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count

from stanch.core.ioc.comparing import Asked
from stanch.core.ioc.expression import Expression, Group, Indicator, Operator, Term
from stanch.core.ioc.shapes import FREE, NEVER, NO, YES, Shapes, Untouched, Verdict, joined

MAX_DEPTH = 150
"""How deep groups may nest; deeper ones are not known."""
MAX_PARTS = 200
"""Parts of a group that are told."""
NONE = -1


class Node(IntEnum):
    """What a node is."""

    OPEN = 0
    """An OR above the scopes."""
    ALL = 1
    ANY = 2
    HAS = 3
    """A term."""
    LACKS = 4
    """A negated term."""


_OPERATORS = {Node.ALL: Operator.AND, Node.ANY: Operator.OR}


@dataclass(slots=True)
class Touched:
    """The nodes of which some term below fits an item."""

    roots: list[int] = field(default_factory=list)
    """Of the scopes."""
    parts: dict[int, list[int]] = field(default_factory=dict)
    """Group to those of its parts that are touched."""


Question = Callable[[Term, int], tuple[int, Asked] | None]
"""Term, and which of several items of its document it is about, to the column that knows it and what it asks there;
None if it cannot be known."""
Keep = Callable[[int, Asked, int], None]
"""Column, question and leaf: to be found from now on."""


@dataclass(slots=True)
class _Draft:
    """A tree before it is known to be worth keeping."""

    expression: Expression
    shape: int
    question: tuple[int, Asked] | None = None
    parts: Sequence["_Draft"] = ()


class _Drawing:
    """Makes the draft of one scope. Where the parts of an AND stand apart, each has items of its own."""

    def __init__(self, shapes: Shapes, question: Question) -> None:
        self._shapes = shapes
        self._question = question
        self._slots = count()

    def draft(self, top: Expression) -> _Draft:
        """The draft of a whole scope."""
        apart = isinstance(top, Group) and top.apart
        return self._draft(top, MAX_DEPTH, None if apart else next(self._slots))

    def _draft(self, expression: Expression, depth: int, slot: int | None) -> _Draft:
        """`slot` says which item of each document is meant; None above the parts that stand apart."""
        if slot is None and not _stands_apart(expression):
            slot = next(self._slots)
        if isinstance(expression, Term):
            known = self._question(expression, slot or 0)
            shape = NEVER if known is None else self._shapes.term(known[0], negated=expression.negate)
            return _Draft(expression, shape, known)
        parts = [self._draft(part, depth - 1, slot) for part in expression.parts] if depth else []
        shape = self._shapes.group(expression.operator, [part.shape for part in parts]) if depth else NEVER
        return _Draft(expression, shape, None, parts)


def _stands_apart(expression: Expression) -> bool:
    """Do its parts have items of their own?

    Those of an OR need none if nothing below is denied: an item that is one or the other is there exactly if there is
    an item that is the one, or an item that is the other.
    """
    if isinstance(expression, Term):
        return False
    return expression.apart or (expression.operator is Operator.OR and not _asks_of_one_item(expression))


def _asks_of_one_item(expression: Expression) -> bool:
    waiting = [expression]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Group):
            if one.apart:
                return False
            waiting += one.parts
        elif one.negate:
            return False
    return True


class Forest:
    """Nodes by number; a part has a greater number than its group."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.parent = array("i")
        self.shape = array("i")
        self.source = array("i")
        """Of which indicator it is."""
        self.kind = bytearray()
        self.expression: list[Expression] = []
        self.parts: dict[int, array[int]] = {}
        """Of groups within scopes."""
        self._counts: dict[int, Mapping[int, int]] = {}
        self.together: set[frozenset[int]] = set()
        """Columns that one indicator asks."""
        self.roots_of: Counter[int] = Counter()
        """Shape to how many scopes have it."""

    def add(self, source: int, indicator: Indicator, question: Question, keep: Keep) -> bool:
        """Take in an indicator; False if it can never match."""
        before = len(self.kind)
        self._open(source, indicator.root, NONE, question, keep)
        mine = {self.shape[node] for node in range(before, len(self.kind)) if self.kind[node] != Node.OPEN}
        if mine:
            self.together.add(frozenset().union(*(self.shapes[shape].columns for shape in mine)))
        return bool(mine)

    def _open(self, source: int, top: Expression, parent: int, question: Question, keep: Keep) -> None:
        """ORs above the scopes, without recursion: they may be wide and deep."""
        waiting = [(top, parent)]
        while waiting:
            expression, above = waiting.pop()
            if isinstance(expression, Group) and (expression.operator is Operator.OR or len(expression.parts) == 1):
                node = self._new(source, expression, above, Node.OPEN, NEVER)
                waiting += ((part, node) for part in reversed(expression.parts))
            else:
                self._scope(source, expression, above, question, keep)

    def _scope(self, source: int, expression: Expression, above: int, question: Question, keep: Keep) -> None:
        draft = _Drawing(self.shapes, question).draft(expression)
        if draft.shape == NEVER or not self.shapes[draft.shape].positives:
            return
        self.roots_of[draft.shape] += 1
        self._keep(source, draft, above, keep)

    def _keep(self, source: int, draft: _Draft, above: int, keep: Keep) -> int:
        if draft.question is not None:
            negated = isinstance(draft.expression, Term) and draft.expression.negate
            node = self._new(source, draft.expression, above, Node.LACKS if negated else Node.HAS, draft.shape)
            keep(*draft.question, node)
            return node
        operator = draft.expression.operator if isinstance(draft.expression, Group) else Operator.OR
        node = self._new(
            source, draft.expression, above, Node.ALL if operator is Operator.AND else Node.ANY, draft.shape
        )
        alive = [part for part in draft.parts if part.shape != NEVER]
        self.parts[node] = array("i", [self._keep(source, part, node, keep) for part in alive])
        self._counts[node] = Counter(part.shape for part in alive)
        return node

    def _new(self, source: int, expression: Expression, above: int, kind: Node, shape: int) -> int:
        self.parent.append(above)
        self.source.append(source)
        self.shape.append(shape)
        self.kind.append(kind)
        self.expression.append(expression)
        return len(self.kind) - 1

    def roots(self) -> Iterator[int]:
        """The tops of all scopes."""
        return (node for node in range(len(self.kind)) if self.kind[node] != Node.OPEN and self.is_root(node))

    def is_root(self, node: int) -> bool:
        """Is it the top of a scope?"""
        above = self.parent[node]
        return above == NONE or self.kind[above] == Node.OPEN

    def column(self, node: int) -> int:
        """Of a term: the column that it asks."""
        return self.shapes[self.shape[node]].column

    def is_positive(self, node: int) -> bool:
        """Is it a term that is not negated?"""
        return self.kind[node] == Node.HAS

    def above(self, node: int) -> list[int]:
        """The nodes above it, from the top."""
        chain: list[int] = []
        while (node := self.parent[node]) != NONE:
            chain.append(node)
        return chain[::-1]

    def roots_of_source(self, source: int, near: int) -> Iterator[int]:
        """The scopes of an indicator; `near` is one of its nodes."""
        first = near
        while first and self.source[first - 1] == source:
            first -= 1
        for node in range(first, len(self.kind)):
            if self.source[node] != source:
                return
            if self.kind[node] != Node.OPEN and self.is_root(node):
                yield node

    def touched(self, hits: Collection[int]) -> Touched:
        """What is above terms that fit."""
        touched = Touched()
        for leaf in hits:
            node = leaf
            while not self.is_root(node):
                above = self.parent[node]
                parts = touched.parts.setdefault(above, [])
                parts.append(node)
                if len(parts) > 1:
                    break
                node = above
            else:
                touched.roots.append(node)
        return touched

    def verdict(self, node: int, touched: Touched, untouched: Untouched) -> Verdict:
        """What a touched node comes to."""
        kind = self.kind[node]
        if kind == Node.HAS:
            return YES
        if kind == Node.LACKS:
            return NO
        mine = touched.parts[node]
        verdicts = [untouched[shape] for shape in self._others(node, mine)]
        verdicts += (self.verdict(part, touched, untouched) for part in mine)
        return joined(_OPERATORS[Node(kind)], verdicts)

    def _others(self, node: int, mine: Sequence[int]) -> Iterator[int]:
        """The shapes of the parts that are not touched."""
        counts = self._counts[node]
        taken = Counter(self.shape[part] for part in mine)
        return (shape for shape, count in counts.items() if count > taken[shape])

    def leaves(self, node: int, touched: Touched) -> Iterator[int]:
        """The terms below a touched node that fit."""
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one in touched.parts:
                waiting += touched.parts[one]
            else:
                yield one

    def decisive(self, node: int, touched: Touched, untouched: Untouched) -> Iterator[tuple[int, int]]:
        """The branch of a proven scope that holds, from its top: nodes with their depth below it."""
        waiting = [(node, 0)]
        while waiting:
            one, depth = waiting.pop()
            yield one, depth
            if self.kind[one] == Node.ALL:
                waiting += ((part, depth + 1) for part in reversed(self._all_parts(one, touched)))
            elif self.kind[one] == Node.ANY:
                waiting.append((self._one_part(one, touched, untouched), depth + 1))

    def _all_parts(self, node: int, touched: Touched) -> list[int]:
        """Those that something fits first."""
        mine = set(touched.parts.get(node, ()))
        return sorted(self.parts[node], key=lambda part: part not in mine)[:MAX_PARTS]

    def _one_part(self, node: int, touched: Touched, untouched: Untouched) -> int:
        mine = sorted(touched.parts.get(node, []))
        verdicts = {part: self.verdict(part, touched, untouched) for part in mine}
        proven = [part for part in mine if verdicts[part] == YES]
        if proven:
            return proven[0]
        holding = [part for part in mine if verdicts[part].holds is YES.holds]
        others = (part for part in self.parts[node] if part not in verdicts)
        return next(iter(holding), None) or next(
            part for part in others if untouched[self.shape[part]].holds is FREE.holds
        )
