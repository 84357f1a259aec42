"""How many downloads of evidence may run: each holds a part in memory for as long as its reader takes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from stanch.core.errors import Unavailable

AT_ONCE = 16
"""Of everybody: at 8 MiB each, that is what they may take of the memory."""
OF_ONE = 4
"""Of one person, who may read slowly, or not at all: the others go on."""


class Downloads:
    """The places for downloads."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextmanager
    def place(self, who: str) -> Iterator[None]:
        """One of the places; Unavailable if they are taken: clients wait, and try again."""
        if self._of[who] >= OF_ONE:
            raise _too_many(f"{self._of[who]} of {who}", OF_ONE)
        if self._of.total() >= AT_ONCE:
            raise _too_many(f"{self._of.total()} in all", AT_ONCE)
        self._of[who] += 1
        try:
            yield
        finally:
            self._of[who] -= 1
            self._of += Counter()  # forget who has none


def _too_many(got: str, most: int) -> Unavailable:
    return Unavailable(
        "Too many downloads run at once", got=got, expected=f"at most {most}", hint="Try again when one has ended."
    )
