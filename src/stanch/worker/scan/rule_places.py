"""The places where strings of rules match, without the memory that they may take.

The engine makes a Python object of some 350 bytes of each place of each string of a rule that holds, and asks nobody
whether there is memory for it: a file that has ten strings of a rule nearly a million times each kills the worker. Of
strings that are *private* it makes none, and they match all the same. So everything is searched with strings that were
made private; only where a rule holds, and `probe` shows that there are few places, it is asked again with its own text.
Otherwise `firsts` tells one place of each string.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from stanch.worker.scan.rule_text import Statement, plain, statements

MAX_PLACES: Final = 2**18
"""Places of all strings of what was found in one content: some 90 MB."""

_STRINGS: Final = re.compile(r"strings(?<!\wstrings)\s*:")  # to look behind at each place would take much longer
_CONDITION: Final = re.compile(r"condition(?<!\wcondition)\s*:")
_DECLARED: Final = re.compile(r"\$\w*\s*=")
_PRIVATE: Final = re.compile(r"private(?<!\wprivate)\b")


@dataclass(frozen=True, slots=True)
class _Strings:
    """The strings of a rule: where each of them begins in the text, and where the last one ends."""

    rule: str
    begins: tuple[int, ...]
    end: int

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each begins and ends."""
        yield from zip(self.begins, (*self.begins[1:], self.end), strict=True)


def hidden(text: str) -> str:
    """The same rules, with all their strings private; lines keep their numbers."""
    bare = plain(text)
    pieces, at = list[str](), 0
    for one in _all_strings(bare):
        for begin, end in one.spans():
            if not _PRIVATE.search(bare, begin, end):
                pieces += (text[at:end], " private ")
                at = end
    return "".join((*pieces, text[at:]))


def probe(text: str, names: Collection[str]) -> str:
    """Rules of which each holds if a string of one of the named rules is there too often; empty if they have none."""
    shown = hidden(text)
    found = [one for one in _all_strings(plain(shown)) if one.rule in names]
    most = MAX_PLACES // max(1, sum(len(one.begins) for one in found))
    return "\n".join(
        f"rule probe_{n} {{ strings: {shown[one.begins[0] : one.end]}\n condition: for any of them : ( # > {most} ) }}"
        for n, one in enumerate(found)
    )


def firsts(text: str, names: Collection[str]) -> str:
    """Rules of the same names that find any of their strings; in fast mode, one place of each. Empty for none."""
    bare = plain(text)
    return "\n".join(_first(text, bare, one) for one in _all_strings(bare) if one.rule in names)


def _first(text: str, bare: str, found: _Strings) -> str:
    """Each string by its name: of what is asked as one `of them`, the engine notes every place."""
    declared = [(_named(bare, begin, n), text[begin:end]) for n, (begin, end) in enumerate(found.spans())]
    strings = "".join(name + one.partition("=")[1] + one.partition("=")[2] for name, one in declared)
    return f"rule {found.rule} {{ strings: {strings}\n condition: {' or '.join(name for name, _ in declared)} }}"


def _named(bare: str, begin: int, number: int) -> str:
    """The name of a string; those without one need one here."""
    own = bare[begin : bare.index("=", begin)].strip()
    return own if own != "$" else f"$_{number}"


def _all_strings(bare: str) -> Iterator[_Strings]:
    for statement in statements(bare):
        if statement.word == "rule" and (found := _strings(bare, statement)) is not None:
            yield found


def _strings(bare: str, rule: Statement) -> _Strings | None:
    head = _STRINGS.search(bare, rule.begin, rule.end)
    tail = _CONDITION.search(bare, head.end(), rule.end) if head is not None else None
    if head is None or tail is None:
        return None
    begins = tuple(one.start() for one in _DECLARED.finditer(bare, head.end(), tail.start()))
    return _Strings(rule.name, begins, tail.start()) if begins else None
