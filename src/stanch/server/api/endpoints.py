"""Endpoints: find them, label them, revoke them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.rest import EndpointView, LabelChange
from stanch.core.types import Label, Name
from stanch.server.api.asking import After, Caller, House, Limit, Reader

router = APIRouter(tags=["endpoints"])

SearchText = Annotated[str, Query(max_length=200, description="Words that all must occur: name, address, MAC, user.")]
Labels = Annotated[list[Label], Query(max_length=20, description="`key=value`; all must be carried.")]


class EndpointPage(LooseModel):
    """Some endpoints."""

    items: list[EndpointView]
    """By id."""
    next: str | None = Field(default=None)
    """Pass as `after` for the next page; null at the end."""


@router.get("/endpoints")
async def list_endpoints(
    _caller: Reader,
    services: House,
    label: Labels = [],  # noqa: B006 - FastAPI copies it, and a tuple cannot be repeated in a query
    search: SearchText = "",
    after: After = None,
    limit: Limit = 100,
) -> EndpointPage:
    """Endpoints that contain every word and carry every label."""
    items, following = await services.fleet.search(text=search, labels=label, after=after, limit=limit)
    return EndpointPage(items=items, next=following)


@router.get("/endpoints/{name}")
async def show_endpoint(name: Name, _caller: Reader, services: House) -> EndpointView:
    """An endpoint, by id or host name."""
    return await services.fleet.get(name)


@router.patch("/endpoints/{name}/labels")
async def label_endpoint(name: Name, change: LabelChange, caller: Caller, services: House) -> EndpointView:
    """Set and remove labels."""
    return await services.fleet.label(caller, name, change)


@router.post("/endpoints/{name}/revoke")
async def revoke_endpoint(name: Name, caller: Caller, services: House) -> EndpointView:
    """Accept its certificate no longer, and cut its link."""
    revoked = await services.fleet.revoke(caller, name)
    services.dispatcher.disconnect(revoked.id)
    return revoked
