r"""Regular expressions of indicators (XPath 2.0), put as RE2 understands them, and many patterns searched at once.

RE2 takes time in proportion to the text, whatever the pattern: a catastrophic one is harmless. What it cannot do by its
nature (backreferences, looking around) is told as `Misunderstood`, never guessed.

Where XPath and what authors of indicators believe differ, in doubt what they believe: `\w` takes the underscore too,
and `\b`, `(?:...)`, `\A`, `\z` and inline flags are taken though XPath 2.0 has none. `.` is any character but a line
feed, `^` and `$` are the ends of the whole value.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import re2

MAX_PATTERN = 8192
"""Characters of one pattern."""
MAX_PROGRAM = 20_000
"""Instructions of one pattern in RE2."""
SET_PATTERNS = 2_000
"""Patterns that are searched together."""
SET_PROGRAM = 60_000
"""Instructions of the patterns that are searched together."""
SET_MEMORY = 24 << 20
"""Bytes that RE2 may take for one set, patterns and states together."""
SETS_MEMORY = 96 << 20
"""Bytes for all sets of one kind, roughly: the more sets, the less for each."""
ONE_MEMORY = 4 << 20
"""Bytes for one pattern by itself."""

_WORD = r"\p{L}\p{M}\p{N}\p{S}_"
_NAME_START = r"\p{L}\p{Nl}_:"
_NAME = r"\p{L}\p{M}\p{N}_:.\-\x{B7}"
_INSIDE = {
    "d": r"\p{Nd}",
    "D": r"\P{Nd}",
    "w": _WORD,
    "s": r"\x20\t\n\r\f\v",
    "i": _NAME_START,
    "c": _NAME,
}
"""What a short class is within brackets."""
_OUTSIDE = {
    **{letter: f"[{body}]" for letter, body in _INSIDE.items()},
    "W": f"[^{_WORD}]",
    "S": r"[^\x20\t\n\r\f\v]",
    "I": f"[^{_NAME_START}]",
    "C": f"[^{_NAME}]",
}
_BLOCKS = {
    "BasicLatin": r"\x{0}-\x{7F}",
    "Latin-1Supplement": r"\x{80}-\x{FF}",
    "LatinExtended-A": r"\x{100}-\x{17F}",
    "Greek": r"\x{370}-\x{3FF}",
    "Cyrillic": r"\x{400}-\x{4FF}",
    "Hebrew": r"\x{590}-\x{5FF}",
    "Arabic": r"\x{600}-\x{6FF}",
    "CJKUnifiedIdeographs": r"\x{4E00}-\x{9FFF}",
}
_POSIX = re.compile(r"\[\^?\[:\^?[a-z]+:\]")
_PIECE = re.compile(r"\\[pP]\{[^}]{0,60}\}|\\.|\[\^?|\]|.", re.DOTALL)


class Misunderstood(ValueError):
    """A pattern that cannot be searched; the text says why."""


def options(*, memory: int = ONE_MEMORY) -> re2.Options:
    """How RE2 is to work for us."""
    chosen = re2.Options()
    chosen.max_mem = memory
    chosen.log_errors = False
    chosen.never_capture = True
    return chosen


def translated(pattern: str, *, preserve_case: bool) -> str:
    """An XPath 2.0 regular expression as RE2 writes it; Misunderstood if that cannot be, or if it is too much."""
    if len(pattern) > MAX_PATTERN:
        raise Misunderstood(f"a pattern of {len(pattern)} characters, {MAX_PATTERN} at most")
    if _POSIX.search(pattern):
        raise Misunderstood("a class of characters as POSIX names it: [:...:]")
    body = "".join(_pieces(pattern))
    program_of(body)  # by itself: within our own parentheses, a `)(` of its own would be understood
    text = f"(?:{body})" if preserve_case else f"(?i:{body})"
    if program_of(text) > MAX_PROGRAM:
        raise Misunderstood(f"a pattern of more than {MAX_PROGRAM} steps")
    return text


def program_of(text: str) -> int:
    """How large it is in RE2; Misunderstood if it is none."""
    try:
        compiled = re2._Regexp(text, options())  # noqa: SLF001 - re2.compile would keep the last 128 alive
        return int(compiled.programsize)
    except re2.error as error:
        raise Misunderstood(f"not understood: {_said(error)}") from None
    except UnicodeEncodeError:
        raise Misunderstood("not understood: half a character") from None


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def _pieces(pattern: str) -> Iterator[str]:
    """Each piece, translated; classes within brackets know that they are there."""
    inside = first = False
    before = ""
    for piece in _PIECE.findall(pattern):
        if not inside:
            inside = first = piece in {"[", "[^"}
            yield _escaped(piece, within=False) if piece[0] == "\\" else piece
        elif piece in {"[", "[^"}:
            yield _bracket_within(before, piece)
            first = False
        else:
            inside = piece != "]" or first
            first = False
            yield _escaped(piece, within=True) if piece[0] == "\\" else piece
        before = piece


def _bracket_within(before: str, piece: str) -> str:
    if before == "-":
        raise Misunderstood("one class of characters less another, which cannot be searched here")
    return "\\" + piece


def _escaped(piece: str, *, within: bool) -> str:
    letter = piece[1:2]
    if not letter:
        raise Misunderstood("not understood: a backslash at the end")
    if letter.isdigit() and letter != "0" and not within:
        raise Misunderstood("a reference to an earlier group, which cannot be searched in bounded time")
    if letter in "pP" and piece[2:5] == "{Is":
        return _block(piece[5:-1], negated=letter == "P", within=within)
    if not within:
        return _OUTSIDE.get(letter, piece)
    if letter in "WSIC":
        raise Misunderstood(f"\\{letter} within brackets, which cannot be searched here")
    return _INSIDE.get(letter, piece)


def _block(name: str, *, negated: bool, within: bool) -> str:
    ranges = _BLOCKS.get(name)
    if ranges is None or (within and negated):
        raise Misunderstood(f"the block of characters {name}, which cannot be searched here")
    if within:
        return ranges
    return f"[^{ranges}]" if negated else f"[{ranges}]"


class One:
    """One pattern."""

    __slots__ = ("_compiled",)

    def __init__(self, text: str) -> None:
        self._compiled = re2._Regexp(text, options())  # noqa: SLF001 - see program_of

    def found(self, value: str) -> bool:
        """Is it anywhere in the value?"""
        return self._compiled.search(value) is not None


class Many:
    """Many patterns, searched in one pass over the value for each set of them.

    RE2 answers nothing at all when a set runs out of memory, which would look like no match. So every set holds a
    pattern that is always found. A set that does not find it when it is made is made of two halves instead; if it is
    missing later, the patterns of the set are searched one by one, each of which then needs little memory.
    """

    __slots__ = ("_sets",)

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        """Patterns with the number that is answered for each."""
        portions = list(_portions(patterns))
        memory = max(SET_MEMORY // 6, min(SET_MEMORY, SETS_MEMORY // max(1, len(portions))))
        self._sets = [made for portion in portions for made in _together(portion, memory)]

    def found(self, value: str) -> Iterator[int]:
        """The numbers of the patterns that are in the value."""
        data = value.encode()
        for together, portion in self._sets:
            places = together.Match(data) if together is not None else None
            if places is not None and len(portion) in places:
                yield from (portion[place][1] for place in places if place < len(portion))
            else:
                yield from (number for text, number in portion if One(text).found(value))


_Portion = Sequence[tuple[str, int]]


def _portions(patterns: Iterable[tuple[str, int]]) -> Iterator[_Portion]:
    portion: list[tuple[str, int]] = []
    size = 0
    for text, number in patterns:
        more = program_of(text)
        if portion and (len(portion) >= SET_PATTERNS or size + more > SET_PROGRAM):
            yield portion
            portion, size = [], 0
        portion.append((text, number))
        size += more
    if portion:
        yield portion


def _together(portion: _Portion, memory: int) -> Iterator[tuple[re2.Set | None, _Portion]]:
    """One set of them that works, or several, or none for a single one that does not even work alone."""
    made = _set(portion, memory)
    if made is not None or len(portion) == 1:
        yield made, portion
        return
    middle = len(portion) // 2
    yield from _together(portion[:middle], memory)
    yield from _together(portion[middle:], memory)


def _set(portion: _Portion, memory: int) -> re2.Set | None:
    made = re2.Set.SearchSet(options(memory=memory))
    try:
        for text, _ in portion:
            made.Add(text)
        made.Add("")
        made.Compile()
    except re2.error:
        return None
    return made if len(portion) in (made.Match(b"/") or ()) else None
