"""Texts, bytes and strings, whatever the bytes are."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.rest_evidence import HexPreview, StringsPreview, TextPreview
from stanch.worker import shown

ANYTHING = st.binary(max_size=2000)
MARKS = st.sampled_from([b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"])


def read(data: bytes, *, offset: int = 0, first: bytes | None = None, more: bool = False) -> TextPreview:
    """The text preview of these bytes."""
    rendered = shown.text(data, offset=offset, first=data[:4] if first is None else first, more=more)
    return TextPreview.model_validate(rendered)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_texts_are_read_in_their_encoding(encoding: str) -> None:
    """By the mark at their start, or because they fit."""
    marked = "\ufeff" if encoding != "utf-8" else ""
    found = read(f"{marked}héllo €\r\nworld\t!".encode(encoding))
    assert (found.encoding, found.guessed, found.text) == (encoding, False, "héllo €\nworld\t!")


def test_a_mark_tells_the_encoding_of_every_part() -> None:
    """A part from the middle, begun within a character, is read with the mark that the whole begins with."""
    whole = "\ufeffabcdef".encode("utf-16-le")
    assert read(whole[5:], offset=5, first=whole[:4]).text == "cdef"


def test_what_is_nothing_else_is_guessed() -> None:
    """A byte for a character, and said so."""
    found = read(b"caf\xe9 \xff")
    assert (found.encoding, found.guessed, found.text) == ("latin-1", True, "café ÿ")


def test_escapes_are_made_visible() -> None:
    """No sequence reaches a terminal, no mark turns the direction of writing."""
    assert read("\x1b]0;title\x07\x1b[2J\u202egnp.exe\x9b\r".encode()).text == (
        "\\x1b]0;title\\x07\\x1b[2J\\u202egnp.exe\\x9b\\x0d"
    )


def test_a_cut_character_is_left_out_only_where_more_follows() -> None:
    """At the real end, half a character means that it is no UTF-8."""
    assert read("a€".encode()[:-1], more=True).text == "a"
    assert read("a€".encode()[:-1], more=False).encoding == "latin-1"


@given(data=ANYTHING, mark=MARKS, offset=st.integers(0, 5), more=st.booleans())
def test_no_text_moves_a_terminal(*, data: bytes, mark: bytes, offset: int, more: bool) -> None:
    """Whatever the bytes are: it is valid, and holds no control character but line breaks and tabs."""
    found = read(mark + data, offset=offset, first=mark or data[:4], more=more)
    for character in set(found.text) - {"\n", "\t"}:
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANYTHING)
def test_bytes_are_all_there(data: bytes) -> None:
    """Each of them as two digits and as one character."""
    found = HexPreview.model_validate(shown.hexadecimal(data))
    assert bytes.fromhex(found.data) == data
    assert len(found.ascii) == len(data)
    assert all(" " <= one <= "~" for one in found.ascii)


def test_strings_are_found_in_both_widths() -> None:
    """In the order of the file, with the place of each."""
    data = b"\x00\x01first\x00ab\x00\x01\x02" + "second".encode("utf-16-le") + b"\xff\xffthird one\xff"
    found = StringsPreview.model_validate(shown.strings(data, offset=100))
    assert [(one.offset, one.encoding, one.text) for one in found.strings] == [
        (102, "ascii", "first"),
        (113, "utf-16-le", "second"),
        (127, "ascii", "third one"),
    ]
    assert not found.more


def test_strings_are_bounded() -> None:
    """So many, and so long; and it is said that there is more."""
    many = StringsPreview.model_validate(shown.strings(b"abcd\x00" * (shown.MAX_STRINGS + 1), offset=0))
    assert (len(many.strings), many.more) == (shown.MAX_STRINGS, True)
    [long] = StringsPreview.model_validate(shown.strings(b"x" * 10_000, offset=0)).strings
    assert (len(long.text), long.cut) == (shown.LONGEST_STRING, True)


@given(ANYTHING, st.integers(0, 2**40))
def test_every_string_is_where_it_says(data: bytes, offset: int) -> None:
    """Whatever the bytes are, each string is printable and in them, in order."""
    found = StringsPreview.model_validate(shown.strings(data, offset=offset))
    for one in found.strings:
        step = 1 if one.encoding == "ascii" else 2
        start = one.offset - offset
        assert data[start : start + step * len(one.text) : step].replace(b"\t", b" ") == one.text.encode()
    assert [one.offset for one in found.strings] == sorted(one.offset for one in found.strings)
