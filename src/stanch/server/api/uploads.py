"""Uploads: bring a file to the server, to be put on endpoints; list and remove what was brought."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from stanch.core.rest_uploads import UploadPage, UploadQuery, UploadView
from stanch.core.types import Id, Sha256
from stanch.server.api.asking import After, House, Limit, Reader, Uploader, address_of, announced

router = APIRouter(tags=["uploads"])

UploadName = Annotated[
    str,
    Query(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f\x7f]+$", description="What the file is called."),
]
Content = Annotated[Sha256 | None, Query(description="SHA-256 of the content, hexadecimal.")]


@router.post("/uploads", status_code=201)
async def upload(
    request: Request, name: UploadName, caller: Uploader, services: House, *, sha256: Content = None
) -> UploadView:
    """Keep the body of the request, whatever it is. The same content under the same name is kept once.

    With `sha256`, a body that has another one is refused.
    """
    return await services.uploads.take(
        caller,
        name,
        request.stream(),
        announced=announced(request),
        sha256=sha256,
        detail={"address": address_of(request), "origin": caller.origin},
    )


@router.get("/uploads")
async def list_uploads(
    caller: Reader,
    services: House,
    *,
    sha256: Content = None,
    mine: bool = False,
    after: After = None,
    limit: Limit = 50,
) -> UploadPage:
    """Uploads, newest first; and how large one may be."""
    query = UploadQuery(sha256=sha256, mine=mine)
    items, following = await services.uploads.list(caller, query, after=after, limit=limit)
    return UploadPage(items=items, next=following, max_size=services.uploads.most)


@router.get("/uploads/{upload}")
async def show_upload(upload: Id, _caller: Reader, services: House) -> UploadView:
    """What it is called, how large it is, and its hash."""
    return await services.uploads.get(upload)


@router.delete("/uploads/{upload}", status_code=204)
async def delete_upload(upload: Id, caller: Uploader, services: House) -> None:
    """Remove an upload for good, unless an order that is not finished needs it."""
    await services.uploads.delete(caller, upload)
