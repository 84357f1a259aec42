"""What is in a pack, and what in it does not count: found by a worker that can do nothing else.

The worker reads hostile bytes with a C library. What it answers is joined with the list of files, which the server has
checked itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from stanch.core.content import PackIndex
from stanch.core.errors import ActionFailed, StanchError, TimedOut, TooManyRequests
from stanch.core.rest_content import ContentFile, Lint, UnknownHere
from stanch.server.content_packs import Arrived, opened
from stanch.worker.ask_lint import Looked, ask_lint

AT_ONCE = 1
"""Workers at a time: each holds a processor and up to half a gigabyte."""
MAX_WAITING = 4

Ask = Callable[[int], Awaitable[Looked]]


class Linter:
    """Looks through packs, one at a time."""

    def __init__(self, *, ask: Ask = ask_lint) -> None:
        self._ask = ask
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def look(self, pack: Arrived) -> Lint:
        """What is in it. Content that kills its reader, or takes it too long, has no rule that counts.

        Raises TooManyRequests, and Unavailable if no worker can be started.
        """
        async with self._slot():
            with opened(pack.path) as descriptor:
                try:
                    looked = await self._ask(descriptor)
                except (ActionFailed, TimedOut) as error:
                    return _nothing(pack.index, error)
        return lint_of(pack.index, looked)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise TooManyRequests("Too much content is imported at once", hint="Try again in a minute.")
        self._waiting += 1
        try:
            async with self._slots:
                yield
        finally:
            self._waiting -= 1


def lint_of(index: PackIndex, looked: Looked) -> Lint:
    """What is told of a pack: of files that the worker did not come to, that none of their rules counts."""
    counted = [*looked.files[: len(index.files)], *[(0, 0)] * (len(index.files) - len(looked.files))]
    short = len(looked.files) < len(index.files)
    return Lint(
        files=tuple(
            ContentFile(name=one.name, size=one.size, sha256=one.sha256, rules=rules, problems=problems)
            for one, (rules, problems) in zip(index.files, counted, strict=True)
        ),
        problems=looked.problems,
        unknown=tuple(UnknownHere(term=term, times=times) for term, times in looked.unknown),
        complete=not short and not looked.why_incomplete,
        why_incomplete=looked.why_incomplete or ("the worker ended early" if short else ""),
        confined=looked.confined,
    )


def _nothing(index: PackIndex, error: StanchError) -> Lint:
    why = f"{error.message}: {error.got}" if error.got else error.message
    files = tuple(ContentFile(name=one.name, size=one.size, sha256=one.sha256) for one in index.files)
    return Lint(files=files, complete=False, why_incomplete=why[:500])
