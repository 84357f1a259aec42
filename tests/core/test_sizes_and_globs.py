"""Sizes as people write them, and patterns for paths."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stanch.core.types import Exclusion, Glob, Mode, Size, parse_size, show_mode, show_size


def parse(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 1_048_576),
        ("100MB", 100_000_000),
        ("100 MiB", 104_857_600),
        ("100M", 104_857_600),
        ("1.5GiB", 1_610_612_736),
        ("2k", 2048),
        ("2kB", 2000),
        ("7b", 7),
        (7, 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: object, expected: int) -> None:
    """Thousands with a B, 1024s with an i or without a B, and plain numbers."""
    assert parse(Size, text) == expected


@pytest.mark.parametrize("wrong", ["", "MB", "-1", "1.2.3M", "1e9", "10XB", "\uff11", "9" * 40, -1, 1.5, None, "1ZiB"])
def test_wrong_sizes_are_refused(wrong: object) -> None:
    """What is no size, or no whole number of bytes that a kernel could count, is refused."""
    with pytest.raises(ValidationError):
        parse(Size, wrong)


@given(st.decimals(min_value=0, max_value=8000, places=3), st.sampled_from("kMGT"))
def test_a_size_is_never_larger_than_it_says(number: Decimal, unit: str) -> None:
    """Parts of a byte are dropped, and no binary rounding creeps in."""
    exact = number * 1024 ** " kMGT".index(unit)
    assert 0 <= exact - parse(Size, f"{number}{unit}iB") < 1


@pytest.mark.parametrize(
    "pattern", ["/tmp/*", "/tmp/**/*.sh", "/home/*/.ssh/authorized_keys?", "/var/log/[a-c]*", r"/a\xff*"]
)
def test_patterns_are_kept(pattern: str) -> None:
    """A pattern stays as it was written, odd bytes too."""
    assert parse(Glob, pattern) == pattern
    assert isinstance(parse(Glob, pattern), Glob)


@pytest.mark.parametrize("wrong", ["/tmp/file", "tmp/*", "*", "/tmp/**.sh", "/a**/b", "/tmp/*\0", "/" + "*" * 5000, 7])
def test_what_is_no_pattern_is_refused(wrong: object) -> None:
    """A path is no pattern, a pattern is absolute, and ** stands alone."""
    with pytest.raises(ValidationError):
        parse(Glob, wrong)


@pytest.mark.parametrize("one", ["/tmp/*", "/var/lib/docker", "/var/lib/docker/", "/a/[*]", "/**/x", r"/a\xff"])
def test_what_is_left_out_is_a_path_or_a_pattern(one: str) -> None:
    """A folder is named as it is; what was a pattern before stays one."""
    assert parse(Exclusion, one) == one
    assert isinstance(parse(Exclusion, one), Exclusion)


@pytest.mark.parametrize("wrong", ["/", "//.", "tmp", "/a/../b", "/a**/b", "/tmp\0", "/" + "a" * 5000, 7])
def test_what_would_leave_out_all_or_nothing_is_refused(wrong: object) -> None:
    """The root is everything; a way up is never met on the way down."""
    with pytest.raises(ValidationError):
        parse(Exclusion, wrong)


@given(st.integers(0, 2**63 - 1))
def test_a_size_is_shown_as_what_parses_to_it(size: int) -> None:
    """Exactly, so that a default that somebody copies stays the default."""
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (1500, "1500"), (100 * 2**20, "100MiB"), (2**60, "1024PiB")])
def test_a_size_is_shown_in_the_largest_unit_without_a_fraction(size: int, text: str) -> None:
    """As short as it can be without losing a byte."""
    assert show_size(size) == text


# --- modes -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 0o7777))
def test_a_mode_is_read_as_it_is_shown(mode: int) -> None:
    """Text is octal, a number is a number."""
    assert parse(Mode, show_mode(mode)) == parse(Mode, mode) == parse(Mode, f"0o{mode:o}") == mode


@pytest.mark.parametrize(
    "wrong", ["", "8", "0x1ff", "rwxr-xr-x", "-1", "10000", "0644 0644", "\uff16", 0o10000, -1, None]
)
def test_wrong_modes_are_refused(wrong: object) -> None:
    """What is not octal, or more than permission bits."""
    with pytest.raises(ValidationError):
        parse(Mode, wrong)
