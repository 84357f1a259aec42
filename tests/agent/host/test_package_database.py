"""Is what the databases share bounded, and read without waiting?"""

import os

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.package_database import MAX_NAME, in_batches, package_name, read_up_to


def test_a_file_is_read_up_to_the_limit(tmp_path):
    """Whole, in part, or empty."""
    (tmp_path / "x").write_bytes(b"12345")
    assert [read_up_to(tmp_path / "x", limit) for limit in (10, 5, 3, 0)] == [b"12345", b"12345", b"123", b""]


def test_what_is_no_plain_file_is_nothing(tmp_path):
    """A link may lead anywhere, a pipe makes one wait, a folder is no text, and what is missing is no error."""
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    assert {read_up_to(tmp_path / name, 10) for name in ("link", "pipe", ".", "missing")} == {b""}


@given(st.binary(max_size=500))
def test_a_name_is_bounded_text(raw):
    """Whatever the bytes are."""
    assert len(package_name(raw)) <= MAX_NAME
    assert package_name(raw).encode("utf-8").decode("utf-8") == package_name(raw)


@given(st.lists(st.binary(max_size=20)), st.integers(1, 5), st.integers(1, 50))
def test_batches_hold_everything_in_order_within_their_bounds(names, count, size):
    """A single name that is too long has a batch of its own."""
    batches = list(in_batches(names, count=count, size=size))
    assert [name for batch in batches for name in batch] == names
    for batch in batches:
        assert 0 < len(batch) <= count
        assert len(batch) == 1 or sum(map(len, batch)) <= size
