"""Detections: what somebody should look at."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.rest import DetectionView
from stanch.server import detections
from stanch.server.api.asking import House, Limit, Reader

router = APIRouter(tags=["detections"])

AfterDetection = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Go on after the one of this number.")]
OfEndpoint = Annotated[str, Query(max_length=255, description="Only of this endpoint: id or host name.")]
OfKind = Annotated[str, Query(max_length=200, description="Only of this kind.")]
FromSeverity = Annotated[str, Query(max_length=20, description="low, medium or high: only these, and worse ones.")]


class DetectionPage(LooseModel):
    """Some detections."""

    items: list[DetectionView]
    """Newest first."""
    next: str | None = Field(default=None)
    """Pass as `after` for the next page; null at the end."""


@router.get("/detections")
async def list_detections(
    *,
    caller: Reader,
    services: House,
    endpoint: OfEndpoint = "",
    kind: OfKind = "",
    severity: FromSeverity = "",
    after: AfterDetection = None,
    limit: Limit = 50,
) -> DetectionPage:
    """What agents and the server noticed, newest first; on the endpoints that your labels let you act on."""
    items, following = await services.database.read(
        lambda connection: detections.page(
            connection, caller, endpoint=endpoint, kind=kind, severity=severity, after=after, limit=limit
        )
    )
    return DetectionPage(items=items, next=None if following is None else str(following))
