"""Content: import rules and indicators, look at them, publish them to endpoints, go back, remove."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from stanch.core.content import ContentName
from stanch.core.rest_content import (
    ContentDetail,
    ContentRoom,
    ContentView,
    ForGroups,
    Imported,
    Lint,
    Prune,
    Pruned,
    Publish,
    VersionDetail,
)
from stanch.core.types import Sha256
from stanch.server.api.asking import Curator, House, Reader, address_of, announced
from stanch.server.api.evidence import Download
from stanch.server.api.ranges import attachment
from stanch.server.upload_files import BLOCK

router = APIRouter(tags=["content"])

Name = Annotated[ContentName, Query(description="What the content is called.")]
Number = Annotated[int, Path(ge=1, le=2**31, description="Number of the version.")]
Digest = Annotated[Sha256 | None, Query(description="SHA-256 of the pack, hexadecimal.")]
Note = Annotated[str, Query(max_length=2000, description="What people should know about this version.")]
Strict = Annotated[bool, Query(description="Refuse it if anything in it does not count.")]


@router.post("/content", status_code=201)
async def import_content(
    request: Request,
    name: Name,
    caller: Curator,
    services: House,
    *,
    sha256: Digest = None,
    note: Note = "",
    strict: Strict = False,
) -> Imported:
    """Keep the body of the request, a pack, as the newest version of this content. It is published to nobody yet.

    A pack is a line of JSON, `{"stanch_pack": 1, "kind": ..., "files": [{"name", "size", "sha256"}, ...]}` with the
    files in the order of their names, then their bytes one after another. The very same pack again makes no version.
    """
    return await services.content.take(
        caller,
        name,
        request.stream(),
        announced=announced(request),
        sha256=sha256,
        note=note,
        strict=strict,
        detail={"address": address_of(request)},
    )


@router.post("/content-check")
async def check_content(request: Request, caller: Curator, services: House) -> Lint:
    """Look through the body of the request, a pack, and keep nothing of it."""
    return await services.content.check(caller, request.stream(), announced=announced(request))


@router.get("/content")
async def all_content(_caller: Reader, services: House) -> Sequence[ContentView]:
    """All content, by name: which version is current for whom."""
    return await services.content.list()


@router.get("/content/{name}")
async def show_content(name: ContentName, _caller: Reader, services: House) -> ContentDetail:
    """One content, with its versions and what was published."""
    return await services.content.get(name)


@router.get("/content/{name}/versions/{version}")
async def show_version(name: ContentName, version: Number, _caller: Reader, services: House) -> VersionDetail:
    """One version: its files, how many rules count, and what is wrong with the others."""
    return await services.content.version(name, version)


@router.get("/content/{name}/versions/{version}/pack", response_class=StreamingResponse)
async def fetch_pack(
    request: Request, name: ContentName, version: Number, caller: Curator, services: House
) -> StreamingResponse:
    """The pack of a version, byte for byte as it was imported. Every download stands in the audit."""
    with ExitStack() as places:
        places.enter_context(services.downloads.place(caller.name))
        found, pack = await services.content.read(caller, name, version, detail={"address": address_of(request)})
        places.callback(pack.close)
        headers = {
            "Content-Length": str(found.size),
            "Content-Disposition": attachment(f"{name}-{version}.pack", otherwise="content"),
            "X-Content-Type-Options": "nosniff",
        }
        return Download(_blocks(pack), places.pop_all(), status_code=HTTPStatus.OK, headers=headers)


async def _blocks(pack: BinaryIO) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(pack.read, BLOCK):
        yield block


@router.get("/content-room")
async def content_room(_caller: Reader, services: House) -> ContentRoom:
    """How much content there is on the server, and may be."""
    return await services.content.room()


@router.post("/content/{name}/prune")
async def prune_content(name: ContentName, wanted: Prune, caller: Curator, services: House) -> Pruned:
    """Remove old versions for good, but for those that are current, were so before, or are in an open order."""
    return await services.content.prune(caller, name, wanted)


@router.post("/content/{name}/publish")
async def publish_content(name: ContentName, wanted: Publish, caller: Curator, services: House) -> ContentDetail:
    """Make a version the current one for the endpoints of some groups, or of all. They are told at once."""
    return await services.content.publish(caller, name, wanted)


@router.post("/content/{name}/unpublish")
async def unpublish_content(name: ContentName, wanted: ForGroups, caller: Curator, services: House) -> ContentDetail:
    """Let no version be current for some groups, or for any. Endpoints that have no other remove it."""
    return await services.content.unpublish(caller, name, wanted)


@router.post("/content/{name}/rollback")
async def roll_back_content(name: ContentName, wanted: ForGroups, caller: Curator, services: House) -> ContentDetail:
    """Let the version be current again that was so before. Endpoints are told at once."""
    return await services.content.roll_back(caller, name, wanted)


@router.delete("/content/{name}/versions/{version}", status_code=204)
async def delete_version(name: ContentName, version: Number, caller: Curator, services: House) -> None:
    """Remove a version for good, unless it is the current one of a group."""
    await services.content.delete(caller, name, version)
