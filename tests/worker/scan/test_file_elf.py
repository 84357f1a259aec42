"""ELF facts for indicators: those that pyelftools finds too, and nothing raised by damaged ones."""

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.core.ioc.items import CUT
from stanch.core.ioc.terms import DOCUMENTS
from stanch.worker.scan import file_elf
from stanch.worker.scan.file_elf import MAX_SYMBOLS, PATHS, PREFIX, elf_facts


def libraries() -> list[Path]:
    """The interpreter, and what it has mapped."""
    lines = Path("/proc/self/maps").read_text().split("\n")
    mapped = {line.split(None, 5)[5] for line in lines if ".so" in line}
    return [Path(sys.executable).resolve(), *(Path(one) for one in sorted(mapped) if Path(one).is_file())][:12]


def facts(path: Path) -> dict[str, tuple[str, ...]]:
    """All facts of a file."""
    opened = os.open(path, os.O_RDONLY)
    try:
        return elf_facts(opened, PATHS)
    finally:
        os.close(opened)


def of_bytes(data: bytes) -> dict[str, tuple[str, ...]]:
    """All facts of a file with this content."""
    opened = os.memfd_create("program")
    try:
        os.write(opened, data)
        return elf_facts(opened, PATHS)
    finally:
        os.close(opened)


@pytest.fixture(scope="module")
def smallest() -> Path:
    """The smallest of them."""
    return min(libraries(), key=lambda one: one.stat().st_size)


@pytest.fixture(scope="module")
def small(smallest: Path) -> bytes:
    """What is in it."""
    return smallest.read_bytes()


def expected(file: ELFFile) -> Iterator[tuple[str, set[str]]]:
    """What pyelftools finds."""
    yield "Sections/Section/Name", {one.name for one in file.iter_sections() if one.name}
    needed = [tag.needed for tag in file.get_section_by_name(".dynamic").iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
    yield "Libraries/Library", set(needed)
    symbols = [one for one in file.get_section_by_name(".dynsym").iter_symbols() if one.name]
    yield "ImportedFunctions/string", {one.name for one in symbols if one["st_shndx"] == "SHN_UNDEF"}
    yield "ExportedFunctions/string", {one.name for one in symbols if one["st_shndx"] != "SHN_UNDEF"}
    build = file.get_section_by_name(".note.gnu.build-id")
    yield "BuildID", {one["n_desc"] for one in build.iter_notes()} if build else set()


def built(*, wide: bool, order: str) -> bytes:
    """A small library for any kind of processor: an interpreter, a library, two symbols, a build id."""

    def packed(small: str, large: str, *values: int) -> bytes:
        return struct.pack(order + (large if wide else small), *values)

    names = b"\0libx.so\0imported\0exported\0"

    def symbol(name: int, where: int) -> bytes:
        return packed("IIIBBH", "IBBHQQ", name, *((0, 0, where, 0, 0) if wide else (0, 0, 0, 0, where)))

    symbols = symbol(0, 0) + symbol(9, 0) + symbol(18, 1)
    loader, note = b"/lib/ld.so\0", struct.pack(order + "III", 4, 4, 3) + b"GNU\0" + bytes.fromhex("00c0ffee")
    head, row = (64, 56) if wide else (52, 32)
    at = {"loader": head + 4 * row}
    at["note"] = at["loader"] + len(loader)
    at["symbols"] = at["note"] + len(note)
    at["names"] = at["symbols"] + len(symbols)
    at["tags"] = at["names"] + len(names)
    pairs = ((1, 1), (6, BASE + at["symbols"]), (5, BASE + at["names"]), (10, len(names)), (0, 0), (1, 9))
    tags = b"".join(packed("II", "QQ", *pair) for pair in pairs)
    end = at["tags"] + len(tags)

    def segment(kind: int, offset: int, size: int) -> bytes:
        if wide:
            return packed("", "IIQQQQQQ", kind, 4, offset, BASE + offset, 0, size, size, 1)
        return packed("IIIIIIII", "", kind, offset, BASE + offset, 0, size, size, 4, 1)

    segments = segment(1, 0, end) + segment(3, at["loader"], len(loader)) + segment(4, at["note"], len(note))
    segments += segment(2, at["tags"], len(tags))
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    header = packed("HHIIIIIHHHHHH", "HHIQQQIHHHHHH", 3, 8, 1, 0, head, 0, 0, head, row, 4, 0, 0, 0)
    return ident + header + segments + loader + note + symbols + names + tags


BASE = 0x10000


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_programs_for_other_processors(order: str, *, wide: bool) -> None:
    """32 and 64 bits, both orders of bytes; what stands behind the end mark of the loader's table does not count."""
    assert of_bytes(built(wide=wide, order=order)) == {
        "ELFInfo/Type": ("Shared",),
        "ELFInfo/Machine": ("MIPS",),
        "ELFInfo/Interpreter": ("/lib/ld.so",),
        "ELFInfo/BuildID": ("00c0ffee",),
        "ELFInfo/Libraries/Library": ("libx.so",),
        "ELFInfo/Sections/Section/Name": (),
        "ELFInfo/ImportedFunctions/string": ("imported",),
        "ELFInfo/ExportedFunctions/string": ("exported",),
    }


@pytest.mark.parametrize("path", libraries(), ids=lambda path: path.name)
def test_the_facts_are_those_of_another_reader(path: Path) -> None:
    """Sections, libraries, symbols and build id of real programs."""
    found = facts(path)
    with path.open("rb") as file:
        for name, values in expected(ELFFile(file)):
            if len(values) < MAX_SYMBOLS:
                assert set(found[PREFIX + name]) == values, name


def test_what_it_is_is_told() -> None:
    """Type, machine and loader of this interpreter."""
    found = facts(Path(sys.executable).resolve())
    assert found[PREFIX + "Type"][0] in {"Executable", "Shared"}
    assert found[PREFIX + "Machine"][0]
    assert "/ld" in found[PREFIX + "Interpreter"][0]


def test_the_catalogue_has_what_is_told() -> None:
    """Neither more nor less."""
    assert {one for one in DOCUMENTS["FileItem"] if one.startswith(PREFIX)} == PATHS


def test_what_is_no_program_has_none() -> None:
    """It is known that it has none, of an empty file, too."""
    assert of_bytes(b"#!/bin/sh\n") == dict.fromkeys(PATHS, ())
    assert of_bytes(b"") == dict.fromkeys(PATHS, ())


def test_a_program_without_sections_has_symbols(small: bytes) -> None:
    """As malware is that was stripped of them: they are found as the loader finds them."""
    whole = of_bytes(small)
    bare = of_bytes(small[:40] + bytes(8) + small[48:58] + bytes(6) + small[64:])
    assert bare[PREFIX + "Sections/Section/Name"] == ()
    for name in ("ImportedFunctions/string", "Libraries/Library", "BuildID"):
        assert bare[PREFIX + name] == whole[PREFIX + name]
    assert whole[PREFIX + "ImportedFunctions/string"]


def test_a_damaged_part_hides_no_other(small: bytes) -> None:
    """Section headers of an odd size: they are not known, the rest is."""
    found = of_bytes(small[:58] + b"\1\0" + small[60:])
    assert PREFIX + "Sections/Section/Name" not in found
    assert found[PREFIX + "Libraries/Library"]
    assert found[PREFIX + "ImportedFunctions/string"]


def test_a_truncated_header_tells_nothing() -> None:
    """It is a program, and nothing of it can be known."""
    assert of_bytes(b"\x7fELF\2\1\1") == {}


def test_what_cannot_be_read_is_not_known() -> None:
    """A descriptor of a folder."""
    opened = os.open("/", os.O_RDONLY)
    try:
        assert elf_facts(opened, PATHS) == {}
    finally:
        os.close(opened)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 4096), st.binary(min_size=1, max_size=8)), max_size=8), st.integers(0, 20_000))
def test_no_bytes_raise(smallest: Path, changes: list[tuple[int, bytes]], cut: int) -> None:
    """A real program, changed in a few places and cut off; a list that is damaged may end as one that is not whole."""
    data = bytearray(smallest.read_bytes())
    for where, what in changes:
        data[where : where + len(what)] = what
    for values in of_bytes(bytes(data[: len(data) - cut])).values():
        assert all(isinstance(one, str) or one is CUT for one in values)


@given(st.binary(max_size=300))
def test_no_beginning_raises(rest: bytes) -> None:
    """Whatever follows the sign of a program."""
    assert set(of_bytes(b"\x7fELF" + rest)) <= PATHS


def test_a_list_that_is_cut_says_so(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing counts as not being in it; without it, more sections than are looked at would hide one."""
    monkeypatch.setattr(file_elf, "MAX_HEADERS", 1)
    assert of_bytes(small).keys() <= {"ELFInfo/Type", "ELFInfo/Machine"}
    monkeypatch.undo()
    monkeypatch.setattr(file_elf, "MAX_SYMBOLS", 3)
    known = of_bytes(small)
    assert {known[f"ELFInfo/{one}edFunctions/string"][-1] for one in ("Import", "Export")} == {CUT}


@pytest.mark.parametrize(("at", "value"), [(60, b"\0\0"), (62, b"\xff\xff")])
def test_sections_that_are_counted_elsewhere_are_not_known(small: bytes, at: int, value: bytes) -> None:
    """The header has a zero, or a mark, where there are very many: that is not none at all."""
    assert "ELFInfo/Sections/Section/Name" not in of_bytes(small[:at] + value + small[at + 2 :])
