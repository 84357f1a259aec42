"""What counts as a detection."""

import re

import pytest

from stanch.core.detections import DETECTIONS, Severity


def test_severities_are_ordered():
    """One can ask for a severity and everything worse."""
    assert [one.rank for one in (Severity.LOW, Severity.MEDIUM, Severity.HIGH)] == [0, 1, 2]


@pytest.mark.parametrize("kind", DETECTIONS)
def test_each_kind_says_what_it_means(kind):
    """Its name is a notice's kind, its title a sentence without a full stop."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind)
    title = DETECTIONS[kind].title
    assert title[0].isupper()
    assert not title.endswith(".")


def test_tampering_is_urgent():
    """Nobody may overlook it among the rest."""
    assert DETECTIONS["isolation-tampered"].severity is Severity.HIGH
