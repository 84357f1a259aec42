"""Evidence on its way out: find it, look into it, download it, verify it, delete it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.types import Receive, Scope, Send

from stanch.core.errors import StanchError, Unavailable
from stanch.core.model import LooseModel
from stanch.core.policy import Permission, Principal
from stanch.core.rest_evidence import MOST, EvidenceVerdict, EvidenceView, Preview, PreviewKind
from stanch.core.types import Id, Instant, Name
from stanch.server import audit
from stanch.server.api.asking import After, Caller, Examiner, House, Limit, Reader, address_of
from stanch.server.api.ranges import NotSatisfiable, Range, attachment, parse_range
from stanch.server.evidence_keeping import MAX_REASON
from stanch.server.previews import readable
from stanch.server.services import Services

MAX_LENGTH = max(MOST.values())
LOOK_SECONDS = 1.0
"""How often it is looked whether somebody still waits."""

T = TypeVar("T")

log = structlog.get_logger(__name__)

router = APIRouter(tags=["evidence"])


class EvidencePage(LooseModel):
    """Some evidence."""

    items: list[EvidenceView]
    """Newest first."""
    next: str | None = Field(default=None)
    """Pass as `after` for the next page; null at the end."""


@router.get("/evidence")
async def list_evidence(
    caller: Reader,
    services: House,
    *,
    order: Id | None = None,
    task: Id | None = None,
    endpoint: Name | None = None,
    since: Instant | None = None,
    deleted: bool = False,
    after: After = None,
    limit: Limit = 50,
) -> EvidencePage:
    """Evidence, newest first; of an order, a task or an endpoint (id or host name), if one is named.

    With `deleted`, what is left of deleted evidence instead: who deleted it, when and why, and its hash.
    """
    items, following = await services.evidence.list(
        order=order,
        task=task,
        endpoint=endpoint,
        since=since,
        deleted=deleted,
        after=after,
        limit=limit,
        labels=caller.labels,
    )
    return EvidencePage(items=items, next=following)


@router.get("/evidence/{evidence}")
async def show_evidence(evidence: Id, caller: Reader, services: House) -> EvidenceView:
    """What it is, how large, and its hash."""
    return await services.evidence.show(caller, evidence)


@router.get("/evidence/{evidence}/content", response_class=StreamingResponse)
async def download(request: Request, evidence: Id, caller: Examiner, services: House) -> Response:
    """The bytes, or one range of them. Every download stands in the audit."""
    view = await services.evidence.show(caller, evidence)
    readable(view)
    headers = _headers(view)
    try:
        part = _asked_range(request, view)
    except NotSatisfiable:
        unsatisfiable = {**headers, "Content-Range": f"bytes */{view.size}"}
        return Response(status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=unsatisfiable)
    whole = part or Range(0, view.size)
    headers["Content-Length"] = str(whole.length)
    if part is not None:
        headers["Content-Range"] = part.content_range(view.size)
    with ExitStack() as places:
        places.enter_context(services.downloads.place(caller.name))
        await _record(services, caller, view, "download", address_of(request))
        blocks = await services.evidence.read(view, start=whole.start, length=whole.length)
        first = await anext(blocks, b"")  # what is damaged is refused with its reason, as long as nothing was sent
        return Download(
            _chained(first, blocks),
            places.pop_all(),
            status_code=HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT,
            headers=headers,
        )


class Download(StreamingResponse):
    """Bytes on their way, which hold a place among the downloads until they end in whatever way."""

    media_type = "application/octet-stream"

    def __init__(
        self, content: AsyncIterator[bytes], place: ExitStack, *, status_code: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(content, status_code=status_code, headers=headers)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them; at damage the connection is cut: whoever goes on from there is told why."""
        with self._place:
            try:
                await super().__call__(scope, receive, send)
            except StanchError as error:
                log.error("a download was cut", path=scope["path"], why=str(error))  # noqa: TRY400 - it is no error of ours


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in rest:
        yield block


@router.get("/evidence/{evidence}/preview")
async def preview(
    request: Request,
    evidence: Id,
    caller: Examiner,
    services: House,
    *,
    kind: Annotated[PreviewKind, Query(alias="as", description="How to show it.")] = PreviewKind.AUTO,
    offset: Annotated[int, Query(ge=0, le=2**50, description="Where to begin, in bytes.")] = 0,
    length: Annotated[int | None, Query(ge=1, le=MAX_LENGTH, description="Bytes to look at.")] = None,
) -> Preview:
    """What it looks like inside, rendered by a process that can do nothing else. It stands in the audit."""
    view = await services.evidence.show(caller, evidence)
    readable(view)
    about = {"as": kind, "offset": offset, "length": length}
    await _record(services, caller, view, "preview", address_of(request), **about)
    return await services.previews.show(view, kind, offset=offset, length=length)


@router.post("/evidence/{evidence}/verify")
async def verify(request: Request, evidence: Id, caller: Examiner, services: House) -> EvidenceVerdict:
    """Read all of it on the server, and say whether it is still what the endpoint sent. It stands in the audit."""
    return await _while_wanted(request, services.keeping.verify(caller, evidence, address=address_of(request)))


@router.delete("/evidence/{evidence}")
async def delete(
    request: Request,
    evidence: Id,
    caller: Caller,
    services: House,
    reason: Annotated[str, Query(min_length=1, max_length=MAX_REASON, description="Why; it stands in the audit.")],
) -> EvidenceView:
    """Remove its bytes for good. What is left says who did, when and why, and what its hash was."""
    caller.require(Permission.DELETE_EVIDENCE)
    return await services.keeping.delete(caller, evidence, reason=reason, address=address_of(request))


async def _while_wanted(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do it, unless the client goes away: terabytes would be read for nobody, in the place of somebody else."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if not task.done() and await request.is_disconnected():
                raise Unavailable("The client went away")
        return await task
    finally:
        task.cancel()


def _headers(view: EvidenceView) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{view.sha256}"',
        "Content-Disposition": attachment(view.name, otherwise=view.id),
    }


def _asked_range(request: Request, view: EvidenceView) -> Range | None:
    """The range, unless it was meant for another content."""
    condition = request.headers.get("if-range")
    if condition is not None and condition != f'"{view.sha256}"':
        return None
    return parse_range(request.headers.get("range"), view.size)


async def _record(
    services: Services, caller: Principal, view: EvidenceView, what: str, address: str, **more: object
) -> None:
    """Who took what, before they have it."""
    detail = {"endpoint": view.endpoint, "size": view.size, "address": address, "origin": caller.origin, **more}
    entry = audit.Entry(at=services.now(), who=caller.name, what=what, subject=view.id, detail=detail)
    await services.database.write(lambda connection: audit.append(connection, entry))
