"""Leave out rules that cannot hold for a file that begins as it does, so that nobody pays for them.

Most public rules begin `uint16(0) == 0x5A4D and ...` (a Windows program) or `uint32(0) == 0x464C457F and ...` (ELF):
for other files the first part is false, and so is the whole, whatever follows. Without them fewer strings are looked
for, and modules need not take each file apart. What is left out is only what surely cannot matter: a rule whose
condition begins with such a part and joins all others to it by `and`; never one that is global, nor any of a file in
which rules are counted by a pattern of their names. Other rules that name one that is left out no longer compile: then
all of that file stays (see `rules`).
"""

import re
from typing import Final

from stanch.worker.scan.rule_text import Statement, plain, statements

CLASSES: Final = ("pe", "elf", "other")
_MAGIC: Final = {"pe": b"MZ", "elf": b"\x7fELF"}
_GUARD: Final = re.compile(r"uint(16|32)(be)?\s*\(\s*0\s*\)\s*==\s*(0x[0-9a-fA-F]+|\d+)\s*(?:and\b|\}|\Z)")
_CONDITION: Final = re.compile(r"condition(?<!\wcondition)\s*:\s*")
_OR: Final = re.compile(r"[()]|\bor\b")
_STARRED: Final = re.compile(r"\*(?<=\w\*)")
_NAME: Final = re.compile(r"(?<![\w$#@!*])[A-Za-z_]\w*\Z")
_GLOBAL: Final = re.compile(r"global(?<!\wglobal)\b")
_LONGEST: Final = 256
"""Characters of a name, and more."""
_IMPORT: Final = re.compile(r'import\s*"(\w+)"')


def class_of(first: bytes) -> str:
    """Which of the classes a file is in that begins so (four bytes are enough)."""
    return next((name for name, magic in _MAGIC.items() if first.startswith(magic)), "other")


class Narrowing:
    """A file of rules, understood as far as it takes to leave some of them out."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bare = plain(text)
        fixed = _counts_by_name(self._bare) or _GLOBAL.search(self._bare)
        self._found = [] if fixed else statements(self._bare)
        self._magic = [self._magic_of(one) for one in self._found]

    def text_for(self, class_: str) -> str:
        """The rules that can hold for files of a class; the text itself if all of them can, empty if none."""
        kept = [
            one for one, magic in zip(self._found, self._magic, strict=True) if magic is None or _fits(magic, class_)
        ]
        if len(kept) == len(self._found):
            return self._text
        if not any(one.word == "rule" for one in kept):
            return ""
        bare = "".join(self._bare[one.begin : one.end] for one in kept)
        return "".join(self._text[one.begin : one.end] for one in kept if not self._is_idle(one, bare))

    def _magic_of(self, one: Statement) -> bytes | None:
        """The bytes that a file must begin with for this rule; None if that is not sure, or not so."""
        condition = _CONDITION.search(self._bare, one.begin, one.end) if one.word == "rule" else None
        guard = None if condition is None else _GUARD.match(self._bare, condition.end(), one.end)
        if condition is None or guard is None or _has_or(self._bare[condition.end() : one.end]):
            return None
        size, value = int(guard[1]) // 8, int(guard[3], 0)
        if value >> (8 * size):
            return None  # what the engine makes of that is not ours to guess
        return value.to_bytes(size, "big" if guard[2] else "little")

    def _is_idle(self, one: Statement, bare: str) -> bool:
        """Is it a module that nothing asks? It would take every file apart all the same."""
        module = _IMPORT.match(self._text, one.begin, one.end) if one.word == "import" else None
        return module is not None and not re.search(rf"\b{module[1]}\s*\.", bare)


def _fits(magic: bytes, class_: str) -> bool:
    """Can a file of the class begin with these bytes?"""
    mine = _MAGIC.get(class_)
    if mine is not None:
        length = min(len(mine), len(magic))
        return mine[:length] == magic[:length]
    return not any(magic.startswith(other) for other in _MAGIC.values())


def _counts_by_name(bare: str) -> bool:
    """Is there a pattern of names of rules, as in `2 of (name*)`?"""
    stars = (found.start() for found in _STARRED.finditer(bare))
    return any(_NAME.search(bare[max(0, star - _LONGEST) : star]) for star in stars)


def _has_or(condition: str) -> bool:
    """Is there an `or` outside of all brackets? Also if the brackets do not fit."""
    depth = 0
    for found in _OR.finditer(condition):
        if found[0] == "(":
            depth += 1
        elif found[0] == ")":
            depth -= 1
        elif depth <= 0:
            return True
    return depth != 0
