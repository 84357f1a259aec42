"""Items of what files below a root folder say: made while they are asked for, from a tree that nothing leads out of."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from stanch.agent.host.autorun_describing import told
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_batches import bounded, in_batches, not_all, up_to
from stanch.core.ioc.items import Item, Value

MOST: Final = 500_000
"""Items of one document."""
HASHED: Final = 256 * 2**20
"""Bytes of a file whose hash is taken."""
_FILES: Final = 10_000
"""Files whose hashes are remembered."""

Known = Mapping[str, Sequence[Value] | None]
"""Path to what is known; None for what is not."""
Make = Callable[[Tree, frozenset[str]], Iterator[Item | None]]
"""What is below the root, and the wanted paths -> the items, one after the other; None where none comes for long."""


def collector(parts: Parts, make: Make) -> Collector:
    """A collector of what `make` makes."""

    def collect(wanted: frozenset[str]) -> AsyncIterator[Sequence[Item]]:
        return in_batches(lambda stop: _items(parts, make, wanted, stop))

    return collect


def _items(parts: Parts, make: Make, wanted: frozenset[str], stop: Event) -> Iterator[Item | None]:
    try:
        tree = Tree(parts.root, forbidden=parts.forbidden)
    except OSError:  # below a root that is not there, nothing is
        return
    try:
        for one in up_to(make(tree, wanted), MOST):
            yield one
            if stop.is_set():
                return
        if tree.unread:
            raise not_all(f"{one.path}: {one.why}" for one in tree.unread)
    finally:
        tree.close()


def item(
    document: str, name: str, values: Known, wanted: frozenset[str], *, about: Mapping[str, Value] | None = None
) -> Item:
    """An item with what is wanted and known of it, within bounds."""
    known = {path: [_plain(one) for one in found] for path, found in values.items() if found is not None}
    return Item(
        document=document,
        name=told(name)[:1000] or "-",
        values=bounded(known, wanted),
        about={what: _plain(one) for what, one in (about or {}).items() if one != ""},
    )


def _plain(value: Value) -> Value:
    r"""Odd bytes as `\xff`: not every JSON takes surrogates."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def some(text: str) -> tuple[str, ...]:
    """The text as values; an empty one is none."""
    return (text,) if text else ()


@dataclass(slots=True)
class Hashes:
    """Hashes of files as the wanted paths ask for them; each file is read once."""

    tree: Tree
    terms: Mapping[str, str]
    """Path of a term to the kind of hash, as hashlib has it."""
    wanted: Collection[str]
    _known: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, path: str) -> Known:
        """What is wanted of this file; what is no file has no hash, of what cannot be read it is not known."""
        asked = {term: kind for term, kind in self.terms.items() if term in self.wanted}
        if not asked:
            return {}
        if not path or not self.tree.is_file(path):
            return dict.fromkeys(asked, ())
        real = self.tree.real(path)
        if real not in self._known:
            if len(self._known) >= _FILES:
                self._known.clear()
            self._known[real] = self.tree.hashes(real, frozenset(asked.values()), most=HASHED)
        found = self._known[real]
        return {term: (found[kind],) if kind in found else None for term, kind in asked.items()}

    def of_all(self, paths: Sequence[str]) -> Known:
        """The hashes of several files together: not known if one is not."""
        each = [self.of(path) for path in paths or ("",)]
        return {term: _together([one[term] for one in each]) for term in each[0]}


def _together(each: Sequence[Sequence[Value] | None]) -> Sequence[Value] | None:
    known = [one for one in each if one is not None]
    return [value for one in known for value in one] if len(known) == len(each) else None
