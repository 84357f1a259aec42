"""Evidence on its way in: begin, parts, holes, finish; each only for the endpoint whose task it is."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import web

from stanch.core.errors import Invalid, TooLarge, Unavailable
from stanch.core.frames import (
    ENCODING_HEADER,
    EVIDENCE_PATH,
    PART_BYTES,
    PART_HASH_HEADER,
    PLAIN_HASH_HEADER,
    Encoding,
    EvidenceFinish,
    EvidenceHoles,
    EvidenceStart,
    sealed_bound,
)
from stanch.server.evidence import Evidence
from stanch.server.fleet import Fleet
from stanch.server.gateway.answers import answer, read_body
from stanch.server.gateway.identity import identify

PART_SECONDS = 600
"""A part takes no longer: 14 kB a second is the slowest line that we wait for."""

PARTS_AT_ONCE = 32
"""Of one endpoint: each holds a block or two in memory, and all of them fit into what is kept free of the disk."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ID = r"{id:[0-9A-Za-z_-]{1,64}}"


class EvidenceParts:
    """The four requests that bring evidence in."""

    def __init__(self, *, evidence: Evidence, fleet: Fleet) -> None:
        self._evidence = evidence
        self._fleet = fleet
        self._arriving: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """What answers where."""
        return [
            web.post(EVIDENCE_PATH, self.start),
            web.put(f"{EVIDENCE_PATH}/{_ID}/parts/{{n:[0-9]{{1,7}}}}", self.part),
            web.post(f"{EVIDENCE_PATH}/{_ID}/holes", self.holes),
            web.post(f"{EVIDENCE_PATH}/{_ID}/finish", self.finish),
        ]

    async def start(self, request: web.Request) -> web.Response:
        """Begin, or hear what is missing."""
        identity = await identify(request, self._fleet)
        wanted = await read_body(request, EvidenceStart)
        return answer(await self._evidence.start(identity.endpoint, wanted), status=HTTPStatus.CREATED)

    async def part(self, request: web.Request) -> web.Response:
        """One part, streamed to the disk."""
        identity = await identify(request, self._fleet)
        encoding = _encoding(request)
        _refuse_large(request, PART_BYTES if encoding is Encoding.PLAIN else sealed_bound(PART_BYTES))
        sha256 = _hash(request, PART_HASH_HEADER)
        plain_sha256 = sha256 if encoding is Encoding.PLAIN else _hash(request, PLAIN_HASH_HEADER)
        try:
            async with self._place(identity.endpoint), asyncio.timeout(PART_SECONDS):
                part = await self._evidence.put_part(
                    identity.endpoint,
                    request.match_info["id"],
                    int(request.match_info["n"]),
                    sha256=sha256,
                    plain_sha256=plain_sha256,
                    encoding=encoding,
                    chunks=request.content.iter_any(),
                )
        except TimeoutError:
            raise Unavailable("The part came too slowly", expected=f"within {PART_SECONDS} seconds") from None
        return answer(part)

    @asynccontextmanager
    async def _place(self, endpoint: str) -> AsyncIterator[None]:
        """For a part on its way; Unavailable if that endpoint has very many, and an honest one tries again."""
        if self._arriving[endpoint] >= PARTS_AT_ONCE:
            raise Unavailable("Too many parts arrive at once", got=PARTS_AT_ONCE + 1, expected=str(PARTS_AT_ONCE))
        self._arriving[endpoint] += 1
        try:
            yield
        finally:
            self._arriving[endpoint] -= 1
            self._arriving += Counter()  # forget who has none

    async def holes(self, request: web.Request) -> web.Response:
        """Parts that are nothing but zeros."""
        identity = await identify(request, self._fleet)
        told = await read_body(request, EvidenceHoles)
        return answer(await self._evidence.put_holes(identity.endpoint, request.match_info["id"], told))

    async def finish(self, request: web.Request) -> web.Response:
        """Close it."""
        identity = await identify(request, self._fleet)
        whole = await read_body(request, EvidenceFinish)
        return answer(await self._evidence.finish(identity.endpoint, request.match_info["id"], whole))


def _encoding(request: web.Request) -> Encoding:
    try:
        return Encoding(request.headers.get(ENCODING_HEADER, Encoding.PLAIN))
    except ValueError as error:
        expected = ", ".join(Encoding)
        raise Invalid(f"The header {ENCODING_HEADER} is wrong", got=error, expected=expected) from None


def _refuse_large(request: web.Request, most: int) -> None:
    """By the announced size, before anything is read."""
    size = request.content_length
    if size is not None and size > most:
        raise TooLarge("The part is too large", got=size, expected=f"at most {most} bytes")


def _hash(request: web.Request, header: str) -> str:
    sha256 = request.headers.get(header, "").lower()
    if not _SHA256.fullmatch(sha256):
        raise Invalid(f"The header {header} is missing or wrong", expected="64 hexadecimal digits")
    return sha256
