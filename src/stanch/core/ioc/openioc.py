"""OpenIOC 1.0 and 1.1 files, read into the expression tree.

Facts: the schema of 1.1 and the definitions of both versions by their authors. What would change the logic and is not
understood is an error with its line; what changes nothing is noted and left. A term that Linux cannot know, or whose
condition does not fit its type, is read as it stands: it is unknown later, and no error.
"""

from collections.abc import Iterable, Mapping

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Condition, Expression, Group, Indicator, Operator, Term
from stanch.core.ioc.xml import Node, read

MAX_BYTES = 3 * 1_048_576
"""Bytes of one file."""
MAX_NOTES = 50
"""Different things that are noted about one file."""
LONGEST_LINE = 500
"""Characters of an id, a title, a name."""
LONGEST_TEXT = 20_000
"""Characters of a description."""

V10, V11 = "http://schemas.mandiant.com/2010/ioc", "http://openioc.org/schemas/OpenIOC_1.1"
FORMATS: Mapping[str, str] = {f"{{{V10}}}ioc": "OpenIOC 1.0", f"{{{V11}}}OpenIOC": "OpenIOC 1.1"}
"""Root element to what it is."""
_LOGIC: Mapping[str, str] = {"OpenIOC 1.0": "definition", "OpenIOC 1.1": "criteria"}

_CONDITIONS: Mapping[str, tuple[Condition, bool]] = {
    **{str(one): (one, False) for one in Condition},
    "isnot": (Condition.IS, True),
    "containsnot": (Condition.CONTAINS, True),
}
"""What a file says to the condition, and whether it says no itself, as 1.0 does."""
_BOOLEANS: Mapping[str, bool] = {"": False, "false": False, "0": False, "true": True, "1": True}

_GROUP, _ITEM, _COMMENT = "Indicator", "IndicatorItem", "Comment"
_OF_GROUP = frozenset({"id", "operator"})
_OF_ITEM = frozenset({"id", "condition", "negate", "preserve-case"})
_OF_CONTEXT = frozenset({"document", "search", "type"})


def read_openioc(data: bytes) -> Indicator:
    """The indicator of one file; Unreadable with line, got and expected."""
    root = read(data, most=MAX_BYTES)
    version = FORMATS.get(root.name)
    if version is None:
        raise _unreadable("The file is no OpenIOC", root, got=root.name, expected=" or ".join(FORMATS))
    notes = _Notes()
    top = _Logic(root.namespace, notes).top(_logic_of(root, _LOGIC[version]))
    told = root.first("metadata") or root
    _note_the_rest(root, told, notes)
    return Indicator(
        id=root.attributes.get("id", "").strip()[:LONGEST_LINE],
        title=told.text_of("short_description")[:LONGEST_LINE],
        description=told.text_of("description")[:LONGEST_TEXT],
        author=told.text_of("authored_by")[:LONGEST_LINE],
        created=told.text_of("authored_date")[:LONGEST_LINE],
        modified=root.attributes.get("last-modified", "").strip()[:LONGEST_LINE],
        format=version,
        root=top,
        ignored=notes.all,
    )


def _logic_of(root: Node, name: str) -> Node:
    found = [one for one in root.children if one.local == name and one.namespace == root.namespace]
    if not found:
        raise _unreadable("The indicator has no logic", root, got=f"no <{name}>", expected=f"<{name}>")
    if len(found) > 1:
        raise _unreadable("The indicator has its logic twice", found[1], got=f"a second <{name}>", expected="one")
    return found[0]


def _note_the_rest(root: Node, told: Node, notes: "_Notes") -> None:
    if not root.attributes.get("id", "").strip():
        notes.add("it has no id")
    parameters, links = root.first("parameters"), told.first("links")
    if parameters is not None and parameters.children:
        notes.add(f"{len(parameters.children)} parameters")
    if links is not None and links.children:
        notes.add(f"{len(links.children)} links")


def _unreadable(message: str, node: Node, *, got: str, expected: str) -> Unreadable:
    return Unreadable(message, got=got[:LONGEST_LINE], expected=expected, line=node.line)


class _Notes:
    """What was left: each thing once, with how often; only so many."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def add(self, text: str) -> None:
        """One more."""
        if text in self._times or len(self._times) < MAX_NOTES:
            self._times[text] = self._times.get(text, 0) + 1

    def unknown(self, node: Node, known: frozenset[str]) -> None:
        """The attributes that are not understood."""
        for name in sorted(node.attributes.keys() - known):
            self.add(f"the attribute {name[:100]} of <{node.local[:100]}>")

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, in words."""
        return tuple(f"{text} ({times} times)" if times > 1 else text for text, times in self._times.items())


class _Logic:
    """Reads groups and terms. The XML is at most 100 elements deep, so the recursion is bounded."""

    def __init__(self, namespace: str, notes: _Notes) -> None:
        self._namespace = namespace
        self._notes = notes
        self._ids: set[str] = set()

    def top(self, node: Node) -> Group:
        """The whole: one group, or several of which one is enough."""
        groups = [self._group(one) for one in self._parts(node, {_GROUP})]
        if not groups:
            raise _unreadable(
                "The indicator has no logic", node, got=f"an empty <{node.local}>", expected=f"<{_GROUP}>"
            )
        return groups[0] if len(groups) == 1 else Group(id="", operator=Operator.OR, parts=tuple(groups))

    def _parts(self, node: Node, wanted: Iterable[str]) -> list[Node]:
        """The children that say something; Unreadable for one that is not known."""
        said = [one for one in node.children if one.local != _COMMENT]
        for one in said:
            if one.local not in wanted or one.namespace != self._namespace:
                expected = " or ".join(f"<{name}>" for name in sorted(wanted)) + f" of {self._namespace}"
                raise _unreadable(f"Not understood in <{node.local}>", one, got=f"<{one.name}>", expected=expected)
        return said

    def _group(self, node: Node) -> Group:
        said = node.attributes.get("operator", "")
        if said.strip().upper() not in Operator.__members__:
            raise _unreadable("The operator is unknown", node, got=said or "none", expected="AND or OR")
        self._notes.unknown(node, _OF_GROUP)
        parts = tuple(self._part(one) for one in self._parts(node, {_GROUP, _ITEM}))
        if not parts:
            raise _unreadable("A group is empty", node, got=f"<{_GROUP}> without content", expected="terms or groups")
        return Group(id=self._id(node), operator=Operator(said.strip().upper()), parts=parts)

    def _part(self, node: Node) -> Expression:
        return self._group(node) if node.local == _GROUP else self._term(node)

    def _term(self, node: Node) -> Term:
        said = node.attributes.get("condition", "")
        condition, denied = _CONDITIONS.get(said.strip().lower(), (None, False))
        if condition is None:
            raise _unreadable("The condition is unknown", node, got=said or "none", expected=", ".join(_CONDITIONS))
        self._notes.unknown(node, _OF_ITEM)
        context, content = self._both(node)
        document, path = self._asked(context)
        return Term(
            id=self._id(node),
            document=document,
            path=path,
            condition=condition,
            content=content.text,
            type=content.attributes.get("type", "").strip()[:LONGEST_LINE],
            negate=_boolean(node, "negate") != denied,
            preserve_case=_boolean(node, "preserve-case"),
        )

    def _both(self, node: Node) -> tuple[Node, Node]:
        """What is asked, and for what."""
        parts = self._parts(node, {"Context", "Content"})
        by_name = {one.local: one for one in parts}
        for name in ("Context", "Content"):
            if name not in by_name:
                raise _unreadable(
                    "A term is not complete", node, got=f"no <{name}>", expected="<Context> and <Content>"
                )
        if len(parts) > len(by_name) or any(one.children for one in parts):
            expected = "one <Context>, one <Content>"
            raise _unreadable("A term says too much", node, got="more elements", expected=expected)
        return by_name["Context"], by_name["Content"]

    def _asked(self, context: Node) -> tuple[str, str]:
        """Document and path. Only the search counts: the document beside it is said twice."""
        self._notes.unknown(context, _OF_CONTEXT)
        search = context.attributes.get("search", "").strip()
        beside = context.attributes.get("document", "").strip()
        if not search:
            raise _unreadable("A term asks nothing", context, got="no search", expected='search="Document/Path"')
        document, slash, path = search.partition("/")
        if not slash:
            document, path = beside, search
        elif beside and beside != document:
            self._notes.add(f"the document {beside[:100]} beside the search {search[:200]}")
        return document[:LONGEST_LINE], path[:LONGEST_LINE]

    def _id(self, node: Node) -> str:
        found = node.attributes.get("id", "").strip()[:LONGEST_LINE]
        if found and found in self._ids:
            self._notes.add("an id that another term or group has")
        self._ids.add(found)
        return found


def _boolean(node: Node, name: str) -> bool:
    said = node.attributes.get(name, "")
    found = _BOOLEANS.get(said.strip().lower())
    if found is None:
        raise _unreadable(f"The value of {name} is unknown", node, got=said, expected="true or false")
    return found
