"""Uploads on their way out: to the endpoint whose task needs one, in ranges, from the disk."""

from aiohttp import web

from stanch.core.errors import NotFound
from stanch.core.frames import UPLOAD_PATH
from stanch.server.fleet import Fleet
from stanch.server.gateway.identity import identify
from stanch.server.uploads import Uploads

BLOCK = 262_144
"""Bytes in memory for each request."""

LONGEST_ID = 64


class UploadContent:
    """The one request that fetches an upload."""

    def __init__(self, *, uploads: Uploads, fleet: Fleet) -> None:
        self._uploads = uploads
        self._fleet = fleet

    def routes(self) -> list[web.RouteDef]:
        """What answers where."""
        return [web.get(UPLOAD_PATH + r"/{id:[0-9A-Za-z_-]{1,64}}", self.content)]

    async def content(self, request: web.Request) -> web.FileResponse:
        """The bytes, or a range of them; NotFound unless `task` is the endpoint's, under way, and needs them."""
        identity = await identify(request, self._fleet)
        task = request.query.get("task", "")
        if not 0 < len(task) <= LONGEST_ID:
            raise NotFound("The task that needs the upload is not named", got=task[:100], expected="?task=TASK")
        path = await self._uploads.content(identity.endpoint, task, request.match_info["id"])
        return web.FileResponse(path, chunk_size=BLOCK, headers={"Content-Type": "application/octet-stream"})
