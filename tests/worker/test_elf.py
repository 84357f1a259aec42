"""The structure of programs: whole ones, damaged ones, and bytes that only begin like one."""

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.core.rest_evidence import ElfPreview
from stanch.worker import elf as module

HEADER = "<16sHHIQQQIHHHHHH"


def made(*, sections: bytes = b"", count: int = 0, segments: bytes = b"", segment_count: int = 0) -> bytes:
    """A small 64-bit program: header, program headers, section headers."""
    begin = struct.calcsize(HEADER)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    where = begin + len(segments) if count else 0
    head = struct.pack(HEADER, ident, 2, 62, 1, 0x401000, begin, where, 0, 64, 56, segment_count, 64, count, 0)
    return head + segments + sections


def shown(data: bytes, *, more: bool = False) -> ElfPreview:
    """The preview of these bytes, valid whatever they are."""
    return ElfPreview.model_validate(module.elf(data, more=more))


@pytest.fixture(scope="module")
def program() -> bytes:
    """A real one: this interpreter, or the C library that it uses."""
    data = Path(sys.executable).resolve().read_bytes()
    assert data.startswith(b"\x7fELF")
    return data[: 16 * 2**20]


def test_a_program_is_told(program: bytes) -> None:
    """What it is, what it needs, and what it consists of."""
    found = shown(program)
    assert found.bits.startswith(("64-bit", "32-bit"))
    assert found.machine.startswith("EM_")
    assert found.interpreter is not None
    assert found.interpreter.startswith("/lib")
    assert any(one.startswith("libc.so") for one in found.libraries)
    assert any(one.type == "PT_LOAD" and one.flags == "RX" for one in found.segments)
    text = next(one for one in found.sections if one.name == ".text")
    assert text.flags == "AX"
    assert text.entropy is not None
    assert 4 < text.entropy < 8


def test_what_is_missing_is_said(program: bytes) -> None:
    """Of a program whose end was not read, the beginning is shown all the same."""
    found = shown(program[:20_000], more=True)
    assert found.machine.startswith("EM_")
    assert found.segments
    assert "only its beginning was read" in found.problems[0]


def test_a_hollow_one_has_a_header_only() -> None:
    """No section, no segment, no complaint."""
    found = shown(made())
    assert (found.machine, found.type, found.entry) == ("EM_X86_64", "ET_EXEC", 0x401000)
    assert (found.sections, found.segments, found.problems) == ((), (), ())


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ", b"\x7fELF\x09\x09" + bytes(100), bytes(5000)])
def test_what_is_no_program_is_said(data: bytes) -> None:
    """An answer, with what is wrong."""
    assert shown(data).problems


def test_counts_are_bounded() -> None:
    """Headers that tell of tens of thousands of parts bring so many, and the count."""
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 2**63, 2**64 - 1, 0)
    found = shown(made(segments=segment * 1000, segment_count=1000))
    assert len(found.segments) == module.MAX_SEGMENTS
    assert found.segment_count == 1000
    assert found.segments[0].memory_size == 2**64 - 1


def test_entropy_is_of_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections may lie over one another: all of them together are measured so far, and no further."""
    monkeypatch.setattr(module, "MAX_MEASURED_IN_ALL", 100)
    section = struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, 0, 80, 0, 0, 0, 0)
    found = shown(made(sections=section * 3, count=3))
    assert [one.entropy is None for one in found.sections] == [False, False, True]


@pytest.mark.parametrize(("some", "bits"), [(b"", None), (b"aaaa", 0.0), (b"ab" * 10, 1.0), (bytes(range(256)), 8.0)])
def test_entropy(some: bytes, bits: float | None) -> None:
    """From nothing to eight bits for a byte."""
    assert module.entropy(some) == bits


def test_names_do_not_move_a_terminal() -> None:
    """A program asks for whatever loader it likes."""
    name = b"/lib/\x1b[2J\n\xff\x00"
    offset = 64 + 56
    segment = struct.pack("<IIQQQQQQ", 3, 4, offset, 0, 0, len(name), len(name), 1)
    found = shown(made(segments=segment, segment_count=1) + name)
    assert found.interpreter is not None
    assert "\x1b" not in found.interpreter
    assert found.interpreter.startswith("/lib/\\x1b[2J\\n")


def test_out_of_time_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read by then is shown, and that there was no time for the rest."""

    def endless(*_: object) -> None:
        raise module.OutOfTime

    monkeypatch.setattr(module, "_segments", endless)
    found = shown(made())
    assert found.machine == "EM_X86_64"
    assert "too long" in found.problems[-1]


@given(st.binary(max_size=3000))
def test_anything_that_begins_like_a_program(rest: bytes) -> None:
    """There is a valid answer, whatever follows."""
    shown(b"\x7fELF" + rest)
    shown(b"\x7fELF\x02\x01\x01" + rest)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), min_size=1, max_size=40), st.integers(0, 2**17))
def test_a_program_with_bytes_changed(program: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Flipped headers and a missing end: a valid answer all the same."""
    damaged = bytearray(program[: 2**17 - cut])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    shown(bytes(damaged))


def test_a_section_that_leads_nowhere_hides_no_other() -> None:
    """Headers are shown as they stand there: a hash table without symbols is only a section of that type."""
    one = struct.pack("<IIQQQQIIQQ", 0, 5, 0, 0, 2**40, 2**40, 77, 0, 0, 0)
    other = struct.pack("<IIQQQQIIQQ", 2**31, 1, 6, 0, 0, 10, 0, 0, 0, 0)
    found = shown(made(sections=one + other, count=2))
    assert [(section.type, section.flags) for section in found.sections] == [("SHT_HASH", ""), ("SHT_PROGBITS", "AX")]
    assert found.problems == ()


def test_headers_that_lie_over_one_another_are_bounded() -> None:
    """Thousands of segments at one place, each the dynamic one, cost no more than the bound."""
    dynamic = struct.pack("<IIQQQQQQ", 2, 4, 0, 0, 0, 2**40, 2**40, 0)
    data = bytearray(made(segments=dynamic, segment_count=0xFFFE))
    data[54:56] = bytes(2)  # each header is of no size
    found = shown(bytes(data))
    assert len(found.segments) == module.MAX_SEGMENTS
    assert found.segment_count == 0xFFFE
