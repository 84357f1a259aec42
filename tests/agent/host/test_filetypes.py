"""The type of a file is a hint, and never an error."""

import gzip
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.filetypes import type_of


def name_of(first: bytes) -> str:
    return type_of(first, size=len(first)).name


@given(st.binary(max_size=5000))
def test_any_bytes_have_a_type(first: bytes):
    """Whatever they are, with at most 64 of them shown."""
    found = type_of(first, size=len(first))
    assert found.name
    assert bytes.fromhex(found.first) == first[:64]


@given(
    st.sampled_from([b"\x7fELF", b"#!", b"PK\x03\x04", b"%PDF-", b"\x1f\x8b", b"GIF8", b"<?xml", b"MZ"]),
    st.binary(max_size=600),
)
def test_what_begins_like_something_has_a_type(magic: bytes, rest: bytes):
    """A damaged file of a known kind is no error either."""
    assert name_of(magic + rest)


def test_programs():
    """Class, type and machine, from the header."""
    first = Path(sys.executable).read_bytes()[:4096]
    assert name_of(first).startswith("ELF 64-bit")
    assert name_of(b"\x7fELF") == "ELF, cut off"


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"", "empty"),
        (bytes(100), "zeros"),
        (b"#!/bin/sh -e\nrm x", "script for /bin/sh -e"),
        (b"#!\x1b[31m\n", "script for ?[31m"),
        ("grün\n".encode(), "text, UTF-8"),
        ("grün".encode()[:-2], "text, UTF-8"),
    ],
)
def test_plain_things(first: bytes, expected: str):
    """Told without any signature; nothing that a terminal would obey passes."""
    assert name_of(first) == expected


def test_signatures():
    """What is known by its first bytes is named."""
    assert "gzip" in name_of(gzip.compress(b"x")).lower()
    assert "windows" in name_of(b"MZ" + bytes(60)).lower()
    assert "zip" in name_of(b"PK\x03\x04" + bytes(60)).lower()
    assert "portable document" in name_of(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n").lower()
