"""Enrolment tokens: make, list, withdraw."""

from collections.abc import Sequence

from fastapi import APIRouter

from stanch.core.rest import TokenCreate, TokenCreated, TokenView
from stanch.core.types import Id
from stanch.server.api.asking import Caller, House

router = APIRouter(tags=["tokens"])


@router.get("/tokens")
async def list_tokens(caller: Caller, services: House) -> Sequence[TokenView]:
    """Tokens that have not expired, newest first."""
    return await services.tokens.list(caller)


@router.post("/tokens", status_code=201)
async def create_token(wanted: TokenCreate, caller: Caller, services: House) -> TokenCreated:
    """A new token, with all that `stanch agent enroll` needs. Its secret is shown once."""
    view, secret = await services.tokens.create(caller, wanted)
    return TokenCreated(
        **view.model_dump(),
        token=secret,
        ca_pin=services.authority.pin,
        gateway_url=services.addresses.urls[0],
    )


@router.delete("/tokens/{token}", status_code=204)
async def revoke_token(token: Id, caller: Caller, services: House) -> None:
    """Withdraw a token; endpoints that enrolled with it stay."""
    await services.tokens.revoke(caller, token)
