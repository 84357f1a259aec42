"""Byte ranges and file names of downloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.server.api.ranges import NotSatisfiable, Range, attachment, parse_range


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", Range(0, 100)),
        ("bytes=10-19", Range(10, 10)),
        ("bytes=90-1000", Range(90, 10)),
        ("bytes=-5", Range(95, 5)),
        ("bytes=-500", Range(0, 100)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=٣-", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_ranges(header: str | None, wanted: Range | None) -> None:
    """What cannot be understood is ignored."""
    assert parse_range(header, 100) == wanted


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=1000-2000", "bytes=-0"])
def test_nothing_there(header: str) -> None:
    """A range beyond the end is refused, not ignored."""
    with pytest.raises(NotSatisfiable):
        parse_range(header, 100)


@given(header=st.text(max_size=50), size=st.integers(0, 1000))
def test_a_range_is_always_inside(header: str, size: int) -> None:
    """Whatever is sent."""
    for text in (header, f"bytes={header}"):
        try:
            wanted = parse_range(text, size)
        except NotSatisfiable:
            continue
        assert wanted is None or 0 <= wanted.start < wanted.start + wanted.length <= size


def test_the_header_names_the_part() -> None:
    """First and last byte, and the whole."""
    assert Range(10, 10).content_range(100) == "bytes 10-19/100"


@pytest.mark.parametrize(
    ("name", "plain"),
    [("/etc/passwd", "passwd"), ('/tmp/a b"c', "a_b_c"), ("/tmp/.hidden", "hidden"), ("/tmp/", "evd_1"), ("/é", "_")],
)
def test_file_names(name: str, plain: str) -> None:
    """The last component, in plain characters."""
    assert attachment(name, otherwise="evd_1").startswith(f'attachment; filename="{plain}";')


@given(name=st.text(max_size=300))
def test_no_name_breaks_the_header(name: str) -> None:
    """Nothing but printable ASCII, and no second quote."""
    header = attachment(name, otherwise="evd_1")
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    header.encode("latin-1")
