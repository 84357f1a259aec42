"""Previews as lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.cli import preview as module
from stanch.cli.screen import plain_lines
from stanch.core.rest_evidence import ElfPreview, HexPreview, Preview, StringsPreview, TextPreview
from stanch.worker import shown

ABOUT = {"evidence": "evd_1", "size": 1000, "offset": 0, "length": 10}


def printed(capsys: pytest.CaptureFixture[str], **fields: object) -> str:
    """What a preview prints."""
    module.show_preview(Preview.model_validate({**ABOUT, **fields}))
    return capsys.readouterr().out


@given(st.binary(max_size=100), st.integers(0, 2**40))
def test_lines_of_bytes(data: bytes, offset: int) -> None:
    """All bytes are in them, sixteen on each line, and the columns stand below one another."""
    found = list(module.hex_lines(HexPreview.model_validate(shown.hexadecimal(data)), offset))
    assert len(found) == -(-len(data) // 16)
    again = b"".join(bytes.fromhex(line.split("|")[0].split("  ", 1)[1]) for line in found)
    assert again == data
    assert len({line.index("|") - len(line.split()[0]) for line in found}) <= 1


def test_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Line by line, tabs as spaces; a guess is said to be one."""
    text = {"encoding": "latin-1", "guessed": True, "text": "one\ttwo\nthree"}
    out = printed(capsys, kind="text", text=text)
    assert "one     two\nthree\n" in out
    assert "guess" in out
    assert "0 to 10 of 1000" in out


def test_a_server_that_lies_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What should have been harmless is made so again."""
    bad = "\x1b[2J\u202e"
    strings = {"strings": [{"offset": 1, "encoding": bad, "text": bad}], "more": True}
    elf = {"machine": bad, "libraries": [bad], "problems": [bad], "sections": [], "segments": []}
    text = {"encoding": bad, "guessed": False, "text": bad}
    out = printed(capsys, kind="text", text=text, strings=strings, elf=elf, confined={bad: bad})
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_strings() -> None:
    """Where and what; those that go on, or are wide, are marked."""
    some = [
        {"offset": 16, "encoding": "ascii", "text": "abcd"},
        {"offset": 32, "encoding": "utf-16-le", "text": "wxyz", "cut": True},
    ]
    found = StringsPreview.model_validate({"strings": some, "more": True})
    assert list(module.string_lines(found)) == [
        "00000010  abcd",
        "00000020  wxyz… (utf-16-le)",
        "… and more: go on with --offset.",
    ]


def test_a_program() -> None:
    """Fields, then tables; where only a part is shown, the head says so."""
    section = {"name": ".text", "type": "SHT_PROGBITS", "flags": "AX", "address": 1, "offset": 1, "size": 1}
    segment = {"type": "PT_LOAD", "flags": "RX", "address": 1, "offset": 1, "file_size": 1, "memory_size": 1}
    found = ElfPreview.model_validate(
        {
            "machine": "EM_X86_64",
            "sections": [{**section, "entropy": 6.5}],
            "section_count": 3,
            "segments": [segment],
            "segment_count": 1,
            "problems": ["the rest is missing"],
        }
    )
    about, segments, sections, problem = module.elf_blocks(found)
    assert ("machine", "EM_X86_64") in about.rows
    assert segments.title == "segments"
    assert sections.title == "sections, the first 1 of 3"
    assert "6.5" in plain_lines(sections)[1]
    assert "the rest is missing" in problem.text


def test_what_could_not_be_confined_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A server whose kernel has no filter says so to whoever looks; what the filter makes up for is no news."""
    text = TextPreview(encoding="utf-8", guessed=False, text="x").model_dump()
    assert "not there" in printed(capsys, kind="text", text=text, confined={"seccomp": "not there", "limits": "yes"})
    assert "confine" in printed(capsys, kind="text", text=text, confined={})
    without_network = {"seccomp": "yes", "network": "not permitted"}
    assert "confine" not in printed(capsys, kind="text", text=text, confined=without_network)
