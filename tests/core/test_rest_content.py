"""The bodies about content: what is not said means everybody, and what is odd is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from stanch.core.rest_content import ForGroups, Lint, Publish
from stanch.server.groups import EVERY


def test_nobody_named_is_everybody() -> None:
    """The group of every endpoint, as the server calls it."""
    assert Publish(version=1).groups == (EVERY,)
    assert ForGroups().groups is None


@pytest.mark.parametrize("odd", [{}, {"version": 0}, {"version": 1, "groups": []}, {"version": 1, "group": "web"}])
def test_odd_requests(odd: dict[str, Any]) -> None:
    """No version, no group at all, or a word that we do not know."""
    with pytest.raises(ValidationError):
        Publish.model_validate(odd)


def test_what_was_found_is_bounded() -> None:
    """It comes from a process that met hostile bytes."""
    with pytest.raises(ValidationError):
        Lint.model_validate({"problems": [{"text": "x"}] * 1001})
    assert Lint.model_validate({"from_tomorrow": 1}).complete
