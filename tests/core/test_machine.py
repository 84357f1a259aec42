"""How a machine is brought down: the words for it, which are stored and must stay."""

import pytest

from stanch.core.machine import Ending, Hindrance


def test_the_ways_have_the_names_of_their_actions() -> None:
    """There is one action for each."""
    assert [str(one) for one in Ending] == ["reboot", "shutdown"]


def test_a_hindrance_does_not_change() -> None:
    """It was told so, and is compared as a value."""
    one = Hindrance("dpkg is changing packages", grave=True)
    assert one == Hindrance("dpkg is changing packages", grave=True)
    with pytest.raises(AttributeError):
        one.grave = False  # type: ignore[misc]  # that is the point
