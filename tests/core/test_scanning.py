"""Tests of stanch.core.scanning: what comes out of the scanner is bounded, and nothing else in it is believed."""

import pytest
from pydantic import ValidationError

from stanch.core.scanning import MAX_LINES, Engine, Finding, Line, Object, Tally

SEEN = Object(document="FileItem", name="/x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"objects": ()},
        {"objects": (SEEN,) * 21},
        {"rule": "x" * 4001},
        {"why": (Line(text="x"),) * (MAX_LINES + 1)},
        {"tags": ("x" * 201,)},
        {"engine": "magic"},
    ],
)
def test_a_finding_is_bounded(wrong: dict[str, object]) -> None:
    """Without an object, or with more of anything than is told, it is no finding."""
    with pytest.raises(ValidationError):
        Finding.model_validate({"engine": Engine.YARA, "rule": "x", "objects": (SEEN,)} | wrong)


@pytest.mark.parametrize("wrong", [{"sha256": "x"}, {"pid": -1}, {"path": "relative"}, {"document": "x" * 65}])
def test_an_object_is_what_it_says(wrong: dict[str, object]) -> None:
    """A path is whole, a hash is one, a pid is none that cannot be."""
    with pytest.raises(ValidationError):
        Object.model_validate({"document": "FileItem", "name": "/x"} | wrong)


def test_unknown_fields_are_left() -> None:
    """A newer worker may say more."""
    assert Tally.model_validate({"files": 3, "news": "x"}).files == 3
