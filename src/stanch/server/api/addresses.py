"""Where agents reach the server: see it, and announce an address ahead of a move."""

from fastapi import APIRouter

from stanch.core.rest import ServerAddresses, ServerAddressesView
from stanch.server.api.asking import Caller, House

router = APIRouter(tags=["server"])


@router.get("/server/addresses")
async def show_addresses(caller: Caller, services: House) -> ServerAddressesView:
    """What agents are told."""
    return services.addresses.view(caller)


@router.put("/server/addresses")
async def announce_addresses(wanted: ServerAddresses, caller: Caller, services: House) -> ServerAddressesView:
    """Announce these addresses, and no others, besides those of the configuration. Agents are told at once."""
    return await services.addresses.announce(caller, wanted)
