"""Identifiers sort by age and do not repeat."""

from datetime import UTC, datetime, timedelta

from stanch.server.ids import new_id

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_later_is_greater():
    """An identifier made later sorts later."""
    assert new_id("x", NOW) < new_id("x", NOW + timedelta(milliseconds=1))


def test_no_two_are_equal():
    """Identifiers of one moment differ."""
    assert len({new_id("x", NOW) for _ in range(10_000)}) == 10_000
