"""Packs of rules and indicators on their way to this endpoint: range by range, through outages, and on where it was."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

import structlog

from stanch.agent.backoff import Backoff
from stanch.agent.content_store import MAX_TOTAL, ContentStore, PartFile
from stanch.core.content import CONTENT_PATH, PackIndex, PackRef
from stanch.core.errors import ActionFailed, NotFound, Refused, Unavailable, VerificationFailed

RANGE_BYTES = 4 * 2**20
"""Bytes that are asked for at once, and held in memory."""

log = structlog.get_logger(__name__)


class Asking(Protocol):
    """As much of the gateway as fetching needs."""

    async def request(self, method: str, path: str, *, headers: dict[str, str]) -> bytes:
        """The body of a good answer."""
        ...


class PackFetcher:
    """Fetches packs into the store."""

    def __init__(
        self,
        store: ContentStore,
        gateway: Asking,
        *,
        backoff: Callable[[], Backoff] = Backoff,
        range_bytes: int = RANGE_BYTES,
        patient: bool = True,
    ) -> None:
        """`patient`: wait until the server answers; otherwise one that does not is an error."""
        self._store = store
        self._gateway = gateway
        self._backoff = backoff
        self._range_bytes = range_bytes
        self._patient = patient

    async def fetch(self, ref: PackRef) -> PackIndex:
        """See that the store has the pack, and what the signature says; outages are waited out.

        Raises Refused if there is no room, NotFound, ActionFailed, VerificationFailed or Invalid for what the server
        sends, Unavailable if the disk does not take it.
        """
        if self._store.has(ref.sha256, ref.size):
            try:
                return await asyncio.to_thread(self._store.checked, ref)
            except VerificationFailed:  # the disk has damaged it meanwhile
                await asyncio.to_thread(self._store.discard, ref.sha256)
        await asyncio.to_thread(self._check_room, ref)
        with closing(await asyncio.to_thread(self._store.part, ref)) as part:
            index = await self._whole(ref, part)
            await asyncio.to_thread(part.finish)
        return index

    def _check_room(self, ref: PackRef) -> None:
        free = self._store.free()
        if ref.size > free:
            raise Refused(
                f"There is no room for {ref.name} {ref.version} on the disk of the endpoint",
                got=f"{free} bytes",
                expected=f"{ref.size} bytes",
            )

    async def _whole(self, ref: PackRef, part: PartFile) -> PackIndex:
        """All of it. What an earlier start has left may be damaged: then once more from the beginning."""
        resumed = part.size > 0
        try:
            return await self._all_of(ref, part)
        except VerificationFailed:
            part.restart()
            if not resumed:
                raise
        return await self._all_of(ref, part)

    async def _all_of(self, ref: PackRef, part: PartFile) -> PackIndex:
        if part.size > ref.size:
            part.restart()
        while (offset := part.size) < ref.size:
            await asyncio.to_thread(part.append, await self._range(ref, offset))
        return await asyncio.to_thread(part.check)

    async def _range(self, ref: PackRef, offset: int) -> bytes:
        """The next bytes, exactly as many as were asked for."""
        length = min(self._range_bytes, ref.size - offset)
        try:
            got = await self._through_outages(ref, {"Range": f"bytes={offset}-{offset + length - 1}"})
        except NotFound as error:
            hint = "It may have been replaced meanwhile: order update-content again."
            raise NotFound(
                f"The server does not have {ref.name} {ref.version} any more", got=error.got, hint=hint
            ) from error
        if len(got) != length:
            raise ActionFailed(
                f"The server did not send {ref.name} {ref.version} as it was asked to",
                got=f"{len(got)} bytes at {offset}",
                expected=f"{length} bytes",
            )
        return got

    async def _through_outages(self, ref: PackRef, headers: dict[str, str]) -> bytes:
        """Ask until there is an answer: the time limit of a task, or a stop of the agent, is what ends this."""
        backoff = self._backoff()
        while True:
            try:
                return await self._gateway.request("GET", f"{CONTENT_PATH}/{ref.sha256}", headers=headers)
            except Unavailable as error:
                if not self._patient:
                    raise
                wait = backoff.next()
                log.info("content-waits", name=ref.name, error=str(error), next_try=round(wait, 1))
            await asyncio.sleep(wait)


def fitting(wanted: tuple[PackRef, ...]) -> tuple[tuple[PackRef, ...], tuple[PackRef, ...]]:
    """What may be here, by name, within the bytes of all together; and what may not."""
    total, fits, not_fitting = 0, [], []
    for one in sorted(wanted, key=lambda ref: ref.name):
        if total + one.size <= MAX_TOTAL:
            total += one.size
            fits.append(one)
        else:
            not_fitting.append(one)
    return tuple(fits), tuple(not_fitting)
