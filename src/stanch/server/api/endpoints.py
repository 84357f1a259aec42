"""Endpoints: find them, label them, revoke them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.rest import EffectivePolicy, EndpointView, LabelChange, ReleaseCodes
from stanch.core.types import Label, Name, Text
from stanch.server.api.asking import After, Caller, House, Limit, Reader

router = APIRouter(tags=["endpoints"])

SearchText = Annotated[str, Query(max_length=200, description="Words that all must occur: name, address, MAC, user.")]
Labels = Annotated[list[Label], Query(max_length=20, description="`key=value`; all must be carried.")]
InGroup = Annotated[Name | None, Query(description="Only those of this group.")]
Reason = Annotated[Text, Query(description="Why you look; it stands in the audit.")]


class EndpointPage(LooseModel):
    """Some endpoints."""

    items: list[EndpointView]
    """By id."""
    next: str | None = Field(default=None)
    """Pass as `after` for the next page; null at the end."""


@router.get("/endpoints")
async def list_endpoints(
    *,
    _caller: Reader,
    services: House,
    label: Labels = [],  # noqa: B006 - FastAPI copies it, and a tuple cannot be repeated in a query
    search: SearchText = "",
    group: InGroup = None,
    after: After = None,
    limit: Limit = 100,
) -> EndpointPage:
    """Endpoints that contain every word, carry every label and belong to the group."""
    items, following = await services.fleet.search(text=search, labels=label, group=group, after=after, limit=limit)
    return EndpointPage(items=items, next=following)


@router.get("/endpoints/{name}")
async def show_endpoint(name: Name, _caller: Reader, services: House) -> EndpointView:
    """An endpoint, by id or host name."""
    return await services.fleet.get(name)


@router.patch("/endpoints/{name}/labels")
async def label_endpoint(name: Name, change: LabelChange, caller: Caller, services: House) -> EndpointView:
    """Set and remove labels."""
    labelled = await services.fleet.label(caller, name, change)
    services.standing.wake(labelled.id)
    return labelled


@router.post("/endpoints/{name}/revoke")
async def revoke_endpoint(name: Name, caller: Caller, services: House) -> EndpointView:
    """Accept its certificate no longer, and cut its link."""
    revoked = await services.fleet.revoke(caller, name)
    services.dispatcher.disconnect(revoked.id)
    return revoked


@router.get("/endpoints/{name}/policy")
async def effective_policy(name: Name, _caller: Reader, services: House) -> EffectivePolicy:
    """The settings that an endpoint follows, and which of its groups decided each section."""
    return await services.groups.effective(name)


@router.get("/endpoints/{name}/release-codes")
async def release_codes(name: Name, caller: Caller, services: House, reason: Reason = "") -> ReleaseCodes:
    """The codes that lift an isolation at the endpoint itself, newest first. Each look is in the audit."""
    return await services.code_desk.look(caller, name, reason)
