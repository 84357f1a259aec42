"""Which preview suits which bytes: told by the first of them."""

from typing import Literal

Kind = Literal["text", "hex", "strings", "elf"]

ELF_MAGIC = b"\x7fELF"
MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
"""Byte order marks, and the encoding that each of them means."""
LOOKED_AT = 4096
"""First bytes that decide."""

_LONGEST_UTF8 = 4
_CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\r\x0b\x0c\x1b\x08")))
"""Control characters that texts do not have; logs do have escapes."""


def choose(first: bytes, *, from_start: bool = True) -> Kind:
    """The preview for evidence whose bytes begin so; for bytes from the middle of it, never its structure."""
    whole, first = len(first) < LOOKED_AT, first[:LOOKED_AT]
    if from_start and first.startswith(ELF_MAGIC):
        return "elf"
    if from_start and marked(first):
        return "text"
    return "text" if _is_text(first, from_start=from_start, whole=whole) else "hex"


def marked(first: bytes) -> tuple[bytes, str] | None:
    """The byte order mark at the start, and the encoding that it means."""
    return next(((mark, encoding) for mark, encoding in MARKS if first.startswith(mark)), None)


def _is_text(some: bytes, *, from_start: bool, whole: bool) -> bool:
    if some.translate(None, _CONTROLS) != some:
        return False
    try:
        utf8(some, cut_before=not from_start, cut_after=not whole)
    except UnicodeDecodeError:
        return False
    return True


def utf8(data: bytes, *, cut_before: bool, cut_after: bool) -> str:
    """Decoded, without a character that was cut at an edge; UnicodeDecodeError if it is something else."""
    if cut_before:
        data = data[_rest_of_one(data) :]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if not cut_after or error.reason != "unexpected end of data":
            raise
        return data[: error.start].decode("utf-8")


def _rest_of_one(data: bytes) -> int:
    """How many bytes at the start are the rest of a character."""
    continuation = 0b10
    some = data[:_LONGEST_UTF8]
    none = len(some) if len(some) < _LONGEST_UTF8 else 0  # so many are the rest of nothing
    return next((n for n, one in enumerate(some) if one >> 6 != continuation), none)
