"""What is wrong with a file of indicators."""

from stanch.core.ioc.errors import Unreadable


def test_all_that_is_known_is_said_in_one_line():
    """And what is not known is left out."""
    assert str(Unreadable("Wrong")) == "Wrong"
    assert str(Unreadable("Wrong", got="a", expected="b", line=3)) == "Wrong, at line 3, got a, expected b"


def test_what_was_got_is_bounded():
    """It comes from a hostile file."""
    assert len(Unreadable("Wrong", got="x" * 9999).got) == 500
