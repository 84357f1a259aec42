"""Detections, as the store has them."""

import pytest

from stanch.core.detections import DETECTIONS
from stanch.core.errors import Invalid
from stanch.server.detections import kinds


def test_everything_without_a_question():
    """All kinds that are detections, no others."""
    assert list(kinds("", "")) == list(DETECTIONS)


def test_a_severity_is_the_least():
    """From medium on, without the low ones."""
    assert "local-order" not in kinds("", "medium")
    assert {"policy-changed", "isolation-tampered"} <= set(kinds("", "medium"))


def test_a_kind_that_is_milder_than_asked_is_none():
    """Both questions hold."""
    assert list(kinds("local-order", "high")) == []
    assert list(kinds("local-order", "low")) == ["local-order"]


@pytest.mark.parametrize(("kind", "severity"), [("flood", ""), ("", "dire"), ("effect-lifted", "")])
def test_what_is_unknown_is_refused(kind, severity):
    """A notice that is no detection is unknown here, too."""
    with pytest.raises(Invalid):
        kinds(kind, severity)
