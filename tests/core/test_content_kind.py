"""Tests of stanch.core.content_kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.content import ContentKind
from stanch.core.content_kind import kind_of

OPENIOC = '<?xml version="1.0"?><!-- x --><ioc xmlns="http://schemas.mandiant.com/2010/ioc">'


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (OPENIOC.encode(), ContentKind.OPENIOC),
        (b"\xef\xbb\xbf" + OPENIOC.encode(), ContentKind.OPENIOC),
        (OPENIOC.encode("utf-16"), ContentKind.OPENIOC),
        (f"<!-- first -->{OPENIOC}".encode(), ContentKind.OPENIOC),
        (b'{"type": "bundle", "objects": []}', ContentKind.STIX),
        (b' {"type": "indicator"}', ContentKind.STIX),
        (b"/* a rule */\nprivate rule a { condition: true }", ContentKind.YARA),
        (b'import "pe"\n', ContentKind.YARA),
        (b"# bad\nd41d8cd98f00b204e9800998ecf8427e empty", ContentKind.HASHES),
        (b"name;sha256\nx\n" + b"ab" * 32, ContentKind.HASHES),
        (b'"2026-01-01 10:00","' + b"ab" * 32 + b'","dropper"', ContentKind.HASHES),
        (b"first,second\n1," + b"ab" * 20, ContentKind.HASHES),
        (b"SHA256 (bad file) = " + b"ab" * 32, ContentKind.HASHES),
        (b"rule of thumb: ask first", None),
        (b"rule b : tag { condition: true }", ContentKind.YARA),
        (b"global\nprivate rule b // why\n{ condition: true }", ContentKind.YARA),
        (b"see commit " + b"ab" * 20 + b" for more", None),
        (b"<html>", None),
        (b'{"a": 1}', None),
        (b"hello", None),
        (b"", None),
        (b"\x7fELF\x02\x01\x01", None),
    ],
)
def test_a_file_is_known_by_its_content(head: bytes, kind: ContentKind | None) -> None:
    """Each kind is recognised by what is in it, in the encodings that its files come in, and nothing else is."""
    assert kind_of(head) is kind


@given(st.binary(max_size=2000))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    """Hostile bytes are of a kind or of none, and never an error."""
    assert kind_of(head) is None or isinstance(kind_of(head), ContentKind)
