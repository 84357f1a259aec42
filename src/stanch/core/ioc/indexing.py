"""An index over the terms that ask one path for values of one kind: which of them does a value fit?

`is` costs one look into a table, however many terms there are; patterns are searched together; networks by length of
their prefix. Only intervals, greater and less are tried one by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from stanch.core.ioc.comparing import Asked, How, Key, folded, key_of
from stanch.core.ioc.items import Kind, Value
from stanch.core.ioc.patterns import Many
from stanch.core.ioc.reading import Address, Network, Span

_K = TypeVar("_K")

MAX_VALUES = 100_000
"""Elements of a list that are looked at; what is asked of a longer one is found or not known."""

Whose = tuple[str, int]
"""The item that terms are about: its document, and which of several, from 0, where parts have items of their own."""

Leaves = int | list[int]
"""One number, or several: most values are asked for once, and a list for each would double the memory."""


class Column:
    """The terms of one document and path, compared as one kind."""

    __slots__ = ("_equal", "_folded", "_networks", "_patterns", "_spans", "_waiting", "kind", "path", "whose")

    def __init__(self, whose: Whose, path: str, kind: Kind) -> None:
        self.whose = whose
        self.path = path
        self.kind = kind
        self._equal: dict[Key, Leaves] = {}
        self._folded: dict[Key, Leaves] = {}
        self._networks: dict[tuple[int, int], dict[int, Leaves]] = {}
        self._spans: list[tuple[How, Span, int]] = []
        self._waiting: dict[How, list[tuple[str, int]]] = {}
        self._patterns: dict[How, Many] = {}

    @property
    def document(self) -> str:
        """The document."""
        return self.whose[0]

    def add(self, question: Asked, leaf: int) -> None:
        """One more term, with the number by which it is answered."""
        how, key = question.how, question.key
        if isinstance(key, Span):
            self._spans.append((how, key, leaf))
        elif isinstance(key, Network):
            table = self._networks.setdefault((key.version, key.prefixlen), {})
            _put(table, int(key.network_address), leaf)
        elif how in {How.PATTERN, How.PATTERN_FOLDED}:
            self._waiting.setdefault(how, []).append((str(key), leaf))
        else:
            _put(self._folded if how is How.EQUAL_FOLDED else self._equal, key, leaf)

    def close(self) -> None:
        """No more terms come: make the patterns ready."""
        self._patterns = {how: Many(waiting) for how, waiting in self._waiting.items()}
        self._waiting = {}

    def found(self, values: Sequence[Value]) -> tuple[set[int], bool]:
        """The terms that some value fits; and were all values such as can be compared?"""
        hits: set[int] = set()
        clean = len(values) <= MAX_VALUES
        for value in islice(values, MAX_VALUES):
            try:
                key = key_of(value, self.kind)
            except ValueError:
                clean = False
            else:
                hits.update(self._of(key))
        return hits, clean

    def _of(self, key: Key) -> Iterator[int]:
        yield from _got(self._equal, key)
        if self._folded or self._patterns:
            yield from self._of_text(str(key))
        if self._networks and not isinstance(key, str | int | float):
            yield from self._of_address(key)
        for how, span, leaf in self._spans:
            if isinstance(key, int | float) and _in(how, span, key):
                yield leaf

    def _of_text(self, text: str) -> Iterator[int]:
        lower = folded(text)
        yield from _got(self._folded, lower)
        for how, many in self._patterns.items():
            yield from many.found(lower if how is How.PATTERN_FOLDED else text)

    def _of_address(self, key: Address) -> Iterator[int]:
        number = int(key)
        for (version, length), table in self._networks.items():
            if version == key.version:
                rest = key.max_prefixlen - length
                yield from _got(table, number >> rest << rest)


def _in(how: How, span: Span, number: float) -> bool:
    if how is How.WITHIN:
        return span.holds(number)
    return span.above(number) if how is How.ABOVE else span.below(number)


def _put(table: dict[_K, Leaves], key: _K, leaf: int) -> None:
    have = table.get(key)
    if have is None:
        table[key] = leaf
    elif isinstance(have, int):
        table[key] = [have, leaf]
    else:
        have.append(leaf)


def _got(table: dict[_K, Leaves], key: _K) -> Iterable[int]:
    have = table.get(key)
    if have is None:
        return ()
    return (have,) if isinstance(have, int) else have
