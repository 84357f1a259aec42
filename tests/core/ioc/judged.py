"""Trees and items for the tests of the judge, and a slow evaluator that takes the words of the standard literally."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, product

from hypothesis import strategies as st

from stanch.core.ioc.expression import Condition, Expression, Group, Indicator, Operator, Term, Truth
from stanch.core.ioc.items import Item, Value
from stanch.core.ioc.judging import Judge

_numbers = count()


def term(name, condition="is", content="", *, of="string", negate=False, preserve_case=False) -> Term:
    """A term by its full name."""
    document, _, path = name.partition("/")
    return Term(
        id=f"t{next(_numbers)}",
        document=document,
        path=path,
        condition=Condition(condition),
        content=content,
        type=of,
        negate=negate,
        preserve_case=preserve_case,
    )


def every(*parts: Expression) -> Group:
    """AND."""
    return Group(id=f"g{next(_numbers)}", operator=Operator.AND, parts=parts)


def some(*parts: Expression) -> Group:
    """OR."""
    return Group(id=f"g{next(_numbers)}", operator=Operator.OR, parts=parts)


def apart(*parts: Expression) -> Group:
    """AND, with items of its own for each part."""
    return Group(id=f"g{next(_numbers)}", operator=Operator.AND, parts=parts, apart=True)


def indicator(root: Expression, name: str = "i") -> Indicator:
    """An indicator of a tree."""
    top = root if isinstance(root, Group) else some(root)
    return Indicator(id=name, title=f"title of {name}", format="OpenIOC 1.1", root=top)


def item(document: str, name: str = "", /, **values: Value | tuple[Value, ...]) -> Item:
    """An item; `__` stands for a slash."""
    known = {path.replace("__", "/"): one if isinstance(one, tuple) else (one,) for path, one in values.items()}
    return Item(document=document, name=name or document, values=known)


MD5 = "d41d8cd98f00b204e9800998ecf8427e"


def name(content, **more):
    """A file of this name."""
    return term("FileItem/FileName", "is", content, **more)


def size(content, condition="is", **more):
    """A file of this size."""
    return term("FileItem/SizeInBytes", condition, content, of="int", **more)


def process(content, **more):
    """A process of this name."""
    return term("ProcessItem/name", "is", content, **more)


def md5(content=MD5, **more):
    """A file with this hash."""
    return term("FileItem/Md5sum", "is", content, of="md5", **more)


def file(name, **more):
    """A file."""
    return item("FileItem", f"/{name}", FileName=name, **more)


def matched(root: Expression, *items: Item) -> bool:
    """Does it match?"""
    judge = Judge([indicator(root)])
    return bool([match for one in items for match in judge.see(one)] + list(judge.finish()))


# --- random ones -----------------------------------------------------------------------------------------------------

PATHS = {
    "FileItem": {"FileName": "abAB", "FullPath": "abAB", "SizeInBytes": "123", "StringList/string": "abAB"},
    "ProcessItem": {"name": "abAB", "pid": "123"},
    "PortItem": {"localPort": "123"},
}
NUMBERS = frozenset({"SizeInBytes", "pid", "localPort"})
NOT_HERE = ("FileItem", "PEInfo/Nothing")


@st.composite
def terms(draw):
    """A term that can be known, or now and then one that cannot."""
    document = draw(st.sampled_from(sorted(PATHS)))
    path = draw(st.sampled_from(sorted(PATHS[document])))
    if draw(st.integers(0, 11)) == 0:
        document, path = NOT_HERE
    texts = ["is", "contains", "matches", "starts-with", "ends-with"]
    conditions = ["is", "greater-than", "less-than"] if path in NUMBERS else texts
    content = draw(st.sampled_from(PATHS[document].get(path, "ab")))
    more = draw(st.sampled_from(["", "a", "b"])) if path not in NUMBERS else ""
    return term(
        f"{document}/{path}",
        draw(st.sampled_from(conditions)),
        content + more,
        of="int" if path in NUMBERS else "string",
        negate=draw(st.integers(0, 2)) == 0,
        preserve_case=draw(st.booleans()),
    )


def _groups(parts):
    return st.builds(
        lambda operator, some: Group(id="g", operator=operator, parts=tuple(some)),
        st.sampled_from(Operator),
        st.lists(parts, min_size=0, max_size=4),
    )


@st.composite
def likely(draw):
    """A term that holds for many items."""
    name, condition, content = draw(
        st.sampled_from(
            [
                ("FileItem/FileName", "contains", "a"),
                ("FileItem/FullPath", "matches", "b"),
                ("FileItem/SizeInBytes", "greater-than", "1"),
                ("FileItem/StringList/string", "contains", "b"),
                ("ProcessItem/name", "contains", "a"),
                ("ProcessItem/pid", "less-than", "3"),
                ("PortItem/localPort", "greater-than", "0"),
            ]
        )
    )
    of = "int" if name.rpartition("/")[2] in NUMBERS else "string"
    return term(name, condition, content, of=of, negate=draw(st.integers(0, 3)) == 0)


def _joined(parts, least):
    return st.builds(
        lambda operator, some: Group(id="g", operator=operator, parts=tuple(some)),
        st.sampled_from(Operator),
        st.lists(parts, min_size=least, max_size=3),
    )


several = st.builds(
    lambda parts: every(*parts),
    st.lists(st.recursive(likely(), lambda parts: _joined(parts, 1), max_leaves=4), min_size=2, max_size=4),
)
"""Scopes over several documents that often hold."""
trees = _groups(st.recursive(terms(), _groups, max_leaves=10))


def _observations(parts):
    joined = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return st.one_of(joined.map(lambda some: apart(*some)), joined.map(lambda parts: some(*parts)))


patterns = st.recursive(st.one_of(likely(), several, _groups(terms())), _observations, max_leaves=4)
"""As STIX has them: observations of their own, joined."""


@st.composite
def items(draw):
    """An item of which some values are known, some known to be none, some not known."""
    document = draw(st.sampled_from(sorted(PATHS)))
    values: dict[str, tuple[Value, ...]] = {}
    for path in PATHS[document]:
        one = st.integers(0, 4) if path in NUMBERS else st.sampled_from(["ab", "a", "b", "", "A", "bA", "aab"])
        if path == "SizeInBytes":
            one = st.one_of(one, st.just("no number"))
        many = 3 if path == "StringList/string" else 1
        if draw(st.integers(0, 5)):
            values[path] = tuple(draw(st.lists(one, min_size=draw(st.sampled_from([1, 1, 1, 0])), max_size=many)))
    return Item(document=document, name=f"item {next(_numbers)}", values=values)


@st.composite
def witnesses(draw, one: Item):
    """What holds for an item, as a term or a small group of terms, or now and then nearly does."""
    known = sorted(path for path, values in one.values.items() if values)
    if not known or draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(terms(), likely()))
    paths = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2))
    found = [_said_of(one.document, path, one.values[path][0]) for path in paths]
    other = paths[0]
    values = st.integers(0, 9) if other in NUMBERS else st.sampled_from(["a", "zz"])
    denied = replace(_said_of(one.document, other, draw(values)), negate=True)
    return draw(
        st.sampled_from(
            [found[0], every(*found), some(*found, draw(terms())), every(found[0], denied), some(found[0], denied)]
        )
    )


def _said_of(document: str, path: str, value: Value) -> Term:
    content = "2" if path in NUMBERS and isinstance(value, str) else str(value)
    return term(f"{document}/{path}", "is", content, of="int" if path in NUMBERS else "string")


@st.composite
def denials(draw, crowd: Sequence[Item]):
    """That no item is something, which most of the time none is."""
    document = draw(st.sampled_from(sorted(PATHS)))
    path = draw(st.sampled_from(sorted(PATHS[document])))
    there = [one for one in crowd if one.document == document and one.values.get(path)]
    if there and draw(st.integers(0, 2)) == 0:
        return replace(_said_of(document, path, draw(st.sampled_from(there)).values[path][0]), negate=True)
    return replace(_said_of(document, path, 99 if path in NUMBERS else "zz"), negate=True)


@st.composite
def worlds(draw):
    """Indicators over several items that are there, and items that are not; and the items."""
    crowd = draw(st.lists(items(), min_size=2, max_size=5))
    roots = []
    for _ in range(draw(st.integers(1, 3))):
        about = draw(st.lists(st.sampled_from(crowd), min_size=1, max_size=3))
        parts = [draw(witnesses(one)) for one in about]
        parts += draw(st.lists(denials(crowd), max_size=2))
        roots.append(draw(st.sampled_from([every, apart, apart, _or_and_apart]))(*parts))
    return roots, crowd


def _or_and_apart(*parts: Expression) -> Group:
    return apart(some(*parts), *parts[:2])


# --- the slow evaluator ----------------------------------------------------------------------------------------------

Chosen = Mapping[str, Item | None]


def matches(root: Expression, items: Sequence[Item]) -> bool:
    """Does an indicator match, by trying every item of every document for every scope?"""
    return any(_scope_matches(scope, items) for scope in scopes(root))


def scopes(expression: Expression) -> Iterator[Expression]:
    """Topmost ANDs, and terms in no AND."""
    if isinstance(expression, Group) and expression.operator is Operator.OR:
        for part in expression.parts:
            yield from scopes(part)
    else:
        yield expression


def leaves(expression: Expression) -> Iterator[Term]:
    """All terms."""
    if isinstance(expression, Term):
        yield expression
    else:
        for part in expression.parts:
            yield from leaves(part)


def with_own_documents(expression: Expression) -> tuple[Expression, set[str]]:
    """A scope in which each observation that stands apart asks for a document of its own name; and those names."""
    names: set[str] = set()
    top = isinstance(expression, Group) and expression.apart
    return _named(expression, names, "" if not top else None), names


def _named(expression: Expression, names: set[str], slot: str | None) -> Expression:
    joins = isinstance(expression, Group) and (expression.apart or expression.operator is Operator.OR)
    if slot is None and not joins:
        slot = f"#{next(_numbers)}"
    if isinstance(expression, Term):
        names.add(f"{expression.document}{slot or ''}")
        return replace(expression, document=f"{expression.document}{slot or ''}")
    return replace(expression, parts=tuple(_named(part, names, slot) for part in expression.parts))


def _scope_matches(scope: Expression, items: Sequence[Item]) -> bool:
    scope, names = with_own_documents(scope)
    alive = [one for one in leaves(scope) if one.path != NOT_HERE[1]]
    positive = sorted({one.document for one in alive if not one.negate})
    only_negated = sorted({one.document for one in alive} - set(positive))
    of = {name: [one for one in items if one.document == name.partition("#")[0]] for name in names}
    for chosen in product(*([None, *of[name]] for name in positive)):
        taken = dict(zip(positive, chosen, strict=True))
        rest = [of[name] or [nobody(name)] for name in only_negated]
        if all(proven(scope, {**taken, **dict(zip(only_negated, one, strict=True))}) for one in product(*rest)):
            return True
    return False


def nobody(name: str) -> Item:
    """What none of a document is like: it has no value at all."""
    return Item(document=name, name="", values=dict.fromkeys(PATHS[name.partition("#")[0]], ()))


def truth(expression: Expression, chosen: Chosen) -> Truth:
    """Kleene's logic, word by word."""
    if isinstance(expression, Group):
        join = Truth.all if expression.operator is Operator.AND else Truth.any
        return join(truth(part, chosen) for part in expression.parts)
    one = chosen.get(expression.document)
    values = one.values.get(expression.path) if one else None
    if values is None or expression.path == NOT_HERE[1]:
        return Truth.UNKNOWN
    found = Truth.any(_fits(expression, value) for value in values)
    return ~found if expression.negate else found


def proven(expression: Expression, chosen: Chosen) -> bool:
    """Does it hold by a positive term?"""
    if truth(expression, chosen) is not Truth.YES:
        return False
    if isinstance(expression, Term):
        return not expression.negate
    return any(proven(part, chosen) for part in expression.parts)


def _fits(term: Term, value: Value) -> Truth:
    if term.path in NUMBERS:
        if isinstance(value, str):
            return Truth.UNKNOWN
        number = int(term.content)
        holds = {"is": value == number, "greater-than": value > number, "less-than": value < number}[term.condition]
        return Truth.YES if holds else Truth.NO
    text, content = str(value), term.content
    if not term.preserve_case:
        text, content = text.lower(), content.lower()
    holds = {
        "is": text == content,
        "contains": content in text,
        "matches": content in text,
        "starts-with": text.startswith(content),
        "ends-with": text.endswith(content),
    }[term.condition]
    return Truth.YES if holds else Truth.NO
