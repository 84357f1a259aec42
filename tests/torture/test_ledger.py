"""What the driver tells the observer: spans and windows with honest times."""

import time

import pytest

from tests.torture.ledger import SLACK, Ledger


def test_an_isolation_is_not_judged_in_the_last_moment_before_its_deadline():
    """Its own end must not look like a leak."""
    span = Ledger(window_seconds=0.25).isolated(10.0, 20.0, [])
    assert (span["since"], span["until"]) == (10.0, 20.0 - SLACK)


def test_a_span_ends_at_whatever_comes_first():
    """A release after the deadline does not make it longer."""
    ledger = Ledger(window_seconds=0.25)
    first, second = ledger.isolated(10.0, 20.0, []), ledger.blocked(10.0, None, "203.0.113.77")
    ledger.end(first, 15.0)
    ledger.end(first, 18.0)
    ledger.end(second, 18.0)
    assert (first["until"], second["until"]) == (15.0, 18.0)


def test_a_window_ends_when_whoever_repairs_has_had_the_time_for_it():
    """With an agent that runs, right after the command; without one, after the return of the agent."""
    ledger = Ledger(window_seconds=0.25)
    assert ledger.window("flush", since=1.0, until=1.1)[1] == pytest.approx(1.35)
    late = ledger.window("agent down", since=1.0, until=None)
    assert ledger.any_window_open
    ledger.close_windows()
    assert not ledger.any_window_open
    assert late[1] == pytest.approx(time.monotonic() + 0.25, abs=5)
