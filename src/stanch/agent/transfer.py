"""The way of evidence from the endpoint to the server: sealed, hashed parts, resumed from the first missing one.

The server keeps every part that it has committed, and says which ones those are; so after a cut, or a restart of
either side, at most the part that was on its way is sent again. The source is read once from start to end in any case:
the hash of the whole is taken here, and a part that no longer is what the server has means that the source has changed.
Parts that lie in holes are neither read nor sent, and still count in that hash as the zeros that they read as.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.agent.sealing import Sealed, Sealer, empty_runs
from stanch.core.errors import ActionFailed, Conflict, Invalid, Unavailable
from stanch.core.evidence import Source
from stanch.core.frames import (
    ENCODING_HEADER,
    EVIDENCE_PATH,
    MAX_PARTS,
    MAX_RUNS,
    PART_BYTES,
    PART_HASH_HEADER,
    PLAIN_HASH_HEADER,
    Encoding,
    EvidenceFinish,
    EvidenceHoles,
    EvidenceProgress,
    EvidenceStart,
    PartInfo,
    PartRun,
)
from stanch.core.host import Progress
from stanch.core.types import EvidenceRef

_JSON = {"Content-Type": "application/json"}
_ZEROS = bytes(1_048_576)

log = structlog.get_logger()
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that is ready; `sealed` is None if there is nothing to send."""

    n: int
    plain_sha256: str = ""
    sealed: Sealed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be sent where."""

    source: Source
    count: int
    empty: tuple[PartRun, ...]
    """Parts without data; none if the server cannot be told of them."""
    holes: tuple[PartRun, ...]
    """Parts without data, which need not be read."""
    sealer: Sealer
    path: str
    there: Mapping[int, PartInfo]


class EvidenceSender:
    """The evidence of one task (`core.host.Evidence`); one part is sent while the next one is sealed."""

    def __init__(
        self,
        *,
        task: str,
        gateway: Gateway,
        progress: Progress,
        recipient: Callable[[], str],
        backoff: Callable[[], Backoff] = Backoff,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._task = task
        self._gateway = gateway
        self._progress = progress
        self._recipient = recipient
        self._backoff = backoff
        self._part_bytes = part_bytes

    async def send(self, source: Source) -> EvidenceRef:
        """Send all of it, waiting out outages until cancelled; what the server has committed."""
        count = -(-source.size // self._part_bytes)
        if count > MAX_PARTS:
            most = MAX_PARTS * self._part_bytes
            raise Invalid("The source is too large", got=f"{source.size} bytes", expected=f"at most {most} bytes")
        plan = await self._begin(source, count)
        self._progress(0, source.size, "bytes", source.name[:200])
        if plan.empty:
            await self._tell_holes(plan)
        whole = hashlib.sha256()
        ready: asyncio.Queue[_Part | None] = asyncio.Queue(1)
        await both(self._prepare(plan, whole, ready), self._deliver_all(plan, ready))
        finish = EvidenceFinish(sha256=whole.hexdigest(), size=source.size)
        return await self._post(f"{plan.path}/finish", finish, EvidenceRef)

    async def _begin(self, source: Source, count: int) -> _Plan:
        """Hear what the server has, and what it takes."""
        holes = empty_runs(await source.extents(), size=source.size, part_bytes=self._part_bytes)[:MAX_RUNS]
        data = source.size - sum(self._span(source, run) for run in holes)
        start = EvidenceStart(task=self._task, name=source.name, size=source.size, data=data)
        before = await self._post(EVIDENCE_PATH, start, EvidenceProgress)
        return _Plan(
            source=source,
            count=count,
            empty=holes if before.holes else (),
            holes=holes,
            sealer=Sealer(self._recipient(), before),
            path=f"{EVIDENCE_PATH}/{before.evidence}",
            there={part.n: part for part in before.parts},
        )

    async def _tell_holes(self, plan: _Plan) -> None:
        try:
            await self._post(f"{plan.path}/holes", EvidenceHoles(runs=plan.empty), EvidenceHoles)
        except Conflict as error:
            raise _changed(plan.source.name, got=error.got, expected=error.expected) from error

    def _span(self, source: Source, run: PartRun) -> int:
        """Bytes of a run of parts."""
        return min(run.end * self._part_bytes, source.size) - run.first * self._part_bytes

    # --- getting parts ready -----------------------------------------------------------------------------------------

    async def _prepare(self, plan: _Plan, whole: "hashlib._Hash", ready: asyncio.Queue[_Part | None]) -> None:
        """Every part in its turn, added to the hash of the whole; None behind the last."""
        for run, is_hole in _in_order(plan.holes, plan.count):
            if is_hole and plan.empty:
                await _hash_hole(self._span(plan.source, run), whole)
                await ready.put(_Part(run.end - 1))
                continue
            for n in range(run.first, run.end):
                data = await self._data(plan.source, n, is_hole=is_hole)
                await ready.put(await self._part(plan, n, data, whole))
                del data
        await ready.put(None)

    async def _data(self, source: Source, n: int, *, is_hole: bool) -> bytes:
        offset = n * self._part_bytes
        length = min(self._part_bytes, source.size - offset)
        data = bytes(length) if is_hole else await source.read(offset, length)
        if len(data) != length:
            raise _changed(source.name, got=f"{len(data)} bytes at {offset}", expected=f"{length} bytes")
        return data

    async def _part(self, plan: _Plan, n: int, data: bytes, whole: "hashlib._Hash") -> _Part:
        """Hashed; and sealed, unless the server has it."""
        there = plan.there.get(n)
        if there is not None or not plan.sealer.seals:
            sha256 = await asyncio.to_thread(_digest, data, whole)
            if there is None:
                return _Part(n, sha256, Sealed(data, sha256, Encoding.PLAIN))
            if (there.size, there.sha256) != (len(data), sha256):
                raise _changed(plan.source.name, got=sha256, expected=there.sha256)
            return _Part(n)
        sha256, sealed = await both(asyncio.to_thread(_digest, data, whole), asyncio.to_thread(plan.sealer.seal, data))
        return _Part(n, sha256, sealed)

    # --- sending them ------------------------------------------------------------------------------------------------

    async def _deliver_all(self, plan: _Plan, ready: asyncio.Queue[_Part | None]) -> None:
        size = plan.source.size
        while (part := await ready.get()) is not None:
            if part.sealed is not None:
                await self._deliver(plan, part, part.sealed)
            self._progress(min((part.n + 1) * self._part_bytes, size), size, "bytes", plan.source.name[:200])
            del part

    async def _deliver(self, plan: _Plan, part: _Part, sealed: Sealed) -> None:
        path, headers = f"{plan.path}/parts/{part.n}", {PART_HASH_HEADER: sealed.sha256}
        if sealed.encoding is not Encoding.PLAIN:
            headers |= {ENCODING_HEADER: sealed.encoding.value, PLAIN_HASH_HEADER: part.plain_sha256}
        try:
            await self._through_outages(lambda: self._gateway.request("PUT", path, sealed.body, headers=headers))
        except Conflict as error:
            raise _changed(plan.source.name, got=error.got, expected=error.expected) from error

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


def _in_order(holes: tuple[PartRun, ...], count: int) -> Iterator[tuple[PartRun, bool]]:
    """Runs over all parts, and whether each is one of these."""
    behind = 0
    for run in holes:
        if run.first > behind:
            yield PartRun(first=behind, count=run.first - behind), False
        yield run, True
        behind = run.end
    if behind < count:
        yield PartRun(first=behind, count=count - behind), False


async def _hash_hole(length: int, whole: "hashlib._Hash") -> None:
    """So many zeros, in threads that do not go on for long when nobody wants them any more."""
    while length > 0:
        here = min(length, 64 * len(_ZEROS))
        await asyncio.to_thread(_hash_zeros, here, whole)
        length -= here


def _hash_zeros(length: int, whole: "hashlib._Hash") -> None:
    for _ in range(length // len(_ZEROS)):
        whole.update(_ZEROS)
    whole.update(_ZEROS[: length % len(_ZEROS)])


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
