"""Facts of a program (ELF) for indicators, read by its descriptor: few and small reads, each within a bound.

For previews, `worker/elf.py` tells more, and takes a hundred times as long. All in the file is the attacker's: every
offset and count is bounded, what is damaged is left out, and hides nothing else. Nothing is raised.
"""

import os
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from stanch.core.ioc.items import CUT, Value

MAX_HEADERS: Final = 1024
"""Segments, and sections, that are looked at."""
MAX_NAMES: Final = 4 * 2**20
"""Bytes of the names of sections, or of symbols."""
MAX_SYMBOLS: Final = 50_000
"""Symbols of the loader that are looked at."""
MAX_LIBRARIES: Final = 500
MAX_TAGS: Final = 5000
MAX_NOTE: Final = 65_536
LONGEST: Final = 500
"""Bytes of a name."""

PREFIX: Final = "ELFInfo/"
_MAGIC: Final = b"\x7fELF"
_HEADER_SIZE: Final = 64
_LOAD, _DYNAMIC, _INTERP, _NOTE = 1, 2, 3, 4
_DYNSYM, _NOBITS = 11, 8
_NEEDED, _STRTAB, _SYMTAB, _STRSZ = 1, 5, 6, 10
_TYPES: Final = {1: "Relocatable", 2: "Executable", 3: "Shared", 4: "Core"}
_MACHINES: Final = dict(
    (
        *((2, "SPARC"), (3, "x86"), (4, "m68k"), (8, "MIPS"), (20, "PowerPC"), (21, "PowerPC64"), (22, "S390")),
        *((40, "ARM"), (42, "SuperH"), (43, "SPARC64"), (50, "IA-64"), (62, "x86-64"), (183, "AArch64")),
        *((243, "RISC-V"), (247, "BPF"), (258, "LoongArch")),
    )
)
_DAMAGED: Final = (struct.error, ValueError, OverflowError, OSError, IndexError)


class Damaged(ValueError):
    """What the file says of itself cannot be."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header."""

    type: int
    offset: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section header."""

    name: int
    type: int
    offset: int
    size: int
    link: int


class Program:
    """An ELF file, read as it is asked."""

    def __init__(self, fd: int, head: bytes) -> None:
        self._fd = fd
        self._wide = head[4] == 2  # noqa: PLR2004 - ELFCLASS64
        self._order = ">" if head[5] == 2 else "<"  # noqa: PLR2004 - ELFDATA2MSB
        layout = "HHIQQQIHHHHHH" if self._wide else "HHIIIIIHHHHHH"
        fields = struct.unpack_from(self._order + layout, head, 16)
        self.type, self.machine = fields[0], fields[1]
        self._segments_at, self._sections_at = fields[4], fields[5]
        self._segment_size, self._segment_count = fields[8], fields[9]
        self._section_size, self._section_count, self._names_in = fields[10], fields[11], fields[12]

    # --- what is asked ---

    def type_name(self) -> list[str]:
        """Its kind in a word; the number where there is none."""
        return [_TYPES.get(self.type, str(self.type))]

    def machine_name(self) -> list[str]:
        """Its processors in a word; the number where there is none."""
        return [_MACHINES.get(self.machine, str(self.machine))]

    def interpreter(self) -> list[str]:
        """The loader that it names."""
        found = self._segment(_INTERP)
        return [] if found is None else [_text(self._read(found.offset, min(found.size, LONGEST)), 0)]

    def build_id(self) -> list[str]:
        """The id of its build, in hexadecimal digits."""
        for one in self._segments:
            if one.type == _NOTE:
                for name, kind, content in self._notes(self._read(one.offset, min(one.size, MAX_NOTE))):
                    if kind == 3 and name == b"GNU\0":  # noqa: PLR2004 - NT_GNU_BUILD_ID
                        return [content[:64].hex()]
        self._check_segments()
        return []

    def libraries(self) -> list[str | float]:
        """What it needs."""
        offsets = [value for tag, value in self._tags if tag == _NEEDED]
        names = self._dynamic_names if offsets else b""
        whole = len(offsets) <= MAX_LIBRARIES and len(self._tags) < MAX_TAGS
        return _named((_text(names, one) for one in offsets[:MAX_LIBRARIES]), whole=whole)

    def sections(self) -> list[str | float]:
        """The names of its sections; the first has none."""
        if not self._sections:
            if self._sections_at:  # more than this field can hold: nobody needs so many, but to hide some
                raise Damaged("an odd number of sections")
            return []
        if self._names_in >= len(self._sections):
            raise Damaged("no names of sections")
        names = self._of(self._sections[self._names_in])
        return _named((_text(names, one.name) for one in self._sections), whole=self._section_count <= MAX_HEADERS)

    def imports(self) -> list[str | float]:
        """Symbols that others must have."""
        return _named((name for name, section in self._symbols if section == 0), whole=self._has_all_symbols)

    def exports(self) -> list[str | float]:
        """Symbols that others may use."""
        return _named((name for name, section in self._symbols if section), whole=self._has_all_symbols)

    @property
    def _has_all_symbols(self) -> bool:
        return len(self._symbols) < MAX_SYMBOLS

    # --- its parts ---

    def _read(self, offset: int, size: int) -> bytes:
        if offset >= 2**62:  # no file is so long, and pread takes no more
            raise Damaged("an offset behind every end")
        return os.pread(self._fd, size, offset) if size > 0 else b""

    def _table(self, offset: int, entry: int, count: int, layout: str) -> Iterator[tuple[int, ...]]:
        form = struct.Struct(self._order + layout)
        if not count or not offset:
            return
        if not form.size <= entry <= 4 * form.size:
            raise Damaged("entries of an odd size")
        data = self._read(offset, entry * min(count, MAX_HEADERS))
        for begin in range(0, len(data) - form.size + 1, entry):
            yield form.unpack_from(data, begin)

    @cached_property
    def _segments(self) -> list[Segment]:
        layout, order = ("IIQQQQQQ", (0, 2, 3, 5)) if self._wide else ("IIIIIIII", (0, 1, 2, 4))
        rows = self._table(self._segments_at, self._segment_size, self._segment_count, layout)
        return [Segment(*(row[n] for n in order)) for row in rows]

    def _segment(self, kind: int) -> Segment | None:
        """The first of a kind; None if it surely has none."""
        found = next((one for one in self._segments if one.type == kind), None)
        if found is None:
            self._check_segments()
        return found

    def _check_segments(self) -> None:
        """Damaged if there are more than were looked at."""
        if self._segment_count > MAX_HEADERS:
            raise Damaged("too many segments")

    @cached_property
    def _sections(self) -> list[Section]:
        layout = "IIQQQQIIQQ" if self._wide else "IIIIIIIIII"
        rows = self._table(self._sections_at, self._section_size, self._section_count, layout)
        return [Section(row[0], row[1], row[4], row[5], row[6]) for row in rows]

    @cached_property
    def _tags(self) -> list[tuple[int, int]]:
        """What it tells the loader, up to the end mark."""
        found = self._segment(_DYNAMIC)
        if found is None:
            return []
        form = struct.Struct(self._order + ("QQ" if self._wide else "II"))
        data = self._read(found.offset, min(found.size, MAX_TAGS * form.size))
        rows = form.iter_unpack(data[: len(data) - len(data) % form.size])
        tags = list[tuple[int, int]]()
        for tag, value in rows:
            if tag == 0:
                break
            tags.append((tag, value))
        return tags

    def _tag(self, wanted: int) -> int | None:
        return next((value for tag, value in self._tags if tag == wanted), None)

    def _offset(self, address: int) -> int:
        """Where in the file stands what the loader puts at an address."""
        for one in self._segments:
            if one.type == _LOAD and one.address <= address < one.address + one.size:
                return one.offset + address - one.address
        raise Damaged("an address that is not in the file")

    @cached_property
    def _dynamic_names(self) -> bytes:
        address, size = self._tag(_STRTAB), self._tag(_STRSZ)
        if address is None:
            raise Damaged("no names")
        return self._read(self._offset(address), min(MAX_NAMES if size is None else size, MAX_NAMES))

    def _of(self, section: Section) -> bytes:
        return b"" if section.type == _NOBITS else self._read(section.offset, min(section.size, MAX_NAMES))

    def _notes(self, data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        at, form = 0, struct.Struct(self._order + "III")
        while at + form.size <= len(data):
            names, size, kind = form.unpack_from(data, at)
            begin = at + form.size + _aligned(names)
            yield data[at + form.size : at + form.size + names], kind, data[begin : begin + size]
            at = begin + _aligned(size)

    # --- symbols ---

    @cached_property
    def _symbols(self) -> list[tuple[str, int]]:
        """Names and sections (0: to be found elsewhere) of what the loader joins."""
        table, names = self._symbol_tables()
        form = struct.Struct(self._order + ("IBBHQQ" if self._wide else "IIIBBH"))
        section = 3 if self._wide else 5
        rows = form.iter_unpack(table[: len(table) - len(table) % form.size])
        return [(_text(names, row[0]), row[section]) for row in rows]

    def _symbol_tables(self) -> tuple[bytes, bytes]:
        """As the loader finds them, which must be right; by the sections (which may be gone or lie) if it has none."""
        size = 24 if self._wide else 16
        section = next((one for one in self._sections_or_none() if one.type == _DYNSYM), None)
        begin, names = self._tag(_SYMTAB), self._tag(_STRTAB)
        if begin is not None and names is not None and begin < names:
            at = self._offset(begin)
            # How many there are, nobody tells the loader. Linkers put their names right behind them; what moves the
            # names later (patchelf) leaves the section, which then says it.
            there = section.size if section is not None and section.offset == at else names - begin
            return self._read(at, min(there // size, MAX_SYMBOLS) * size), self._dynamic_names
        if section is None or section.link >= len(self._sections):
            return b"", b""
        return self._read(section.offset, min(section.size, MAX_SYMBOLS * size)), self._of(self._sections[section.link])

    def _sections_or_none(self) -> Sequence[Section]:
        try:
            return self._sections
        except _DAMAGED:
            return ()


_ASKED: Final[Mapping[str, Callable[[Program], Sequence[Value]]]] = {
    "ELFInfo/Type": Program.type_name,
    "ELFInfo/Machine": Program.machine_name,
    "ELFInfo/Interpreter": Program.interpreter,
    "ELFInfo/BuildID": Program.build_id,
    "ELFInfo/Libraries/Library": Program.libraries,
    "ELFInfo/Sections/Section/Name": Program.sections,
    "ELFInfo/ImportedFunctions/string": Program.imports,
    "ELFInfo/ExportedFunctions/string": Program.exports,
}
PATHS: Final = frozenset(_ASKED)
"""What can be asked."""


def elf_facts(fd: int, wanted: Collection[str]) -> dict[str, tuple[Value, ...]]:
    """What of these is known of a regular file: nothing of a damaged part; empty of what is no program.

    CUT is the last of a list that is not whole.
    """
    asked = [one for one in _ASKED if one in wanted]
    try:
        head = os.pread(fd, _HEADER_SIZE, 0)
    except OSError:
        return {}
    if not head.startswith(_MAGIC):
        return dict.fromkeys(asked, ())
    try:
        program = Program(fd, head)
    except _DAMAGED:
        return {}
    found = dict[str, tuple[Value, ...]]()
    for one in asked:
        try:
            found[one] = tuple(dict.fromkeys(_ASKED[one](program)))
        except _DAMAGED:
            continue
    return found


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _named(names: Iterator[str], *, whole: bool) -> list[str | float]:
    return [*(one for one in names if one), *(() if whole else (CUT,))]


def _text(names: bytes, begin: int) -> str:
    end = names.find(b"\0", begin, begin + LONGEST)
    return names[begin : begin + LONGEST if end < 0 else end].decode("utf-8", "backslashreplace")
