"""Previews of evidence: some bytes of it, rendered by a worker that can do nothing else.

The server itself looks at the first bytes only, to choose how to show them. What the worker answers is validated like
anything else from outside: it has met hostile bytes, and they may have won.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pydantic import ValidationError

from stanch.core.errors import ActionFailed, Conflict, Invalid, NotFound, TooManyRequests
from stanch.core.rest_evidence import MOST, UNSAID, EvidenceView, Preview, PreviewKind
from stanch.server.evidence import Evidence
from stanch.worker.ask import Answer, Request, ask
from stanch.worker.kinds import LOOKED_AT, choose

AT_ONCE = 2
"""Workers at a time: each holds a processor, and its input in memory."""
MAX_WAITING = 16

_FIRST = 4
"""Bytes that a mark of an encoding may take."""

Ask = Callable[[Request, bytes], Awaitable[Answer]]


class Previews:
    """Shows evidence."""

    def __init__(self, evidence: Evidence, *, ask: Ask = ask) -> None:
        self._evidence = evidence
        self._ask = ask
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def show(self, view: EvidenceView, wanted: PreviewKind, *, offset: int, length: int | None) -> Preview:
        """This part of it, in this way; `length` None for as much as suits that.

        Raises Conflict while it is incomplete, NotFound once it is deleted, Invalid for what is not in it or too much,
        TooManyRequests, and ActionFailed if it cannot be rendered.
        """
        readable(view)
        if offset > view.size:
            raise Invalid("The evidence is not so long", got=offset, expected=f"at most {view.size}")
        async with self._slot():
            kind = await self._chosen(view, wanted, offset)
            length = _length(view, kind, offset, length)
            request = Request(
                kind=kind.value,
                offset=offset,
                more=offset + length < view.size,
                first=(await self._read(view, 0, _FIRST)).hex(),
            )
            answer = await self._ask(request, await self._read(view, offset, length))
        return _preview(view, kind, offset, length, answer)

    async def _chosen(self, view: EvidenceView, wanted: PreviewKind, offset: int) -> PreviewKind:
        if wanted is not PreviewKind.AUTO:
            return wanted
        first = await self._read(view, offset, LOOKED_AT)
        return PreviewKind(choose(first, from_start=offset == 0))

    async def _read(self, view: EvidenceView, start: int, length: int) -> bytes:
        length = max(0, min(length, view.size - start))
        return b"".join([block async for block in await self._evidence.read(view, start=start, length=length)])

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A place at the workers; many may ask, few may wait."""
        if self._waiting >= MAX_WAITING:
            raise TooManyRequests("Too many previews are asked for at once", hint="Try again in some seconds.")
        self._waiting += 1
        try:
            async with self._slots:
                yield
        finally:
            self._waiting -= 1


def readable(view: EvidenceView) -> None:
    """Raise unless its bytes are all here: NotFound if they were deleted, Conflict if they are not complete yet."""
    if view.deleted is not None:
        raise NotFound(
            "This evidence was deleted",
            got=f"{view.id}, by {view.deleted_by} at {view.deleted.isoformat(timespec='seconds')}",
            hint="Its hash and who deleted it are still known: `stanch evidence list --deleted`.",
        )
    if not view.complete:
        raise Conflict("The evidence is not complete yet", got=f"{view.received} of {view.size} bytes")


def _length(view: EvidenceView, kind: PreviewKind, offset: int, length: int | None) -> int:
    if kind is PreviewKind.ELF and offset:
        raise Invalid("The structure of a program is shown from its beginning", got=f"offset {offset}", expected="0")
    if length is not None and length > MOST[kind]:
        raise Invalid(f"Too much to be shown as {kind}", got=length, expected=f"at most {MOST[kind]} bytes")
    return min(UNSAID[kind] if length is None else length, view.size - offset)


def _preview(view: EvidenceView, kind: PreviewKind, offset: int, length: int, answer: Answer) -> Preview:
    about = {"evidence": view.id, "kind": kind, "size": view.size, "offset": offset, "length": length}
    try:
        return Preview.model_validate({**about, kind.value: answer.shown, "confined": answer.confined})
    except ValidationError as error:
        raise ActionFailed("The worker answered nonsense", got=f"{error.error_count()} errors") from None
