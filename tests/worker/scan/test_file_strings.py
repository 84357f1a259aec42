"""Texts in a content: all of them, whatever the chunks are, within bounds."""

import re

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.indexing import MAX_VALUES
from stanch.worker.scan.file_strings import LONGEST, MAX_TEXTS, OVERLAP, SHORTEST, Strings, strings

MIXED = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.text("abc ~\t", max_size=9).map(str.encode),
        st.text("abc ~", max_size=9).map(lambda text: text.encode("utf-16-le")),
        st.just(b"x" * (LONGEST + 7)),
    ),
    max_size=12,
).map(b"".join)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in chunks of these sizes, and the rest."""
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


def test_texts_of_both_kinds_are_found() -> None:
    """ASCII and UTF-16; a line end ends one, a tab does not; what is shorter is none."""
    content = b"\0\1hello world\ntab\there\n abc\xff" + "wide text".encode("utf-16-le") + b"\xffabc"
    assert strings([content]) == (("hello world", "tab\there", " abc", "wide text"), True)


@given(MIXED, st.lists(st.integers(0, 40), max_size=30))
def test_chunks_do_not_matter(data: bytes, sizes: list[int]) -> None:
    """However it is cut, the same texts are found."""
    assert set(strings(cut(data, sizes))[0]) == set(strings([data])[0])


@given(MIXED)
def test_they_are_those_of_a_plain_search(data: bytes) -> None:
    """Every run of printable signs is there, whole or in its pieces, and nothing else."""
    narrow = [one[0].decode() for one in re.finditer(rb"[\x20-\x7e\t]{%d,}" % SHORTEST, data)]
    wide = [one[0].decode("utf-16-le") for one in re.finditer(rb"(?:[\x20-\x7e\t]\0){%d,}" % SHORTEST, data)]
    found = set(strings([data])[0])
    assert {one for one in [*narrow, *wide] if len(one) <= LONGEST} <= found
    assert all(any(one in run for run in [*narrow, *wide]) for one in found)


def test_a_long_run_comes_in_pieces_that_overlap() -> None:
    """What is not longer than the overlap is whole in one of them, wherever it stands."""
    run = "".join(f"{number:07d}," for number in range(LONGEST))
    found, complete = strings([run.encode()])
    assert complete
    assert all(len(one) <= LONGEST for one in found)
    for begin in range(0, len(run) - OVERLAP, 611):
        assert any(run[begin : begin + OVERLAP] in one for one in found)


def test_a_text_is_kept_once() -> None:
    """Repeating it costs nothing."""
    assert strings([b"same\0" * 1000]) == (("same",), True)


def test_what_is_too_much_is_told() -> None:
    """So much is kept, and it is said that this is not all."""
    texts, complete = strings((f"text number {number}\0".encode() for number in range(1000)), most=2000)
    assert 0 < len(texts) < 100
    assert not complete


def test_one_text_more_is_kept_than_is_judged() -> None:
    """Who judges the list sees by its length that it may not be all."""
    texts, complete = strings(f"text {number}\0".encode() for number in range(MAX_TEXTS + 10))
    assert len(texts) == MAX_TEXTS == MAX_VALUES + 1
    assert complete


def test_nothing_more_makes_it_incomplete() -> None:
    """The bound was met exactly, and nothing came behind it."""
    found = Strings(most=1)
    found.feed(b"text\0")
    found.feed(b"")
    assert (found.end(), found.complete) == (("text",), True)
