"""Sign in and out, and who am I; whether the server is well; its CA."""

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select

from stanch import __version__
from stanch.core.errors import NotAuthenticated
from stanch.core.policy import ROLES
from stanch.core.rest import Health, LoginRequest, Session, Whoami
from stanch.core.task import State
from stanch.server.api.asking import Caller, House, address_of, bearer_token, principal_of
from stanch.server.store.tables import tasks

router = APIRouter(tags=["access"])


@router.get("/health")
async def health(request: Request, services: House) -> Health:
    """Is the server well? Its version is told only to those who bring a token."""
    waiting = select(func.count()).select_from(tasks).where(tasks.c.state == State.QUEUED)
    queued = await services.database.read(lambda connection: connection.execute(waiting).scalar_one())
    return Health(
        status="ok", version=await _version(request, services), agents_online=len(services.fleet.online), queued=queued
    )


async def _version(request: Request, services: House) -> str:
    """Strangers need not know which version to look up weaknesses of."""
    try:
        await principal_of(request, services)
    except NotAuthenticated:
        return ""
    return __version__


@router.get("/ca", response_class=Response)
async def ca(services: House) -> Response:
    """The CA certificate, PEM; compare its hash with the pin that you were given."""
    return Response(services.authority.pem, media_type="application/x-pem-file")


@router.post("/login")
async def login(request: Request, wanted: LoginRequest, services: House) -> Session:
    """A token for a name and a password."""
    return await services.accounts.login(wanted, address=address_of(request))


@router.post("/logout", status_code=204)
async def logout(request: Request, _caller: Caller, services: House) -> None:
    """End the session of the token that the request carries."""
    await services.accounts.logout(bearer_token(request))


@router.get("/whoami")
async def whoami(caller: Caller) -> Whoami:
    """Who the bearer of the token is, and what they may do."""
    rights = [ROLES[role] for role in caller.roles]
    risks = [one.up_to for one in rights if one.up_to is not None]
    return Whoami(
        name=caller.name,
        roles=caller.roles,
        permissions=tuple(sorted({permission for one in rights for permission in one.permissions})),
        up_to=max(risks, key=lambda risk: risk.rank, default=None),
    )
