"""What the owner of the machine says of paths, as one task meets it: by what a path leads to, whatever it was called.

Searches and patterns find files that no parameter named, and a link may be swapped after a parameter was judged. So
whoever opens, takes or puts a file asks here again, with the real path of the descriptor that it holds.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from stanch.agent.interpreters import loads_code, runs_anything
from stanch.core.errors import ForbiddenHere
from stanch.core.types import EndpointPath

Resolve = Callable[[bytes], bytes]
"""A path to what its links lead to."""

_ANYTHING = "shells, interpreters, and what starts other programs"


class PathRules:
    """The limits of one task. The first question asks the file system what the limits lead to: ask it in a thread."""

    def __init__(
        self,
        *,
        forbid: Sequence[EndpointPath] = (),
        write: Sequence[EndpointPath] | None = None,
        programs: Sequence[EndpointPath] | None = None,
        interpreters: bool = True,
        resolve: Resolve = os.path.realpath,
    ) -> None:
        self._forbid = forbid
        self._write = write
        self._programs = programs
        self._interpreters = interpreters
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

    def check_program(self, path: EndpointPath) -> None:
        """ForbiddenHere if the program with this real path may not be run."""
        if self._programs is not None and is_below(path, self._runnable) is None:
            raise ForbiddenHere(
                "The owner of this machine forbids to run this program",
                got=path,
                expected=f"one below {', '.join(self._programs) or 'no folder'}",
            )
        if not self._interpreters and runs_anything(path):
            raise ForbiddenHere(f"The owner of this machine forbids to run {_ANYTHING}", got=path)

    def check_interpreter(self, script: EndpointPath, interpreter: EndpointPath) -> None:
        """ForbiddenHere if no script may be run; `interpreter` is what its first line names, by its real path."""
        if not self._interpreters:
            raise ForbiddenHere("The owner of this machine forbids to run scripts", got=f"{script}, by {interpreter}")

    def check_environment(self, names: Iterable[str]) -> None:
        """ForbiddenHere for variables by which a program that is allowed would run what is not."""
        if self._programs is None and self._interpreters:
            return
        loading = sorted(filter(loads_code, names))
        if loading:
            raise ForbiddenHere(
                "The owner of this machine limits programs, and these variables would let one run another",
                got=", ".join(loading)[:200],
                expected="other variables",
            )

    @property
    def forbidden(self) -> tuple[EndpointPath, ...]:
        """What nobody from outside may touch, with everything below."""
        return self._forbidden

    @cached_property
    def _runnable(self) -> tuple[EndpointPath, ...]:
        return self._both(self._programs or ())

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
