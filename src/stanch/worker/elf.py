"""The structure of a program (ELF), as far as it can be read; each part by itself: a damaged one hides no other.

Every count in it is the attacker's: so many sections, so long a name, so large a table. Each is bounded here, and the
time of all of it by the kernel.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import Segment

MAX_SECTIONS = 200
MAX_SEGMENTS = 100
MAX_LIBRARIES = 200
MAX_TAGS = 5000
"""Entries of the dynamic section that are looked through."""
LONGEST = 200
MAX_NAMES = 2**20
"""Bytes of the names of all sections."""
MAX_MEASURED = 2**20
"""Bytes of a section whose entropy is measured."""
MAX_MEASURED_IN_ALL = 2**23

_FLAGS = ((0x2, "A"), (0x1, "W"), (0x4, "X"), (0x10, "M"), (0x20, "S"), (0x40, "I"), (0x200, "G"), (0x400, "T"))
_RIGHTS = ((4, "R"), (2, "W"), (1, "X"))


class OutOfTime(BaseException):
    """The processor time of the worker is over: what is there by then is the answer. No library may catch it."""


def elf(data: bytes, *, more: bool) -> Mapping[str, object]:
    """What can be told of a program that begins with these bytes; `more` of it was not read."""
    from elftools.elf.elffile import ELFFile

    told: dict[str, object] = {}
    problems = ["only its beginning was read: what lies behind is missing"] if more else []
    try:
        file = ELFFile(BytesIO(data))
        for name, look in _looks(file, data).items():
            try:
                told[name] = look()
            except Exception as error:  # noqa: BLE001 - a parser that meets hostile bytes fails in every way
                problems.append(_problem(name, error))
    except OutOfTime:
        problems.append("it took too long: the rest was not read")
    except Exception as error:  # noqa: BLE001 - likewise
        problems.append(_problem("header", error))
    return {**_flat(told), "problems": problems}


def _looks(file: "ELFFile", data: bytes) -> Mapping[str, Callable[[], object]]:
    """What is looked for, the cheap and telling first."""
    return {
        "header": lambda: _header(file),
        "interpreter": lambda: _interpreter(file, data),
        "libraries": lambda: _libraries(file),
        "build_id": lambda: _build_id(file),
        "segment_count": lambda: _number(file.num_segments()),
        "segments": lambda: list(_segments(file)),
        "section_count": lambda: _number(file.num_sections()),
        "sections": lambda: list(_sections(file, data)),
    }


def _flat(told: Mapping[str, object]) -> dict[str, object]:
    header = told.get("header")
    return {**(header if isinstance(header, dict) else {}), **{k: v for k, v in told.items() if k != "header"}}


def _header(file: "ELFFile") -> dict[str, object]:
    order = "little" if file.little_endian else "big"
    return {
        "bits": f"{file.elfclass}-bit, {order} endian",
        "machine": _word(file.header["e_machine"]),
        "type": _word(file.header["e_type"]),
        "entry": _number(file.header["e_entry"]),
    }


def _headers(file: "ELFFile", kind: Literal["ph", "sh"], most: int) -> Iterator[Mapping[str, Any]]:
    """The headers of segments or sections as they stand there; what they lead to is not looked at."""
    count = file.num_segments() if kind == "ph" else file.num_sections()
    return (_header_at(file, kind, n) for n in range(min(count, most)))


def _header_at(file: "ELFFile", kind: Literal["ph", "sh"], n: int) -> Mapping[str, Any]:
    from elftools.common.utils import struct_parse

    form = file.structs.Elf_Phdr if kind == "ph" else file.structs.Elf_Shdr
    at = file.header[f"e_{kind}off"] + n * file.header[f"e_{kind}entsize"]
    found: Mapping[str, Any] = struct_parse(form, file.stream, stream_pos=at)
    return found


def _opened(file: "ELFFile", kind: str) -> Iterator["Segment"]:
    """The segments of one type, opened by the library."""
    for n, one in enumerate(_headers(file, "ph", MAX_SEGMENTS)):
        if one["p_type"] == kind:
            yield file.get_segment(n)


def _piece(data: bytes, header: Mapping[str, Any], prefix: str, most: int) -> bytes:
    """What a header leads to, so much of it at most, as far as it is there."""
    begin = _number(header[f"{prefix}_offset"])
    size = _number(header["p_filesz" if prefix == "p" else "sh_size"])
    return data[begin : begin + min(size, most)]


def _named(data: bytes, begin: int) -> str:
    """The name that stands there."""
    return _word(data[begin : begin + LONGEST].partition(b"\0")[0].decode("utf-8", "backslashreplace"))


def _interpreter(file: "ELFFile", data: bytes) -> str | None:
    asked = (one for one in _headers(file, "ph", MAX_SEGMENTS) if one["p_type"] == "PT_INTERP")
    return next((_named(_piece(data, one, "p", LONGEST), 0) for one in asked), None)


def _libraries(file: "ELFFile") -> list[str]:
    from elftools.elf.dynamic import DynamicSegment

    segment = next(_opened(file, "PT_DYNAMIC"), None)
    if not isinstance(segment, DynamicSegment):
        return []
    needed = (tag for tag in islice(segment.iter_tags(), MAX_TAGS) if tag.entry.d_tag == "DT_NEEDED")
    return [_word(getattr(tag, "needed", "?")) for tag in islice(needed, MAX_LIBRARIES)]


def _build_id(file: "ELFFile") -> str | None:
    from elftools.elf.segments import NoteSegment

    for segment in _opened(file, "PT_NOTE"):
        notes = segment.iter_notes() if isinstance(segment, NoteSegment) else ()
        for note in islice(notes, MAX_TAGS):
            if note["n_type"] == "NT_GNU_BUILD_ID":
                return _word(note["n_desc"])
    return None


def _segments(file: "ELFFile") -> Iterator[Mapping[str, object]]:
    for one in _headers(file, "ph", MAX_SEGMENTS):
        yield {
            "type": _word(one["p_type"]),
            "flags": _letters(one["p_flags"], _RIGHTS),
            "address": _number(one["p_vaddr"]),
            "offset": _number(one["p_offset"]),
            "file_size": _number(one["p_filesz"]),
            "memory_size": _number(one["p_memsz"]),
        }


def _sections(file: "ELFFile", data: bytes) -> Iterator[Mapping[str, object]]:
    names = _names(file, data)
    left = MAX_MEASURED_IN_ALL
    for one in _headers(file, "sh", MAX_SECTIONS):
        measured = b"" if one["sh_type"] == "SHT_NOBITS" else _piece(data, one, "sh", min(left, MAX_MEASURED))
        left -= len(measured)
        yield {
            "name": _named(names, _number(one["sh_name"])),
            "type": _word(one["sh_type"]),
            "flags": _letters(one["sh_flags"], _FLAGS),
            "address": _number(one["sh_addr"]),
            "offset": _number(one["sh_offset"]),
            "size": _number(one["sh_size"]),
            "entropy": entropy(measured),
        }


def _names(file: "ELFFile", data: bytes) -> bytes:
    """Where the names of the sections stand; nothing if there are none."""
    if not file.num_sections():
        return b""
    return _piece(data, _header_at(file, "sh", file.get_shstrndx()), "sh", MAX_NAMES)


def entropy(some: bytes) -> float | None:
    """Bits for each byte; None of nothing."""
    if not some:
        return None
    shares = [count / len(some) for count in Counter(some).values()]
    return max(0.0, round(-sum(share * math.log2(share) for share in shares), 2))


def _number(value: object) -> int:
    """A number of 64 bits: what the file says need not be one."""
    return value & (2**64 - 1) if isinstance(value, int) else 0


def _letters(value: object, names: Iterable[tuple[int, str]]) -> str:
    return "".join(letter for bit, letter in names if _number(value) & bit)


def _word(value: object) -> str:
    """A name: the library's word, or the number that it has no word for; nothing in it that moves a terminal."""
    from stanch.worker.shown import harmless

    shown = hex(value) if isinstance(value, int) else harmless(str(value)[:LONGEST])
    return shown.replace("\n", "\\n").replace("\t", "\\t")[:LONGEST]


def _problem(what: str, error: Exception) -> str:
    return _word(f"{what}: {error}" if str(error) else f"{what}: {type(error).__name__}")
