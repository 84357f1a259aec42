"""The text of YARA rules, as far as it must be understood to take a bad rule out of it: where each statement begins.

A statement is a rule with its modifiers, an import or an include. `rule` is a reserved word, so that outside of texts,
regular expressions and comments it begins one, whatever is missing before it. Line numbers stay as they are.
"""

import re
from dataclasses import dataclass
from typing import Final

_LITERAL: Final = re.compile(
    r"""
      //[^\n]*
    | /\*.*?(?:\*/|\Z)
    | "(?:\\.|[^"\\\n])*"
    | /(?:\\.|[^/\\\n])+/
    """,
    re.VERBOSE | re.DOTALL,
)
_NOT_A_LINE_END: Final = re.compile(r"[^\n]")
_HEAD: Final = re.compile(
    r"(?:rule(?<![\w$#@!]rule)\b(?:\s+(\w+))?|i(?:mport(?<![\w$#@!]import)|nclude(?<![\w$#@!]include))\b)"
)
"""Looks behind only where the word is: to look at every place takes ten times as long."""
_MODIFIERS: Final = ("private", "global")
_NO_BEGINNING: Final = re.compile(r"[\w$#@!]")


@dataclass(frozen=True, slots=True)
class Statement:
    """A part of a file of rules."""

    word: str
    """`rule`, `import` or `include`."""
    name: str
    """Of a rule."""
    first: int
    """Its lines, from 1."""
    last: int
    begin: int
    end: int
    """Where it stands."""


def plain(text: str) -> str:
    """The text with blanks in place of comments, texts and regular expressions; of the same length and lines."""
    return _LITERAL.sub(_blank, text)


def _blank(found: re.Match[str]) -> str:
    return _NOT_A_LINE_END.sub(" ", found[0]) if "\n" in found[0] else " " * (found.end() - found.start())


def statements(bare: str) -> list[Statement]:
    """All of them in a plain text, in order."""
    heads: list[tuple[int, re.Match[str]]] = []
    for head in _HEAD.finditer(bare):
        heads.append((_begin(bare, head.start(), heads[-1][1].end() if heads else 0), head))
    found: list[Statement] = []
    line, at = 1, 0
    for n, (begin, head) in enumerate(heads):
        end = heads[n + 1][0] if n + 1 < len(heads) else len(bare)
        first = line + bare.count("\n", at, begin)
        line, at = first + bare.count("\n", begin, end), end
        word = "rule" if head[0].startswith("rule") else head[0]
        found.append(Statement(word, head[1] or "", first, line, begin, end))
    return found


def _begin(bare: str, word: int, least: int) -> int:
    """Where a statement begins whose word is there: with its modifiers, but not before `least`."""
    begin = word
    while begin and bare[begin - 1].isspace():
        before = _end_of_text(bare, begin)
        modifier = next((one for one in _MODIFIERS if bare.endswith(one, 0, before)), "")
        place = before - len(modifier)
        if not modifier or place < least or (place and _NO_BEGINNING.match(bare, place - 1)):
            break
        begin = place
    return begin


def _end_of_text(bare: str, end: int) -> int:
    """Where the blanks begin that end here."""
    size = 64
    while True:
        piece = bare[max(0, end - size) : end].rstrip()
        if piece or size >= end:
            return end - min(size, end) + len(piece)
        size *= 4


def without(text: str, statement: Statement) -> str:
    """The text without it; lines keep their numbers."""
    gone = "\n" * text.count("\n", statement.begin, statement.end)
    return text[: statement.begin] + gone + text[statement.end :]


def at_line(found: list[Statement], line: int) -> Statement | None:
    """The statement on this line: of several the last, since an error is told where the reader had come to."""
    return next((one for one in reversed(found) if one.first <= line <= one.last), None)
