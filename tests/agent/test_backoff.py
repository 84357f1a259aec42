"""Waits that grow, are bounded, and are spread."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.backoff import Backoff, system_jitter


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=100))
def test_waits_stay_within_their_bounds(jitter):
    """Each wait lies in the upper half of a step that doubles until it reaches the longest."""
    rest = iter(jitter)
    backoff = Backoff(first=1.0, longest=60.0, jitter=lambda: next(rest))
    for n in range(len(jitter)):
        step = min(2.0**n, 60.0)
        assert step / 2 <= backoff.next() <= step


def test_success_starts_anew():
    """After a success the next trouble starts with the shortest wait."""
    backoff = Backoff(first=1.0, longest=60.0, jitter=lambda: 0.0)
    waits = [backoff.next() for _ in range(4)]
    backoff.reset()
    assert (waits, backoff.next()) == ([0.5, 1.0, 2.0, 4.0], 0.5)


def test_the_systems_jitter_is_spread():
    """Two agents do not wait the same."""
    assert len({system_jitter() for _ in range(100)}) > 90
