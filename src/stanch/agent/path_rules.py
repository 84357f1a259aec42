"""What the owner of the machine says of paths, as one task meets it: by what a path leads to, whatever it was called.

Searches and patterns find files that no parameter named, and a link may be swapped after a parameter was judged. So
whoever opens, takes or puts a file asks here again, with the real path of the descriptor that it holds.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property

from stanch.core.errors import ForbiddenHere
from stanch.core.types import EndpointPath

Resolve = Callable[[bytes], bytes]
"""A path to what its links lead to."""


class PathRules:
    """The limits of one task. The first question asks the file system what the limits lead to: ask it in a thread."""

    def __init__(
        self,
        *,
        forbid: Sequence[EndpointPath] = (),
        write: Sequence[EndpointPath] | None = None,
        resolve: Resolve = os.path.realpath,
    ) -> None:
        self._forbid = forbid
        self._write = write
        self._resolve = resolve

    def check(self, path: EndpointPath) -> None:
        """ForbiddenHere if nobody from outside may touch what has this real path."""
        below = is_below(path, self._forbidden)
        if below is not None:
            raise ForbiddenHere("The owner of this machine forbids this path", got=path, expected=f"not below {below}")

    def check_write(self, path: EndpointPath) -> None:
        """ForbiddenHere if no file may be put at this real path either."""
        self.check(path)
        if self._write is not None and is_below(path, self._writable) is None:
            raise ForbiddenHere(
                "The owner of this machine forbids to put files here",
                got=path,
                expected=f"below {', '.join(self._write) or 'no folder'}",
            )

    @cached_property
    def _forbidden(self) -> tuple[EndpointPath, ...]:
        return self._both(self._forbid)

    @cached_property
    def _writable(self) -> tuple[EndpointPath, ...]:
        return self._both(self._write or ())

    def _both(self, named: Sequence[EndpointPath]) -> tuple[EndpointPath, ...]:
        """By the names that the owner wrote, and by what they lead to."""
        return (*named, *(EndpointPath.of(self._resolve(one.raw)) for one in named))


def is_below(path: EndpointPath, folders: Sequence[EndpointPath]) -> EndpointPath | None:
    """The first of these paths that this one is, or is below, by whole components; None if none."""
    parts = components(path.raw)
    for one in folders:
        below = components(one.raw)
        if parts[: len(below)] == below:
            return one
    return None


def components(path: bytes) -> list[bytes]:
    """The names in a path, `.` and `..` worked out by name."""
    return [part for part in os.path.normpath(path).split(b"/") if part]
