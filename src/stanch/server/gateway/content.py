"""Content on its way out: packs, for the endpoints that should have them, in ranges, from the disk."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from stanch.core.content import CONTENT_PATH
from stanch.core.errors import NotFound, Unavailable
from stanch.server.content_packs import Packs
from stanch.server.content_way import ContentWay
from stanch.server.fleet import Fleet
from stanch.server.gateway.identity import identify

BLOCK = 262_144
"""Bytes in memory for each request."""

AT_ONCE = 2
"""Requests of one endpoint."""


class _Once(web.FileResponse):
    """A file that may be sent before the handler returns: to be asked for it once more does nothing."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it, or as much of it as is asked for."""
        return None if self.prepared else await super().prepare(request)


class ContentPacks:
    """The one request that fetches a pack."""

    def __init__(self, *, packs: Packs, way: ContentWay, fleet: Fleet) -> None:
        self._packs = packs
        self._way = way
        self._fleet = fleet
        self._asking: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """What answers where."""
        return [web.get(CONTENT_PATH + r"/{sha256:[0-9a-f]{64}}", self.content)]

    async def content(self, request: web.Request) -> web.StreamResponse:
        """The bytes of a pack, or a range of them; NotFound unless the endpoint should have it."""
        identity = await identify(request, self._fleet)
        digest = request.match_info["sha256"]
        async with self._place(identity.endpoint):
            await self._way.require(identity.endpoint, digest)
            path = self._packs.path(digest)
            if not await asyncio.to_thread(path.is_file):
                raise NotFound("The content is not on the server's disk any more", got=digest)
            answer = _Once(path, chunk_size=BLOCK, headers={"Content-Type": "application/octet-stream"})
            await answer.prepare(request)  # here, so that the place is taken as long as bytes go out
        return answer

    @asynccontextmanager
    async def _place(self, endpoint: str) -> AsyncIterator[None]:
        """One of the few that an endpoint may have; Unavailable if it asks for more."""
        if self._asking[endpoint] >= AT_ONCE:
            raise Unavailable("Too many packs at once", got=AT_ONCE + 1, expected=f"at most {AT_ONCE} of an endpoint")
        self._asking[endpoint] += 1
        try:
            yield
        finally:
            self._asking[endpoint] -= 1
            if not self._asking[endpoint]:
                del self._asking[endpoint]
