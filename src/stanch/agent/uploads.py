"""What people have uploaded to the server, fetched for a task range by range, through outages.

The hash of the whole is checked by whoever writes it: here only the length of each range is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.core.errors import ActionFailed, NotFound, Unavailable
from stanch.core.files import Bytes
from stanch.core.frames import UPLOAD_PATH
from stanch.core.types import Upload

RANGE_BYTES = 4 * 1_048_576
"""Bytes that are asked for at once, and held in memory."""

log = structlog.get_logger(__name__)


class GatewayUploads:
    """The uploads of one task (`core.host.Uploads`)."""

    def __init__(
        self,
        *,
        task: str,
        gateway: Gateway,
        backoff: Callable[[], Backoff] = Backoff,
        range_bytes: int = RANGE_BYTES,
    ) -> None:
        self._task = task
        self._gateway = gateway
        self._backoff = backoff
        self._range_bytes = range_bytes

    @asynccontextmanager
    async def open(self, upload: Upload) -> AsyncIterator[Bytes]:
        """Its bytes, the first of which have come; waits out outages. NotFound if the server has it no more."""
        fetched = _Fetched(upload, self._fetch, self._range_bytes)
        await fetched.begin()
        yield fetched

    async def _fetch(self, upload: Upload, offset: int, length: int) -> bytes:
        """Exactly these bytes, or ActionFailed."""
        path = f"{UPLOAD_PATH}/{upload.id}?task={self._task}"
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        try:
            got = await self._through_outages(path, headers)
        except NotFound as error:
            raise _gone(upload, error) from error
        if len(got) != length:
            raise _wrong(upload, got=f"{len(got)} bytes at {offset}", expected=f"{length} bytes")
        return got

    async def _through_outages(self, path: str, headers: Mapping[str, str]) -> bytes:
        """Ask until there is an answer: the time limit of the task is what ends this."""
        backoff = self._backoff()
        while True:
            try:
                return await self._gateway.request("GET", path, headers=headers)
            except Unavailable as error:
                wait = backoff.next()
                log.info("upload-waits", task=self._task, error=str(error), next_try=round(wait, 1))
            await asyncio.sleep(wait)


class _Fetched:
    """The bytes of one upload; holds the one range that is being read."""

    def __init__(self, upload: Upload, fetch: Callable[[Upload, int, int], Awaitable[bytes]], range_bytes: int) -> None:
        self._upload = upload
        self._fetch = fetch
        self._range_bytes = range_bytes
        self._start = 0
        self._held = b""

    @property
    def size(self) -> int:
        """How many, as the order says."""
        return self._upload.size

    async def begin(self) -> None:
        """Fetch the first range, so that an upload that is gone is noticed before anything is made."""
        if self.size:
            await self._hold(0)

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, or ActionFailed."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise _wrong(self._upload, got=f"{length} bytes at {offset}", expected=f"{self.size} bytes in all")
        pieces, end = [], offset + length
        while offset < end:
            if not self._start <= offset < self._start + len(self._held):
                await self._hold(offset)
            piece = self._held[offset - self._start : end - self._start]
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _hold(self, offset: int) -> None:
        self._held = b""  # not two ranges at once
        self._held = await self._fetch(self._upload, offset, min(self._range_bytes, self.size - offset))
        self._start = offset


def _gone(upload: Upload, error: NotFound) -> NotFound:
    return NotFound(
        "The server does not have this upload any more",
        got=error.got or upload.id,
        hint="Upload the file again, and order it anew.",
    )


def _wrong(upload: Upload, *, got: str, expected: str) -> ActionFailed:
    name = upload.name or upload.id
    return ActionFailed(f"The server did not send {name} as it was asked to", got=got, expected=expected)
