"""Texts in the content of a file, ASCII and UTF-16LE, found while it streams by in chunks of any size.

A text is a run of four printable signs or more (a tab counts, a line end does not). However the content is cut into
chunks, the same texts are found. A longer run comes in pieces that overlap, so that what is looked for in it is whole
in one of them. Each text is kept once, and only so many signs in all: then `complete` is false. Of texts, one more is
kept than are judged: so the list itself says that what is not found in it is not known.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

SHORTEST: Final = 4
"""Signs of a text, at least."""
LONGEST: Final = 4096
"""Signs of a piece of a text."""
OVERLAP: Final = 1024
"""Signs that a piece has in common with the one before it."""
MOST: Final = 24 * 2**20
"""Signs that are kept of one file."""
MAX_TEXTS: Final = 100_001
"""Different texts that are kept of one file: what is asked of a list longer than 100,000 is found or not known."""

_OVERHEAD = 64
"""What a text costs beside its signs, in bytes."""
_STEP = LONGEST - OVERLAP
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t"
_SIGN = rb"[\x20-\x7e\t]"
_ASCII = re.compile(_SIGN * (SHORTEST - 1) + _SIGN + rb"+")
_WIDE = re.compile((_SIGN + rb"\x00") * (SHORTEST - 1) + rb"(?:" + _SIGN + rb"\x00)+")
"""Written so that they begin with one sign: then the search skips everything else fast, and takes half the time."""


class Strings:
    """Collects the texts of one file."""

    def __init__(self, *, most: int = MOST) -> None:
        self._left = most
        self._texts: dict[bytes, None] = {}
        self._narrow = self._wide = b""
        self.complete = True
        """False if there was more than could be kept: what is not among the texts may be there all the same."""

    @property
    def _full(self) -> bool:
        return len(self._texts) >= MAX_TEXTS

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        if self._full:
            return
        if self._left <= 0:
            self.complete = self.complete and not chunk
            return
        self._feed_narrow(chunk)
        self._feed_wide(chunk)

    def end(self) -> tuple[str, ...]:
        """All texts; nothing more comes."""
        self._add(self._narrow)
        self._add(self._wide[: len(self._wide) & ~1 : 2])
        self._narrow = self._wide = b""
        return tuple(one.decode("ascii") for one in self._texts)

    def _feed_narrow(self, chunk: bytes) -> None:
        data = self._narrow + chunk
        stem = len(data.rstrip(_PRINTABLE))
        for found in dict.fromkeys(_ASCII.findall(data, 0, stem)):
            self._add(found)
        self._narrow = self._shortened(data[stem:])

    def _feed_wide(self, chunk: bytes) -> None:
        data = self._wide + chunk
        if b"\0" not in data:  # as in any plain text: only its last sign may begin something
            self._wide = data[-1:].lstrip(b"\0")
            return
        stem = len(data) - _open_wide(data)
        for found in dict.fromkeys(_WIDE.findall(data, 0, stem)):
            self._add(found[::2])
        signs, odd = data[stem : len(data) - (len(data) - stem) % 2 : 2], data[len(data) - (len(data) - stem) % 2 :]
        kept = self._shortened(signs)
        self._wide = b"".join((*(bytes((one, 0)) for one in kept), odd))

    def _shortened(self, run: bytes) -> bytes:
        """What must be kept of a run that may go on; its whole pieces are added."""
        while len(run) > LONGEST:
            self._add(run[:LONGEST])
            run = run[_STEP:]
        return run

    def _add(self, run: bytes) -> None:
        if run in self._texts:
            return
        for piece in _pieces(run) if len(run) > LONGEST else (run,):
            if len(piece) < SHORTEST or piece in self._texts or self._full:
                continue
            if self._left <= 0:
                self.complete = False
                return
            self._left -= len(piece) + _OVERHEAD
            self._texts[piece] = None


def strings(chunks: Iterable[bytes], *, most: int = MOST) -> tuple[tuple[str, ...], bool]:
    """The texts in a content, each once; and whether these are all."""
    found = Strings(most=most)
    for chunk in chunks:
        found.feed(chunk)
    texts = found.end()
    return texts, found.complete


def _pieces(run: bytes) -> Iterator[bytes]:
    for begin in range(0, max(1, len(run) - OVERLAP), _STEP):
        yield run[begin : begin + LONGEST]


def _open_wide(data: bytes) -> int:
    """How many bytes at the end may belong to a text of UTF-16LE that goes on: pairs, and perhaps half of one."""
    half = 1 if data[-1:] and data[-1:] in _PRINTABLE else 0
    end = len(data) - half
    if end < 2 or data[end - 1]:  # noqa: PLR2004 - a sign has two bytes
        return half
    zeros, signs = data[end - 1 :: -2], data[end - 2 :: -2]
    pairs = min(len(zeros) - len(zeros.lstrip(b"\0")), len(signs) - len(signs.lstrip(_PRINTABLE)))
    return 2 * pairs + half
