"""Bytes that leave an endpoint as evidence, and bytes that people have uploaded to be put on one.

A part of `core.host`, which says what these protocols are for.
"""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from stanch.core.files import Bytes, Extent
from stanch.core.types import EvidenceRef, Upload


class Source(Protocol):
    """Bytes to be taken as evidence."""

    @property
    def name(self) -> str:
        """What they are called on the endpoint."""
        ...

    @property
    def size(self) -> int:
        """How many, fixed at the start."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, the same each time, or ActionFailed if the source changed. Asked for in order."""
        ...

    async def extents(self) -> Sequence[Extent]:
        """Where it holds data, in order; between are holes, which read as zeros and need not be read or sent."""
        ...


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines in memory as a source: a piece of a list. After a crash, the same name means the same bytes."""

    kind: str
    """What they are lines of: `files`."""
    n: int
    """Which piece, from 1."""
    data: bytes

    @property
    def name(self) -> str:
        """In the order of the pieces, and of this very content."""
        return f"{self.kind}-{self.n:04}-{hashlib.sha256(self.data).hexdigest()[:8]}.ndjson"

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        """These bytes."""
        return self.data[offset : offset + length]

    async def extents(self) -> Sequence[Extent]:
        """There are no holes."""
        return (Extent(0, self.size),)


class Evidence(Protocol):
    """The way of bytes from the endpoint to the server: hashed parts, resumed from the first missing one."""

    async def send(self, source: Source) -> EvidenceRef:
        """Send all of it and return what the server has committed; waits out outages until the time limit."""
        ...


class Uploads(Protocol):
    """What people have uploaded to the server to be put on endpoints."""

    def open(self, upload: Upload) -> AbstractAsyncContextManager[Bytes]:
        """Its bytes, fetched as they are read, in order; waits out outages. NotFound if the server has it no more.

        What arrives is what the server sends: whoever uses it MUST compare the SHA-256 in the (signed) order.
        """
        ...
