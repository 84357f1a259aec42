"""How evidence is shown if nobody says how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.kinds import LOOKED_AT, choose, utf8


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"\x7fELF\x02\x01\x01", "elf"),
        (b"#!/bin/sh\necho hello\n", "text"),
        ("käse\n".encode(), "text"),
        ("käse".encode("utf-16"), "text"),
        (b"\xef\xbb\xbfwith a mark", "text"),
        (b"\x1b[31mred\x1b[0m\n", "text"),
        (b"", "text"),
        (b"MZ\x90\x00\x03", "hex"),
        (b"PK\x03\x04", "hex"),
        (bytes(range(256)), "hex"),
        ("käse".encode("latin-1"), "hex"),
    ],
)
def test_the_first_bytes_decide(first: bytes, kind: str) -> None:
    """Programs by their structure, texts as texts, all else byte by byte."""
    assert choose(first) == kind


def test_from_the_middle_nothing_is_a_program() -> None:
    """What looks like the start of one in the middle of a file is only bytes."""
    assert choose(b"\x7fELF\x02\x01\x01", from_start=False) == "hex"
    assert choose("ä".encode()[1:] + b"fter", from_start=False) == "text"


def test_a_character_that_is_cut_is_no_reason_for_hex() -> None:
    """Only so many bytes are looked at; where they end is chance."""
    assert choose(("x" * (LOOKED_AT - 1) + "€" * 10).encode()) == "text"
    assert choose("€".encode()[:2]) == "hex"


@given(st.binary(max_size=100))
def test_everything_has_a_kind(first: bytes) -> None:
    """Whatever it is, there is a way to show it."""
    assert choose(first) in {"text", "hex", "elf"}
    assert choose(first, from_start=False) in {"text", "hex"}


@given(st.text(), st.data())
def test_a_piece_of_utf8_is_a_piece_of_the_text(text: str, data: st.DataObject) -> None:
    """Cut anywhere, what is decoded is part of the whole, and lacks at most the characters at its edges."""
    whole = text.encode("utf-8", "surrogatepass") if text.isascii() else text.encode("utf-8", "replace")
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    found = utf8(whole[start:end], cut_before=True, cut_after=True)
    assert found in whole.decode()
    assert len(found.encode()) >= end - start - 6
