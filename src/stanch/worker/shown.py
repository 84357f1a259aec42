"""Bytes as text, as numbers, and the strings in them; whatever they are, nothing that comes out moves a terminal."""

import re
import unicodedata
from collections.abc import Mapping
from heapq import merge
from itertools import islice, repeat
from operator import itemgetter
from typing import Any

from stanch.worker.kinds import marked, utf8

Rendered = Mapping[str, object]
"""What `core.rest_evidence` has a model for."""

MAX_STRINGS = 5000
LONGEST_STRING = 200

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, format and direction marks, surrogates, unassigned, line and paragraph separators."""

_ASCII = re.compile(rb"[\x20-\x7e\t]{4,}")
_WIDE = re.compile(rb"(?:[\x20-\x7e\t]\x00){4,}")
_DOTS = bytes(code if 0x20 <= code <= 0x7E else ord(".") for code in range(256))  # noqa: PLR2004 - printable ASCII


def text(data: bytes, *, offset: int, first: bytes, more: bool) -> Rendered:
    """As text: in the encoding that the mark in the `first` bytes of all tells, in UTF-8, else a byte a character.

    `more` follows after these bytes: then the last character may be cut.
    """
    mark = marked(first)
    if mark is not None and mark[1] != "utf-8":
        shown = data[len(mark[0]) :] if offset == 0 else data[offset % 2 :]
        return _text(mark[1], shown.decode(mark[1], "replace"))
    try:
        decoded = utf8(data, cut_before=offset > 0, cut_after=more)
    except UnicodeDecodeError:
        return _text("latin-1", data.decode("latin-1"), guessed=True)
    return _text("utf-8", decoded.removeprefix("\ufeff") if offset == 0 else decoded)


def _text(encoding: str, decoded: str, *, guessed: bool = False) -> Rendered:
    return {"encoding": encoding, "guessed": guessed, "text": harmless(decoded)}


def harmless(text: str) -> str:
    r"""The text with line breaks and tabs as they are, and `\x1b` for an escape and so on."""
    return "".join(map(_shown, text.replace("\r\n", "\n")))


def _shown(character: str) -> str:
    if " " <= character <= "~" or character in "\n\t":
        return character
    if unicodedata.category(character) not in _HARMFUL:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the three escapes of Python


def hexadecimal(data: bytes) -> Rendered:
    """As numbers, with the printable ones beside."""
    return {"data": data.hex(), "ascii": data.translate(_DOTS).decode("ascii")}


def strings(data: bytes, *, offset: int) -> Rendered:
    """At least four printable characters in a row, in ASCII and UTF-16; where they are counts from `offset`."""
    narrow, wide = map(_string, _ASCII.finditer(data), repeat(1)), map(_string, _WIDE.finditer(data), repeat(2))
    found = list(islice(merge(narrow, wide, key=itemgetter("offset")), MAX_STRINGS + 1))
    return {
        "strings": [{**one, "offset": offset + one["offset"]} for one in found[:MAX_STRINGS]],
        "more": len(found) > MAX_STRINGS,
    }


def _string(match: re.Match[bytes], step: int) -> dict[str, Any]:
    """One of them, with `step` bytes for each character."""
    characters = match.string[match.start() : match.end() : step].replace(b"\t", b" ")
    return {
        "offset": match.start(),
        "encoding": "ascii" if step == 1 else "utf-16-le",
        "text": characters[:LONGEST_STRING].decode("ascii"),
        "cut": len(characters) > LONGEST_STRING,
    }
