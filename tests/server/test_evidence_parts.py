"""Runs of parts: what of them is missing."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.frames import PartRun
from stanch.server.evidence_parts import without

NUMBERS = st.sets(st.integers(0, 40))


def runs_of(numbers: set[int], cuts: set[int]) -> list[PartRun]:
    """These numbers as runs, some of which touch."""
    runs: list[PartRun] = []
    for n in sorted(numbers):
        if runs and runs[-1].end == n and n not in cuts:
            runs[-1] = PartRun(first=runs[-1].first, count=runs[-1].count + 1)
        else:
            runs.append(PartRun(first=n, count=1))
    return runs


def numbers_of(runs: list[PartRun]) -> list[int]:
    return [n for run in runs for n in range(run.first, run.end)]


@given(some=NUMBERS, taken=NUMBERS, cuts=NUMBERS, other_cuts=NUMBERS)
def test_what_is_left_is_the_difference(some: set[int], taken: set[int], cuts: set[int], other_cuts: set[int]) -> None:
    """As sets have it, in order, however the runs are cut."""
    left = list(without(runs_of(some, cuts), runs_of(taken, other_cuts)))
    assert numbers_of(left) == sorted(some - taken)
