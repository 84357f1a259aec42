"""Downloads: few at once, fewer of one person."""

from contextlib import ExitStack

import pytest

from stanch.core.errors import Unavailable
from stanch.server.downloads import AT_ONCE, OF_ONE, Downloads


def test_one_person_leaves_places_for_others() -> None:
    """And gets theirs back."""
    downloads = Downloads()
    with ExitStack() as places:
        for _ in range(OF_ONE):
            places.enter_context(downloads.place("a"))
        with pytest.raises(Unavailable, match="Too many downloads"), downloads.place("a"):
            pass
        with downloads.place("b"):
            pass
    with downloads.place("a"):
        pass


def test_all_together_have_an_end() -> None:
    """Memory is bounded whoever asks."""
    downloads = Downloads()
    with ExitStack() as places:
        for n in range(AT_ONCE):
            places.enter_context(downloads.place(f"person {n // OF_ONE}"))
        with pytest.raises(Unavailable, match="Too many downloads"), downloads.place("another"):
            pass
