"""Evidence on its way out: find it, look at it, download it."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from stanch.core.errors import Conflict
from stanch.core.model import LooseModel
from stanch.core.policy import Principal
from stanch.core.rest import EvidenceView
from stanch.core.types import Id
from stanch.server import audit
from stanch.server.api.asking import After, Examiner, House, Limit, Reader, address_of
from stanch.server.api.ranges import NotSatisfiable, Range, attachment, parse_range
from stanch.server.services import Services

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
    after: After = None,
    limit: Limit = 50,
) -> EvidencePage:
    """Evidence, newest first; of an order or a task, if one is named."""
    items, following = await services.evidence.list(
        order=order, task=task, after=after, limit=limit, labels=caller.labels
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
    if not view.complete:
        raise Conflict("The evidence is not complete yet", got=f"{view.received} of {view.size} bytes")
    headers = _headers(view)
    try:
        part = _asked_range(request, view)
    except NotSatisfiable:
        unsatisfiable = {**headers, "Content-Range": f"bytes */{view.size}"}
        return Response(status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=unsatisfiable)
    await _record(services, caller, view, address_of(request))
    whole = part or Range(0, view.size)
    headers["Content-Length"] = str(whole.length)
    if part is not None:
        headers["Content-Range"] = part.content_range(view.size)
    return StreamingResponse(
        await services.evidence.read(view, start=whole.start, length=whole.length),
        status_code=HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT,
        media_type="application/octet-stream",
        headers=headers,
    )


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


async def _record(services: Services, caller: Principal, view: EvidenceView, address: str) -> None:
    """Who took what, before they have it."""
    detail = {"endpoint": view.endpoint, "size": view.size, "address": address, "origin": caller.origin}
    entry = audit.Entry(at=services.now(), who=caller.name, what="download", subject=view.id, detail=detail)
    await services.database.write(lambda connection: audit.append(connection, entry))
