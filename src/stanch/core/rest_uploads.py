"""The bodies of the REST API about uploads: files that people bring to the server, to be put on endpoints.

A part of `core.rest`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.rest import Page
from stanch.core.types import Id, Instant, Name, Sha256, Upload


class UploadView(LooseModel):
    """An upload, as the API shows it."""

    id: Id
    """Identifier."""
    name: str
    """What it was called where it came from."""
    size: int
    """Bytes."""
    sha256: Sha256
    """Of all of it."""
    created: Instant
    """When it came."""
    by: Name
    """Who brought it."""
    used: Instant
    """When an order named it last, or when it came: it is kept for a while from then on."""
    orders: int
    """How many orders have named it."""

    @property
    def named(self) -> Upload:
        """As an order names it."""
        return Upload(id=self.id, name=self.name, size=self.size, sha256=self.sha256)


class UploadPage(Page):
    """Some uploads."""

    items: list[UploadView]
    """Newest first."""
    max_size: int = Field(ge=0)
    """Bytes that one upload may have on this server."""


class UploadQuery(LooseModel):
    """Which uploads to list."""

    sha256: Sha256 | None = None
    """With this content."""
    mine: bool = False
    """Brought by the one who asks."""

    def sent(self) -> Mapping[str, Any]:
        """As a query says it."""
        return {"sha256": self.sha256, "mine": "true" if self.mine else None}
