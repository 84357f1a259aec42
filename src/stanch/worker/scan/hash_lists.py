"""Lists of hashes of known files: read from bytes of any origin, and asked for each file that a scan reads.

One hash in each line, MD5, SHA-1 or SHA-256 in hex, then optionally a name; `sha256sum` lines (both styles), CSV with
and without a header, and ClamAV's `hash:size:name` are understood, too. `#` begins a comment.

A million hashes have to fit beside everything else that a scan holds, and Python's sets would take four times their
bytes. So each hash is a record of its own bytes and four more, which say where its name is; records lie sorted in 256
pieces by their first byte, and are found by bisection.
"""

import io
import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

WIDTHS: Final[Mapping[str, int]] = {"sha256": 32, "sha1": 20, "md5": 16}
"""Kind to its bytes, the strongest first."""

MAX_HASHES: Final = 3_000_000
"""Of all lists together."""
MAX_LINE: Final = 8192
"""Bytes."""
MAX_PROBLEMS: Final = 100
"""Lines of one list that are named; the others are counted."""
MAX_WRONG: Final = 100_000
"""Lines without a hash after which the rest of a list is not read: it is none."""
MAX_NAME: Final = 200
"""Bytes of one."""
MAX_NAMES: Final = 32 * 2**20
"""Bytes of all names; hashes that come later are known by their list only."""
MAX_HITS: Final = 20
"""Lists that are told of one file."""

_KINDS: Final = {width * 2: kind for kind, width in WIDTHS.items()}
_REF: Final = 4
_FIRST: Final = re.compile(rb"[\s\"'\\*]*([0-9A-Fa-f]{64}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{32})(?![0-9A-Za-z])[\s\"'*]*")
_WHOLE: Final = re.compile(rb"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{32}")
_BSD: Final = re.compile(rb"(?:MD5|SHA1|SHA256|SHA2-256) ?\((.+)\) ?= ?([0-9A-Fa-f]{32,64})\s*", re.IGNORECASE)
_CELLS: Final = re.compile(rb"[,;|\t]")
_CELLS_AND_COLONS: Final = re.compile(rb"[,;|\t:]")
_HEADER: Final = re.compile(
    rb"(?:md5|sha-?1|sha-?256|hash(?:es)?|value|indicator|ioc|checksum)(?:_?(?:hash|sum|value))?", re.IGNORECASE
)
_NAME_COLUMNS: Final = (
    b"signature",
    b"malware",
    b"threat",
    b"name",
    b"family",
    b"description",
    b"file_name",
    b"filename",
)
_NO_NAME: Final = re.compile(rb"[\d.*\-/]*|n/?a|null|none", re.IGNORECASE)
_MARKS: Final = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_OF_NOTHING: Final = frozenset(
    bytes.fromhex(one)
    for one in (
        "d41d8cd98f00b204e9800998ecf8427e",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    )
)
"""Of no bytes at all. Lists have them by mistake, and every machine has thousands of empty files."""


class Problem(NamedTuple):
    """A line that does not count."""

    line: int
    """From 1; 0 for what concerns the whole list."""
    text: str


class Hit(NamedTuple):
    """A list has the file."""

    kind: str
    """Of the hash: the strongest by which it is listed."""
    digest: str
    """Hexadecimal."""
    list: str
    """What was given to `add` as its name."""
    name: str
    """What the list says of the file; empty if it says nothing."""


@dataclass
class _Problems:
    """The first of them, and how many there are."""

    named: list[Problem] = field(default_factory=list)
    more: int = 0

    @property
    def full(self) -> bool:
        """Are more of them only counted?"""
        return len(self.named) >= MAX_PROBLEMS

    def add(self, line: int, text: str) -> None:
        """One more."""
        if self.full:
            self.more += 1
        else:
            self.named.append(Problem(line, text))

    @property
    def too_many(self) -> bool:
        """Is this no list of hashes?"""
        return self.more >= MAX_WRONG

    def told(self) -> tuple[Problem, ...]:
        """All that is told of them."""
        end = ", and the rest is not read" if self.too_many else ""
        rest = (Problem(0, f"{self.more} more lines do not count{end}"),) if self.more else ()
        return (*self.named, *rest)


class _Row(NamedTuple):
    """What a line says."""

    hashes: Sequence[bytes]
    """Hexadecimal."""
    name: bytes = b""


class HashLists:
    """All lists of one scan. Add them, then ask; several threads may ask at the same time."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[bytearray]] = {}
        self._names = bytearray(1)  # no record refers to 0, so that it can mean "not put down yet"
        self._lists: list[str] = []
        self._count = 0
        self._sorted = True
        self._sorting = threading.Lock()

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of hashes that have to be taken of files: some of md5, sha1 and sha256."""
        return frozenset(self._pieces)

    def __len__(self) -> int:
        """Hashes of all lists; one that several lists have counts for each."""
        return self._count

    def add(self, name: str, data: bytes) -> tuple[int, tuple[Problem, ...]]:
        """One list; how many hashes of it count, each once, and what does not."""
        self._lists.append(name)
        problems, new = _Problems(), _NewList(self._names, len(self._lists) - 1, MAX_HASHES - self._count)
        for number, row in _rows(data, problems):
            for one in row.hashes:
                if not new.put(one, row.name):
                    problems.add(number, "the hash of a file without content: it would find every empty file")
            if new.full:
                problems.add(
                    number, f"only {MAX_HASHES} hashes are held at once; this one and all behind it are left out"
                )
                break
        count = self._take(new)
        if not count and not problems.named:
            problems.add(0, "there is no hash in it")
        return count, problems.told()

    def find(self, digests: Mapping[str, str]) -> tuple[Hit, ...]:
        """Lists that have a file with these hashes: kind to hexadecimal digest. One hit for each list."""
        if not self._sorted:
            self._sort()
        hits: dict[int, Hit] = {}
        for kind, width in WIDTHS.items():
            if kind in digests and kind in self._pieces:
                digest = bytes.fromhex(digests[kind])
                for ref in _refs(self._pieces[kind][digest[0]], digest, width):
                    number, name = self._named(ref)
                    hits.setdefault(number, Hit(kind, digests[kind].lower(), self._lists[number], name))
        return tuple(hits.values())[:MAX_HITS]

    def _take(self, new: "_NewList") -> int:
        """Put the records of one list beside those of the others; how many there were."""
        count = 0
        for kind, pieces in new.pieces.items():
            here = self._pieces.setdefault(kind, [bytearray() for _ in range(256)])
            for number, piece in enumerate(pieces):
                records = _sorted_once(piece, WIDTHS[kind])
                count += len(records)
                here[number] += b"".join(records)
        self._count += count
        self._sorted = False
        return count

    def _sort(self) -> None:
        with self._sorting:
            for kind, pieces in () if self._sorted else self._pieces.items():
                for number, piece in enumerate(pieces):
                    pieces[number] = bytearray().join(sorted(_records(piece, WIDTHS[kind])))
            self._sorted = True

    def _named(self, ref: int) -> tuple[int, str]:
        """The list of a record, and the name."""
        number, length = int.from_bytes(self._names[ref : ref + _REF]), self._names[ref + _REF]
        begin = ref + _REF + 1
        return number, self._names[begin : begin + length].decode("utf-8", "replace")


class _NewList:
    """The records of one list, while it is read."""

    def __init__(self, names: bytearray, number: int, room: int) -> None:
        self.pieces: dict[str, list[bytearray]] = {}
        self._names = names
        self._number = number
        self._room = room
        self._last = b""
        self._last_ref = self._unnamed = self._put_name(b"")

    @property
    def full(self) -> bool:
        """Is there no room for another one?"""
        return self._room <= 0

    def put(self, hexadecimal: bytes, name: bytes) -> bool:
        """One hash; False if it is that of nothing."""
        digest = bytes.fromhex(hexadecimal.decode())
        if digest in _OF_NOTHING:
            return False
        kind = _KINDS[len(hexadecimal)]
        if kind not in self.pieces:
            self.pieces[kind] = [bytearray() for _ in range(256)]
        self.pieces[kind][digest[0]] += digest + self._ref(name).to_bytes(_REF)
        self._room -= 1
        return True

    def _ref(self, name: bytes) -> int:
        if not name:
            return self._unnamed
        if name != self._last:  # lists name many hashes in a row alike
            self._last = name
            self._last_ref = self._put_name(name) if len(self._names) < MAX_NAMES else self._unnamed
        return self._last_ref

    def _put_name(self, name: bytes) -> int:
        ref, cut = len(self._names), name[:MAX_NAME]
        self._names += self._number.to_bytes(_REF) + bytes([len(cut)]) + cut
        return ref


def _records(piece: bytearray, width: int) -> Iterator[bytes]:
    size = width + _REF
    return (bytes(piece[at : at + size]) for at in range(0, len(piece), size))


def _sorted_once(piece: bytearray, width: int) -> list[bytes]:
    """Records in order; of those with the same hash only the first by where its name is."""
    kept: list[bytes] = []
    for one in sorted(_records(piece, width)):
        if not kept or kept[-1][:width] != one[:width]:
            kept.append(one)
    return kept


def _refs(piece: bytearray, digest: bytes, width: int) -> Iterator[int]:
    """What the records of this hash refer to."""
    size = width + _REF
    count = len(piece) // size
    at = bisect_left(range(count), digest, key=lambda n: bytes(piece[n * size : n * size + width]))
    while at < count and piece[at * size : at * size + width] == digest:
        yield int.from_bytes(piece[at * size + width : (at + 1) * size])
        at += 1


# --- lines -----------------------------------------------------------------------------------------------------------


def _rows(data: bytes, problems: _Problems) -> Iterator[tuple[int, _Row]]:
    """What the lines say that say anything, with their numbers."""
    name_column, begun = -1, False
    for number, raw in enumerate(io.BytesIO(_plain(data)), 1):
        line = raw.strip()
        if not line or line.startswith((b"#", b"//")):
            continue
        row = _row(line, name_column) if len(line) <= MAX_LINE else None
        if row is not None:
            yield number, row
        elif not begun and _is_header(line):
            name_column = _name_column(line)
        else:
            problems.add(number, "" if problems.full else _what_is_wrong(line))
            if problems.too_many:
                return
        begun = True


def _plain(data: bytes) -> bytes:
    """In UTF-8 or the like, with line feeds."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if encoding is not None:
        data = data.decode(encoding, "replace").encode()
    if b"\r" in data and b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    return data


def _row(line: bytes, name_column: int) -> _Row | None:
    """The hashes of a line, and the name; None if there is no hash where one belongs."""
    first = _FIRST.match(line)
    if first is not None:
        rest = line[first.end() :]
        if not rest or not _CELLS_AND_COLONS.search(rest):
            return _Row((first[1],), _clean(rest))
        if rest[:1] == b":":
            return _Row((first[1],), _first_name(_CELLS_AND_COLONS.split(rest)))
        if not _CELLS.search(rest):
            return _Row((first[1],), _clean(rest))
    elif found := _BSD.fullmatch(line):
        return _Row((found[2],), _clean(found[1])) if len(found[2]) in _KINDS else None
    return _of_cells([one.strip(b" \"'") for one in _CELLS.split(line)[:64]], name_column)


def _of_cells(cells: Sequence[bytes], name_column: int) -> _Row | None:
    where = [number for number, cell in enumerate(cells) if _WHOLE.fullmatch(cell)]
    if not where:
        first = _FIRST.match(cells[0])  # `HASH name, more of the name`
        return _Row((first[1],), _clean(cells[0][first.end() :])) if first else None
    if 0 <= name_column < len(cells) and name_column not in where:
        name = _clean(cells[name_column])
    else:
        name = _first_name([cell for number, cell in enumerate(cells) if number not in where and number > where[0]])
    return _Row([cells[number] for number in where], name)


def _first_name(cells: Sequence[bytes]) -> bytes:
    """The first cell that says more than a number."""
    return next((_clean(one) for one in cells if not _NO_NAME.fullmatch(one.strip(b" \"'"))), b"")


def _clean(name: bytes) -> bytes:
    """A name without comment, quotes and blanks."""
    return (b" " + name).partition(b" #")[0].strip(b" \t\"'*")


def _is_header(line: bytes) -> bool:
    return any(_HEADER.fullmatch(cell.strip(b" \"'")) for cell in _CELLS.split(line)[:64])


def _name_column(line: bytes) -> int:
    """Which cell names the malware; -1 if the header does not say."""
    cells = [one.strip(b" \"'").lower() for one in _CELLS.split(line)[:64]]
    return next((cells.index(one) for one in _NAME_COLUMNS if one in cells), -1)


def _what_is_wrong(line: bytes) -> str:
    if len(line) > MAX_LINE:
        return f"the line has more than {MAX_LINE} bytes"
    shown = line[:60].decode("utf-8", "replace")
    word = re.match(rb"[\s\"'\\*]*([0-9A-Fa-f]+)(?![0-9A-Za-z])", line)
    if word is not None and len(word[1]) >= 16:  # noqa: PLR2004 - shorter ones are numbers and words
        return f"{len(word[1])} hexadecimal digits are no hash: 32, 40 or 64 are ({shown})"
    return f"no MD5, SHA-1 or SHA-256 hash: {shown}"
