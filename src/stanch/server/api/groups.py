"""Groups and their policies: look, make, change, delete."""

from collections.abc import Sequence

from fastapi import APIRouter

from stanch.core.rest import GroupChange, GroupCreate, GroupView, PolicyChange, PolicyView
from stanch.core.types import Name
from stanch.server.api.asking import Caller, House, Reader

router = APIRouter(tags=["groups"])


@router.get("/groups")
async def list_groups(_caller: Reader, services: House) -> Sequence[GroupView]:
    """All groups, the one that decides first at the top."""
    return await services.groups.list()


@router.post("/groups", status_code=201)
async def create_group(wanted: GroupCreate, caller: Caller, services: House) -> GroupView:
    """A new group. It says nothing until it gets a policy."""
    return await services.groups.create(caller, wanted)


@router.get("/groups/{name}")
async def show_group(name: Name, _caller: Reader, services: House) -> GroupView:
    """One group."""
    return await services.groups.get(name)


@router.patch("/groups/{name}")
async def change_group(name: Name, wanted: GroupChange, caller: Caller, services: House) -> GroupView:
    """Change labels, rank or description. The endpoints that it concerns are told at once."""
    return await services.groups.change(caller, name, wanted)


@router.delete("/groups/{name}", status_code=204)
async def delete_group(name: Name, caller: Caller, services: House) -> None:
    """Delete a group and its policy; its endpoints then follow their other groups."""
    await services.groups.delete(caller, name)


@router.get("/groups/{name}/policy")
async def show_policy(name: Name, _caller: Reader, services: House) -> PolicyView:
    """The policy of a group."""
    return await services.groups.policy(name)


@router.put("/groups/{name}/policy")
async def change_policy(name: Name, wanted: PolicyChange, caller: Caller, services: House) -> PolicyView:
    """Replace the policy of a group. Its endpoints are told at once."""
    return await services.groups.change_policy(caller, name, wanted)
