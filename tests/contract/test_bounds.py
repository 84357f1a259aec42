"""The search for what is unbounded or undescribed finds it, at any depth."""

from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from pydantic import Field

from stanch.core.model import Model
from stanch.core.types import Duration, EndpointPath, Network, Pid, Text
from tests.contract.bounds import unbounded, undescribed


class Inner(Model):
    """Inside."""

    size: int
    """A number without an end."""


class Open(Model):
    """Everything that a field can forget."""

    text: str
    """Any text."""
    many: tuple[Pid, ...]
    """Any number of pids."""
    deep: Annotated[tuple[Inner, ...], Field(max_length=3)]
    """Few, but of what?"""
    maybe: str | None = None
    """Any text, or none."""
    table: Mapping[str, Text] = {}
    """Any number of texts."""
    number: float = 0
    silent: Text = ""


class Shut(Model):
    """Everything bounded."""

    text: Text
    """A text."""
    path: EndpointPath | None
    """A path."""
    networks: Annotated[tuple[Network, ...], Field(max_length=3)]
    """Networks."""
    lasts: Duration
    """A duration."""
    yes: bool
    """Yes or no."""


def test_open_values_are_found() -> None:
    """Each of the open fields is named, and nothing else is."""
    found = {where.rpartition(".")[2] for where in unbounded(Open.model_json_schema())}
    assert found == {"text", "many", "size", "maybe", "table", "number"}


def test_silent_fields_are_found() -> None:
    """Fields without a docstring are named."""
    assert undescribed(Open.model_json_schema()) == [".number", ".silent"]


def test_shut_values_pass() -> None:
    """Bounded and described fields are not named."""
    assert not unbounded(Shut.model_json_schema())
    assert not undescribed(Shut.model_json_schema())


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}},
        {"anyOf": [{"type": "null"}, {"type": "object"}]},
        {"$defs": {"A": {"type": "number"}}},
        {"type": "array", "maxItems": 2, "prefixItems": [{"type": "string"}]},
    ],
)
def test_the_search_goes_everywhere(schema: dict[str, Any]) -> None:
    """An open value is found inside arrays, alternatives and definitions."""
    assert unbounded(schema)
