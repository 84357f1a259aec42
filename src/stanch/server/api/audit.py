"""The audit: read it, and verify that nobody changed it."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.rest import AuditEntryView, AuditVerified
from stanch.server import audit
from stanch.server.api.asking import Administrator, House, Limit

router = APIRouter(tags=["audit"])

AfterEntry = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Go on after the entry of this number.")]


class AuditPage(LooseModel):
    """Some entries."""

    items: list[AuditEntryView]
    """Newest first."""
    next: str | None = Field(default=None)
    """Pass as `after` for the next page; null at the end."""


@router.get("/audit")
async def list_audit(_caller: Administrator, services: House, after: AfterEntry = None, limit: Limit = 50) -> AuditPage:
    """Who did what, newest first."""
    items, following = await services.database.read(lambda connection: audit.page(connection, after, limit))
    return AuditPage(items=items, next=None if following is None else str(following))


@router.get("/audit/verify")
async def verify_audit(_caller: Administrator, services: House) -> AuditVerified:
    """Walk the whole chain of hashes; the error names the first entry that does not fit."""
    return await services.database.read(audit.verify)
