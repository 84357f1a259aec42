"""Values that cross a boundary are frozen, closed or loose as their base says, and describe their fields."""

import pytest
from pydantic import ValidationError

from stanch.core.model import LooseModel, Model


class Strict(Model):
    """A closed value."""

    n: float = 1
    """A number."""


class Loose(LooseModel):
    """An open value."""

    n: float = 1
    """A number."""


@pytest.mark.parametrize("kind", [Strict, Loose])
def test_values_are_frozen(kind: type[Strict]) -> None:
    """A value cannot be changed."""
    with pytest.raises(ValidationError):
        kind(n=1).n = 2


def test_closed_values_refuse_unknown_fields() -> None:
    """A typo in a parameter is an error."""
    with pytest.raises(ValidationError):
        Strict.model_validate({"m": 1})


def test_open_values_ignore_unknown_fields() -> None:
    """A newer peer may send more."""
    assert Loose.model_validate({"n": 2, "m": 1}) == Loose(n=2)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_are_numbers(number: str) -> None:
    """A value has no NaN and no infinity."""
    with pytest.raises(ValidationError):
        Strict.model_validate_json(f'{{"n": {number}}}')


def test_field_docstrings_are_descriptions() -> None:
    """The docstring below a field is its description."""
    assert Strict.model_fields["n"].description == "A number."
