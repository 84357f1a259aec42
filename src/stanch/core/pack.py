"""The bytes of a pack: a line of JSON that lists its files, then the files one after another.

The same files make the same bytes, whoever packs them. Whoever receives a pack believes nothing of it: `PackCheck`
follows the bytes as they come, holds no more than the first line in memory, and knows in the end that every file is
what the line says.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from pydantic import ValidationError

from stanch.core.action import invalid_fields
from stanch.core.content import MAX_FILE_BYTES, MAX_PACK_BYTES, ContentKind, PackFile, PackIndex
from stanch.core.errors import Invalid, TooLarge

MAX_LINE_BYTES = 8 * 2**20
"""Of the first line, its end included."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is in its pack."""

    file: PackFile
    start: int
    """Bytes before it."""

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.start + self.file.size


def index_of(kind: ContentKind, files: Iterable[PackFile]) -> PackIndex:
    """The index of these files, in the order of their names; Invalid or TooLarge if that is no pack."""
    ordered = sorted(files, key=lambda one: one.name)
    try:
        index = PackIndex(kind=kind, files=tuple(ordered))
    except ValidationError as error:
        raise invalid_fields("These files make no pack", error) from None
    _refuse_odd(index)
    first_line(index)
    return index


def first_line(index: PackIndex) -> bytes:
    """The line with which the pack begins; TooLarge."""
    line = index.model_dump_json().encode() + b"\n"
    if len(line) > MAX_LINE_BYTES or len(line) + _bytes_of(index) > MAX_PACK_BYTES:
        raise _too_large(f"{len(line) + _bytes_of(index)} bytes, {len(line)} of them the list of files")
    return line


def read_line(line: bytes) -> PackIndex:
    """The index that a first line says, with or without its end; Invalid or TooLarge if it says none."""
    if len(line) > MAX_LINE_BYTES:
        raise _too_large(f"a list of files of {len(line)} bytes")
    try:
        index = PackIndex.model_validate_json(line)
    except ValidationError as error:
        raise invalid_fields("The pack's list of files is wrong", error) from None
    _refuse_odd(index)
    return index


def places(index: PackIndex, line_bytes: int) -> Sequence[Place]:
    """Where each file is; `line_bytes`: of the first line, its end included."""
    starts = accumulate((one.size for one in index.files), initial=line_bytes)
    return [Place(file, start) for file, start in zip(index.files, starts, strict=False)]


class PackCheck:
    """Follows the bytes of a pack from the first to the last; Invalid or TooLarge at the first that is wrong."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._index: PackIndex | None = None
        self._files: Iterator[PackFile] = iter(())
        self._now: PackFile | None = None
        self._left = 0
        self._digest = hashlib.sha256()
        self.line_bytes = 0
        """Of the first line, its end included; 0 before it is known."""

    def feed(self, data: bytes) -> None:
        """The next of them."""
        rest = memoryview(data if self._index is not None else self._in_line(data))
        while rest:
            if self._now is None:
                raise Invalid(
                    "The pack is longer than its list of files says",
                    got=f"{len(rest)} bytes more",
                    expected="its end after the last file",
                )
            taken = rest[: self._left]
            self._digest.update(taken)
            self._left -= len(taken)
            rest = rest[len(taken) :]
            self._settle()

    def end(self) -> PackIndex:
        """There are no more; what is in it."""
        if self._index is None:
            raise Invalid(
                "The pack has no list of files",
                got=f"{len(self._line)} bytes without a line end",
                expected="a line of JSON, then the files",
                hint="`stanch content import` makes packs.",
            )
        if self._now is not None:
            raise Invalid(
                f"The pack ends too early, in {self._now.name}",
                got=f"{self._now.size - self._left} bytes of it",
                expected=f"{self._now.size} bytes",
            )
        return self._index

    def _in_line(self, data: bytes) -> bytes:
        """Take what belongs to the first line; what is behind it."""
        piece, found, rest = data.partition(b"\n")
        self._line += piece
        if len(self._line) >= MAX_LINE_BYTES:
            raise _too_large(f"a list of files of over {len(self._line)} bytes")
        if not found:
            return b""
        self.line_bytes = len(self._line) + 1
        self._index = read_line(bytes(self._line))
        self._line.clear()
        self._files = iter(self._index.files)
        self._next()
        return rest

    def _settle(self) -> None:
        """Compare each file that has come to its end, empty ones too, and go on to the next."""
        while self._now is not None and self._left == 0:
            if self._digest.hexdigest() != self._now.sha256:
                raise Invalid(
                    f"{self._now.name} is not what the pack's list says",
                    got=f"SHA-256 {self._digest.hexdigest()}",
                    expected=f"SHA-256 {self._now.sha256}",
                )
            self._step()

    def _next(self) -> None:
        self._step()
        self._settle()

    def _step(self) -> None:
        self._now = next(self._files, None)
        self._left = self._now.size if self._now is not None else 0
        self._digest = hashlib.sha256()


def _bytes_of(index: PackIndex) -> int:
    return sum(one.size for one in index.files)


def _refuse_odd(index: PackIndex) -> None:
    """Invalid or TooLarge for what no pack may be, though its fields are right."""
    names = [one.name for one in index.files]
    if names != sorted(set(names)):
        raise Invalid(
            "The files of a pack are listed once each, in the order of their names",
            got=_first_odd(names),
            expected="the list as `stanch content import` makes it",
        )
    for one in index.files:
        refuse_large_file(index.kind, one.name, one.size)
    if _bytes_of(index) > MAX_PACK_BYTES:
        raise _too_large(f"{_bytes_of(index)} bytes of files")


def refuse_large_file(kind: ContentKind, name: str, size: int) -> None:
    """TooLarge if a file has more bytes than one of its kind may have."""
    most = MAX_FILE_BYTES.get(kind, MAX_PACK_BYTES)
    if size > most:
        hint = "Split it into several files." if kind is ContentKind.HASHES else None
        raise TooLarge(
            f"{name} is too large", got=f"{size} bytes", expected=f"at most {most} bytes of {kind}", hint=hint
        )


def _first_odd(names: Sequence[str]) -> str:
    return next((after for before, after in pairwise(names) if before >= after), "")


def _too_large(got: str) -> TooLarge:
    return TooLarge(
        "The pack is too large",
        got=got,
        expected=f"at most {MAX_PACK_BYTES} bytes, {MAX_LINE_BYTES} of them the list of files",
        hint="Make several contents of it.",
    )
