"""What every route may ask for: the services, who asks, and where a list goes on."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Query, Request

from stanch.core.errors import Invalid, NotAuthenticated
from stanch.core.policy import Origin, Permission, Principal
from stanch.core.types import Id
from stanch.server.services import Services

ORIGIN_HEADER = "X-Stanch-Origin"
ORIGINS = (Origin.CLI, Origin.CONSOLE, Origin.API)
"""What a request may call itself. It says how somebody works, and grants nothing."""


async def services_of(request: Request) -> Services:
    """The services of this application."""
    services: Services = request.app.state.services
    return services


House = Annotated[Services, Depends(services_of)]


def bearer_token(request: Request) -> str:
    """The token of the request; NotAuthenticated if it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("The request carries no token", expected="Authorization: Bearer TOKEN")
    return token.strip()


async def principal_of(request: Request, services: House) -> Principal:
    """Who asks."""
    return await services.accounts.authenticate(bearer_token(request), origin_of(request))


def origin_of(request: Request) -> Origin:
    """How they ask; `api` unless they say otherwise."""
    said = request.headers.get(ORIGIN_HEADER, Origin.API)
    if said not in ORIGINS:
        raise Invalid(f"The header {ORIGIN_HEADER} is wrong", got=said[:100], expected=", ".join(ORIGINS))
    return Origin(said)


Caller = Annotated[Principal, Depends(principal_of)]


def _holding(permission: Permission) -> Callable[[Principal], Awaitable[Principal]]:
    async def holder(caller: Caller) -> Principal:
        caller.require(permission)
        return caller

    return holder


Reader = Annotated[Principal, Depends(_holding(Permission.READ))]
"""Somebody who may see endpoints, orders and tasks."""

Examiner = Annotated[Principal, Depends(_holding(Permission.EVIDENCE))]
"""Somebody who may download evidence."""

Uploader = Annotated[Principal, Depends(_holding(Permission.UPLOAD))]
"""Somebody who may bring files to the server."""

Curator = Annotated[Principal, Depends(_holding(Permission.CONTENT))]
"""Somebody who may import and publish content."""

Administrator = Annotated[Principal, Depends(_holding(Permission.ADMINISTER))]
"""Somebody who may read the audit."""

After = Annotated[Id | None, Query(description="Go on after this id.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]


def address_of(request: Request) -> str:
    """Where the request comes from."""
    return request.client.host if request.client else "unknown"


def announced(request: Request) -> int | None:
    """How long the body is said to be; None if it is not said, Invalid if that is no number."""
    length = request.headers.get("content-length")
    longest = 19
    if length is None:
        return None
    if not (length.isascii() and length.isdigit() and len(length) <= longest):
        raise Invalid("The header Content-Length is wrong", got=length[:100], expected="a number of bytes")
    return int(length)
