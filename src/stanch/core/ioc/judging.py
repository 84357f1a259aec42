"""Judge items by indicators: which of them match, and why.

What an indicator says
- **Three truths.** A term is YES or NO for an item, or UNKNOWN: the item lacks the value, the value is none of its
  kind, the term cannot be known on Linux, its content is not understood. Groups follow Kleene; NOT of UNKNOWN is
  UNKNOWN. Only YES matches: nothing matches because something could not be looked at.
- **One item for one document.** The standard says that the terms on one document in an AND mean one and the same
  object. Here a *scope* is a topmost AND with all that is nested in it, ORs too: in `AND(name is a, OR(size is 1, md5
  is m))` the file called a has the size or the hash. ORs above the ANDs open a scope for each of their parts.
- **Several documents in one scope are independent items**: some file and some process. Read as mathematics: there is
  an item of each document so that the tree holds. They are combined when all were seen (combining.py).
- **Observations** of STIX that are joined by AND stand apart (`Group.apart`): each has items of its own, which may be
  the same one, as one file may be seen twice.
- **Negation.** `not` on a document of which the scope also says something positive is about the item that the positive
  terms choose: the same file must not have the value. Where *only* negated terms speak of a document nothing chooses
  an item, and "there is some file that is not called marker" would hold on every machine and exclude nothing. So there
  it means: no item of that document has it (OpenIOC 1.0: the "not" forms exclude). It holds if there is no such item
  at all, and is UNKNOWN, so no match, as soon as for one item it cannot be told. What counts are the items that are
  looked at: in a scan of one folder, "no file" means none in there.
- **Lists.** A term holds if some element fits, negated if none does; and if one element cannot be compared, negated it
  is UNKNOWN. An empty list is known: nothing fits.
- **A positive term.** What only negations fulfil is no match. Exactly: the branch that holds must hold by a positive
  term that is YES. `AND(OR(not a, b), not c)` matches with b, and not without.

STIX differs in one point, knowingly: its `!=` alone matches any object that differs, here it needs a positive term.

How it is cheap: indexing.py finds the terms that fit, forest.py walks up from them, shapes.py answers for all the rest
at once, planning.py for what is still to be read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock

from stanch.core.ioc.combining import MAX_EXAMPLES, Combination, Example, GoOn, Scope, always
from stanch.core.ioc.comparing import Asked
from stanch.core.ioc.expression import Indicator, Term, depth_of, terms_of
from stanch.core.ioc.forest import MAX_DEPTH, Forest, Touched
from stanch.core.ioc.indexing import Column, Whose
from stanch.core.ioc.items import Item, Kind
from stanch.core.ioc.knowing import Knowledge, UnknownTerm, kind_of
from stanch.core.ioc.planning import MAX_PLANS, Document
from stanch.core.ioc.reasons import Reason, as_text, branch, value_that_fits
from stanch.core.ioc.shapes import NOTHING, YES, Shapes, Untouched

MAX_KEPT_VALUES = 20
"""Elements of one value that are kept of an item until the end."""
MAX_APART = 40
"""Observations of one pattern that have items of their own."""
MAX_COMBINED = 100
"""Matches of one scope over several documents that are told."""

__all__ = ["Judge", "Match", "Reason", "UnknownTerm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An indicator that matched."""

    indicator: str
    """Its id."""
    title: str
    source: int
    """Which of the indicators that were given, from 0: ids may be there twice."""
    items: tuple[Item, ...]
    """The items that it takes together: one of each document, or of each observation that stands apart."""
    branch: tuple[Reason, ...]


class Judge:
    """Some indicators, made ready to be asked about many items. May be asked by several threads at once.

    An indicator matches if it holds with at least one positive term; what only negations fulfil is no match.
    Terms of one document in one AND (through whatever is nested in it) are about one and the same item.
    """

    def __init__(
        self,
        indicators: Sequence[Indicator],
        *,
        switches: Mapping[str, bool] | None = None,
        files: Sequence[int] | None = None,
    ) -> None:
        """`switches`: documents that are looked at, or not, whatever is asked. `files`: the file of each indicator."""
        self._indicators = indicators
        self._switches = dict(switches or {})
        self._knowledge = Knowledge(self._switches)
        self._forest = Forest(Shapes())
        self._columns: list[Column] = []
        self._numbers: dict[tuple[Whose, str, Kind], int] = {}
        self._alike: dict[frozenset[int], Untouched] = {}
        self._lock = Lock()
        self._without: list[int] = []
        for source, indicator in enumerate(indicators):
            self._knowledge.place = files[source] if files else 0
            self._add(source, indicator)
        for column in self._columns:
            column.close()
        used = frozenset(number for shape in self._forest.roots_of for number in self._forest.shapes[shape].columns)
        self._of = self._made_documents(used)
        self._mine = {name: [one for one in used if self._columns[one].document == name] for name in self._of}
        self._scopes = {scope.root: scope for scope in self._made_scopes()}
        self._always = self._made_always()
        self._plain: dict[tuple[str, frozenset[int]], int] = {}
        """Document and what is known, to how many items were noted that no term fits."""

    # --- made ready --------------------------------------------------------------------------------------------------

    def _add(self, source: int, indicator: Indicator) -> None:
        if depth_of(indicator.root) > MAX_DEPTH:
            for term in terms_of(indicator.root):
                self._knowledge.note(term, f"nested in more than {MAX_DEPTH} groups")
            self._without.append(source)
        elif not self._forest.add(source, indicator, self._question, self._keep):
            self._without.append(source)

    def _question(self, term: Term, slot: int) -> tuple[int, Asked] | None:
        if slot >= MAX_APART:
            self._knowledge.note(term, f"of more than {MAX_APART} observations")
            return None
        known = self._knowledge.asked(term)
        return None if known is None else (self._column((term.document, slot), known[0], known[1].kind), known[1])

    def _column(self, whose: Whose, path: str, kind: Kind) -> int:
        key = (whose, path, kind)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._columns)
            self._columns.append(Column(whose, path, kind))
        return number

    def _keep(self, column: int, question: Asked, leaf: int) -> None:
        self._columns[column].add(question, leaf)

    def _made_documents(self, used: frozenset[int]) -> dict[str, list[Document]]:
        documents: dict[str, list[Document]] = {}
        for whose in sorted({self._columns[number].whose for number in used}):
            mine = frozenset(number for number in used if self._columns[number].whose == whose)
            paths = frozenset(self._columns[number].path for number in mine)
            documents.setdefault(whose[0], []).append(Document(whose, self._forest, self._columns, mine, paths))
        return documents

    def _made_scopes(self) -> Iterator[Scope]:
        several = {shape for shape in self._forest.roots_of if len(self._about(shape)) > 1}
        if several:
            for root in self._forest.roots():
                if self._forest.shape[root] in several:
                    yield Scope(self._forest, self._columns, root)

    def _about(self, shape: int) -> set[Whose]:
        return {self._columns[number].whose for number in self._forest.shapes[shape].columns}

    def _made_always(self) -> dict[str, list[tuple[Scope, Whose]]]:
        """Scopes that must know of each item of a document, whether a term fits it or not."""
        always: dict[str, list[tuple[Scope, Whose]]] = {}
        for scope in self._scopes.values():
            for whose in scope.about:
                if scope.counts_untouched(whose):
                    always.setdefault(whose[0], []).append((scope, whose))
        return always

    # --- what is asked -----------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> Mapping[str, frozenset[str]]:
        """Document to the paths that some indicator asks for and that can be known on Linux; the least to look at.

        What cannot change anything is not there: whatever is joined by AND with a term that cannot be known. A document
        that is switched on is there even if no path of it is.
        """
        wanted = {name: NOTHING.union(*(one.paths for one in documents)) for name, documents in self._of.items()}
        return {**{name: NOTHING for name, on in self._switches.items() if on}, **wanted}

    @property
    def unknown(self) -> Sequence[UnknownTerm]:
        """Terms that cannot be known here: another system's, misspelt, switched off, an unfit type or pattern."""
        return self._knowledge.unknown

    @property
    def unknown_in(self) -> Mapping[int, Sequence[UnknownTerm]]:
        """Likewise, by the file that asks for them."""
        return self._knowledge.unknown_in

    @property
    def without_positive(self) -> Sequence[int]:
        """Indicators that can never match: no way to fulfil them has a positive term and only terms that are known."""
        return tuple(self._without)

    @property
    def limited(self) -> Sequence[int]:
        """Indicators that may have missed a match: more different items were seen than could be combined, in time."""
        with self._lock:
            scopes = [scope.root for scope in self._scopes.values() if scope.limited]
        return sorted({self._forest.source[root] for root in scopes})

    def needs(self, item: Item) -> frozenset[str]:
        """Paths that this item lacks and that can still change what matches. Ask again when some of them are known.

        All of them, whatever they cost: whoever asks finds out the cheap ones first, and asks again.
        """
        documents = self._of.get(item.document, ())
        if len(documents) == 1:
            return documents[0].needs(item)
        return NOTHING.union(*(document.needs(item) for document in documents))

    def concerns(self, item: Item) -> bool:
        """Is there anything in it for `see`? Of most items it takes no note."""
        mine = self._mine.get(item.document)
        if mine is None:
            return False
        hits, known = self._fits(mine, item)
        return bool(hits or self._always_about(item.document, known, plain=False))

    def see(self, item: Item) -> Sequence[Match]:
        """Take note of an item; the matches that it decides alone, one for each indicator."""
        mine = self._mine.get(item.document)
        if mine is None:
            return ()
        hits, known = self._fits(mine, item)
        always = self._always_about(item.document, known, plain=not hits)
        if not hits and not always:
            return ()
        touched = self._forest.touched(hits)
        if self._scopes:
            self._note(item, touched, known, always)
        matches: dict[int, Match] = {}
        for root in sorted(touched.roots):
            source = self._forest.source[root]
            untouched = self._untouched(known - self._scopes[root].hidden if root in self._scopes else known)
            if source not in matches and self._forest.verdict(root, touched, untouched) == YES:
                told = _Told(self._knowledge, lambda _: Example(item, {}))
                matches[source] = self._match(root, (item,), touched, untouched, told)
        return tuple(matches.values())

    def _always_about(self, document: str, known: frozenset[int], *, plain: bool) -> Sequence[tuple[Scope, Whose]]:
        """The scopes that must know of each item: until so many like it were noted that one more changes nothing."""
        always = self._always.get(document, ())
        if not always:
            return ()
        noted = self._plain.get((document, known), 0)
        if noted >= MAX_EXAMPLES:
            return ()
        if plain and (noted or len(self._plain) < MAX_PLANS):
            self._plain[document, known] = noted + 1
        return always

    def _fits(self, mine: Sequence[int], item: Item) -> tuple[set[int], frozenset[int]]:
        """The terms that the item fits, and the columns that are known of it."""
        hits: set[int] = set()
        known: list[int] = []
        for number in mine:
            column = self._columns[number]
            values = item.values.get(column.path)
            if values is not None:
                found, clean = column.found(values)
                hits |= found
                if clean:
                    known.append(number)
        return hits, frozenset(known)

    def _untouched(self, known: frozenset[int]) -> Untouched:
        """What shapes come to for an item; the same few sets of columns are known of most of them."""
        untouched = self._alike.get(known)
        if untouched is None:
            if len(self._alike) >= MAX_PLANS:
                self._alike.clear()
            untouched = self._alike[known] = Untouched(self._forest.shapes, known)
        return untouched

    def _match(
        self, root: int, items: tuple[Item, ...], touched: Touched, untouched: Untouched, told: "_Told"
    ) -> Match:
        source = self._forest.source[root]
        return Match(
            indicator=self._indicators[source].id,
            title=self._indicators[source].title,
            source=source,
            items=items,
            branch=branch(self._forest, root, touched, untouched, told),
        )

    # --- several documents -------------------------------------------------------------------------------------------

    def _note(self, item: Item, touched: Touched, known: frozenset[int], always: Sequence[tuple[Scope, Whose]]) -> None:
        noted: dict[tuple[int, Whose], list[int]] = {(scope.root, whose): [] for scope, whose in always}
        for root in touched.roots:
            if root in self._scopes:
                for leaf in self._forest.leaves(root, touched):
                    noted.setdefault((root, self._whose(leaf)), []).append(leaf)
        with self._lock:
            for (root, whose), leaves in noted.items():
                fits = frozenset(leaves)
                self._scopes[root].note(whose, fits, known, _Keeping(self._knowledge, self._forest, item, fits))

    def _whose(self, node: int) -> Whose:
        return self._columns[self._forest.column(node)].whose

    def finish(self) -> Sequence[Match]:
        """Every item was seen: the matches that take items of several documents."""
        return tuple(self.finishing(always))

    def finishing(self, go_on: GoOn) -> Iterator[Match]:
        """Likewise, one after the other, as long as `go_on`, which is asked before each step, does not say no.

        Indicators that were not done by then are `limited`.
        """
        for scope in self._scopes.values():
            if not scope.waits:
                continue
            with self._lock:
                if go_on():
                    found = tuple(self._combined(scope, go_on))
                else:
                    scope.limited, found = True, ()
            yield from found

    def _combined(self, scope: Scope, go_on: GoOn) -> Iterator[Match]:
        told: set[frozenset[str]] = set()
        for combination in scope.combinations(go_on):
            named = self._named(scope, combination)
            for examples in _aligned({one: some for one, some in combination.examples.items() if one in named}):
                items = {one.item.name: one.item for one in examples.values()}
                key = frozenset(f"{one.document} {name}" for name, one in items.items())
                if key in told or (len(items) == 1 and not named & set(scope.every)):
                    continue  # of one item alone: see() told it
                told.add(key)
                say = _Told(self._knowledge, partial(self._example, examples))
                yield self._match(scope.root, tuple(items.values()), combination.touched, combination.untouched, say)
                if len(told) >= MAX_COMBINED:
                    return

    def _example(self, examples: Mapping[Whose, Example], node: int) -> Example | None:
        return examples.get(self._whose(node))

    def _named(self, scope: Scope, combination: Combination) -> set[Whose]:
        """The items of which the branch that is told speaks."""
        nodes = self._forest.decisive(scope.root, combination.touched, combination.untouched)
        return {self._whose(node) for node, _ in nodes if isinstance(self._forest.expression[node], Term)}


class _Told:
    """Tells the item and the value by which a term holds."""

    def __init__(self, knowledge: Knowledge, example_of: Callable[[int], Example | None]) -> None:
        self._knowledge = knowledge
        self._example_of = example_of

    def __call__(self, node: int, term: Term) -> tuple[str, str]:
        example = self._example_of(node)
        if example is None:
            return "", ""
        if node in example.got:
            return example.item.name, example.got[node]
        return example.item.name, got(self._knowledge, term, example.item)


class _Keeping:
    """Makes what is kept of an item, if it is kept at all."""

    def __init__(self, knowledge: Knowledge, forest: Forest, item: Item, fits: frozenset[int]) -> None:
        self._knowledge = knowledge
        self._forest = forest
        self._item = item
        self._fits = fits

    def __call__(self) -> Example:
        terms = ((leaf, self._forest.expression[leaf]) for leaf in islice(sorted(self._fits), MAX_KEPT_VALUES))
        values = {leaf: got(self._knowledge, term, self._item) for leaf, term in terms if isinstance(term, Term)}
        few = {path: values[:MAX_KEPT_VALUES] for path, values in self._item.values.items()}
        return Example(replace(self._item, values=few), values)


def got(knowledge: Knowledge, term: Term, item: Item) -> str:
    """The value of an item by which a term holds; of a negated term, what it has instead."""
    path, question = knowledge.question(term)
    values = item.values.get(path, ())
    if not values:
        return ""
    if not term.negate:
        return value_that_fits(question, values)
    return as_text(values[0], kind_of(item.document, path) or question.kind)


def _aligned(examples: Mapping[Whose, Sequence[Example]]) -> Iterator[Mapping[Whose, Example]]:
    """Items of each kind side by side, so that each is there once; the last of a shorter list again and again."""
    longest = max((len(some) for some in examples.values()), default=0)
    for place in range(min(longest, MAX_EXAMPLES)):
        yield {name: some[min(place, len(some) - 1)] for name, some in examples.items()}
