"""XML from hostile files, into plain nodes: no document type, so no entities; bounded in bytes, depth and number.

Expat reads any encoding that a declaration or a byte order mark names. Comments before the declaration are against the
rules of XML, and stand there in the field's own files: reading begins behind them.
"""

from dataclasses import dataclass, field
from xml.parsers import expat

from stanch.core.ioc.errors import Unreadable

MAX_DEPTH = 100
MAX_NODES = 150_000
"""Elements: more than 3 MB of indicators of the shortest kind have."""
LONGEST_NAME = 200
"""Characters of a name that errors quote."""
LONGEST_NAMESPACE = 200
"""Characters: every name of it bears all of it, so a long one that is said once would fill gigabytes."""
BLOCK = 16_384
"""Bytes that expat is given at a time: it does not stop within them, whatever is wrong."""

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_COMMENT, _COMMENT_END, _DECLARATION = b"<!--", b"-->", b"<?xml"


@dataclass(slots=True)
class Node:
    """An element. Names carry their namespace as `{namespace}name`, or nothing for none."""

    name: str
    attributes: dict[str, str]
    line: int
    children: list["Node"] = field(default_factory=list)
    text: str = ""
    """Its own text, that of its children left out."""

    @property
    def namespace(self) -> str:
        """Of its name; empty for none."""
        return self.name[1:].partition("}")[0] if self.name.startswith("{") else ""

    @property
    def local(self) -> str:
        """Its name without the namespace."""
        return self.name.rpartition("}")[2]

    def first(self, local: str) -> "Node | None":
        """The first child of this local name in the same namespace."""
        return next((one for one in self.children if one.local == local and one.namespace == self.namespace), None)

    def text_of(self, local: str) -> str:
        """The text of that child, stripped; empty if there is none."""
        found = self.first(local)
        return "" if found is None else found.text.strip()


def read(data: bytes, *, most: int) -> Node:
    """The root element; Unreadable with line and reason for what is larger than `most` bytes, or no such XML."""
    if len(data) > most:
        raise Unreadable("The file is too large", got=f"{len(data)} bytes", expected=f"at most {most} bytes")
    begin = _beginning(data)
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    builder = _Builder(parser, skipped=data.count(b"\n", 0, begin))
    try:
        for start in range(begin, len(data), BLOCK):
            parser.Parse(data[start : start + BLOCK], False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise _no_xml(expat.ErrorString(error.code), error.lineno + builder.skipped) from None
    except Unreadable:
        raise
    except (ValueError, LookupError, TypeError) as error:  # an encoding that is none, or none of single bytes
        raise _no_xml(f"an encoding that cannot be read: {error}", builder.line) from None
    if builder.root is None:
        raise _no_xml("no element", 0)
    return builder.root


def _no_xml(got: str, line: int) -> Unreadable:
    return Unreadable("The file is no XML", got=got, expected="well-formed XML", line=line)


def _beginning(data: bytes) -> int:
    """Where the declaration is, if only comments stand before it; otherwise 0."""
    at = len(_BOM) if data.startswith(_BOM) else 0
    while True:
        while at < len(data) and data[at] in _BLANK:
            at += 1
        if data.startswith(_DECLARATION, at):
            return at
        end = data.find(_COMMENT_END, at + len(_COMMENT)) if data.startswith(_COMMENT, at) else -1
        if end < 0:
            return 0
        at = end + len(_COMMENT_END)


class _Builder:
    """Takes what expat sees."""

    def __init__(self, parser: expat.XMLParserType, *, skipped: int) -> None:
        self.root: Node | None = None
        self.skipped = skipped
        """Lines before the beginning."""
        self._open: list[tuple[Node, list[str]]] = []
        self._count = 0
        self._parser = parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace

    @property
    def line(self) -> int:
        """Where the parser is."""
        return self._parser.CurrentLineNumber + self.skipped

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH or self._count > MAX_NODES:
            raise Unreadable(
                "The XML is too deep or has too many elements",
                got=f"{self._count} elements, {len(self._open) + 1} deep",
                expected=f"at most {MAX_NODES} elements, {MAX_DEPTH} deep",
                line=self.line,
            )
        node = Node(_name(name), {_name(key): value for key, value in attributes.items()}, self.line)
        if self._open:
            self._open[-1][0].children.append(node)
        else:
            self.root = node
        self._open.append((node, []))

    def _end(self, _name: str) -> None:
        node, texts = self._open.pop()
        node.text = "".join(texts)

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1][1].append(text)

    def _namespace(self, _prefix: str | None, name: str | None) -> None:
        if name is not None and len(name) > LONGEST_NAMESPACE:
            raise Unreadable(
                "The name of a namespace is too long",
                got=f"{len(name)} characters",
                expected=f"at most {LONGEST_NAMESPACE} characters",
                line=self.line,
            )

    def _doctype(self, *_: object) -> None:
        raise Unreadable(
            "The XML declares a document type",
            got="<!DOCTYPE",
            expected="none: entities are not read",
            line=self.line,
        )


def _name(raw: str) -> str:
    """`namespace}name`, as expat joins them, with its brace in front."""
    return "{" + raw if "}" in raw else raw
