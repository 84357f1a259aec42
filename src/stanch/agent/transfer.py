"""The way of evidence from the endpoint to the server: hashed parts, resumed from the first missing one.

The server keeps every part that it has committed, and says which ones those are; so after a cut, or a restart of
either side, at most the part that was on its way is sent again. The source is read once from start to end in any case:
the hash of the whole is taken here, and a part that no longer is what the server has means that the source has changed.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.core.errors import ActionFailed, Conflict, Invalid, Unavailable
from stanch.core.frames import (
    EVIDENCE_PATH,
    MAX_PARTS,
    PART_BYTES,
    PART_HASH_HEADER,
    EvidenceFinish,
    EvidenceProgress,
    EvidenceStart,
    PartInfo,
)
from stanch.core.host import Progress, Source
from stanch.core.types import EvidenceRef

_JSON = {"Content-Type": "application/json"}

log = structlog.get_logger()
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class _Part:
    """A part in memory, with its hash."""

    source: str
    data: bytes
    sha256: str


class EvidenceSender:
    """The evidence of one task (`core.host.Evidence`); one part is read while one is sent."""

    def __init__(
        self,
        *,
        task: str,
        gateway: Gateway,
        progress: Progress,
        backoff: Callable[[], Backoff] = Backoff,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._task = task
        self._gateway = gateway
        self._progress = progress
        self._backoff = backoff
        self._part_bytes = part_bytes

    async def send(self, source: Source) -> EvidenceRef:
        """Send all of it, waiting out outages until cancelled; what the server has committed."""
        count = -(-source.size // self._part_bytes)
        if count > MAX_PARTS:
            most = MAX_PARTS * self._part_bytes
            raise Invalid("The source is too large", got=f"{source.size} bytes", expected=f"at most {most} bytes")
        start = EvidenceStart(task=self._task, name=source.name, size=source.size)
        before = await self._post(EVIDENCE_PATH, start, EvidenceProgress)
        there = {part.n: part for part in before.parts}
        self._progress(0, source.size, "bytes", source.name[:200])
        whole = await self._send_parts(source, count, f"{EVIDENCE_PATH}/{before.evidence}", there)
        finish = EvidenceFinish(sha256=whole, size=source.size)
        return await self._post(f"{EVIDENCE_PATH}/{before.evidence}/finish", finish, EvidenceRef)

    async def _send_parts(self, source: Source, count: int, path: str, there: Mapping[int, PartInfo]) -> str:
        """The SHA-256 of the whole, when all parts are there."""
        whole = hashlib.sha256()
        part = await self._read(source, 0, whole)
        for n in range(count):
            ahead = self._read(source, n + 1, whole)
            part, _ = await both(ahead, self._deliver(part, f"{path}/parts/{n}", there.get(n)))
            self._progress(min((n + 1) * self._part_bytes, source.size), source.size, "bytes", source.name[:200])
        return whole.hexdigest()

    async def _read(self, source: Source, n: int, whole: "hashlib._Hash") -> _Part:
        """Part `n`, added to the hash of the whole; an empty one after the end."""
        offset = n * self._part_bytes
        length = min(self._part_bytes, max(source.size - offset, 0))
        data = await source.read(offset, length) if length else b""
        if len(data) != length:
            raise _changed(source.name, got=f"{len(data)} bytes at {offset}", expected=f"{length} bytes")
        return _Part(source.name, data, await asyncio.to_thread(_digest, data, whole))

    async def _deliver(self, part: _Part, path: str, there: PartInfo | None) -> None:
        if there is not None:
            if (there.size, there.sha256) != (len(part.data), part.sha256):
                raise _changed(part.source, got=part.sha256, expected=there.sha256)
            return
        headers = {PART_HASH_HEADER: part.sha256}
        try:
            await self._through_outages(lambda: self._gateway.request("PUT", path, part.data, headers=headers))
        except Conflict as error:
            raise _changed(part.source, got=error.got, expected=error.expected) from error

    async def _post(self, path: str, body: BaseModel, answer: type[M]) -> M:
        raw = body.model_dump_json().encode()
        got = await self._through_outages(lambda: self._gateway.request("POST", path, raw, headers=_JSON))
        try:
            return answer.model_validate_json(got)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Invalid("The server's answer is malformed", got=where, expected=first["msg"]) from None

    async def _through_outages(self, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        """Ask until there is an answer: the time limit of the task is what ends this."""
        backoff = self._backoff()
        while True:
            try:
                return await ask()
            except Unavailable as error:
                wait = backoff.next()
                log.info("evidence-waits", task=self._task, error=str(error), next_try=round(wait, 1))
            await asyncio.sleep(wait)


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Run both at once; if one fails, cancel the other and raise that error by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return one.result(), two.result()


def _digest(data: bytes, whole: "hashlib._Hash") -> str:
    whole.update(data)
    return hashlib.sha256(data).hexdigest()


def _changed(source: str, *, got: object, expected: object) -> ActionFailed:
    return ActionFailed(
        f"{source} changed while it was sent",
        got=got,
        expected=expected,
        hint="Order it again; what was sent belongs to the earlier content.",
    )
