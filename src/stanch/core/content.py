"""Content: rules and indicators that agents scan with; versions of it, and the bytes in which it travels.

A version of content is one *pack*: a line of JSON that lists its files, then their bytes one after another. Nothing in
it needs an archive to be opened. The server signs for each endpoint which packs it should have (`ContentBody`); the
agent fetches what it lacks, tries whether it loads, and only then lets scans use it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field, StringConstraints

from stanch.core.model import LooseModel, Model
from stanch.core.types import Instant, Sha256, Text, TypeInfo

if TYPE_CHECKING:
    from stanch.core.scanning import Material

MAX_PACK_BYTES = 256 * 2**20
MAX_PACK_FILES = 20_000
MAX_PACKS = 100
"""Packs of one endpoint."""
RESERVED = "stanch-"
"""Begins the names of what comes with the agent: nothing that is imported may be called so."""
CONTENT_PATH = "/v1/content"
"""At the gateway: `GET /v1/content/SHA256`, with ranges, for endpoints that should have it."""


class ContentKind(StrEnum):
    """What is in a file of content."""

    YARA = "yara"
    OPENIOC = "openioc"
    STIX = "stix"
    HASHES = "hashes"
    """One hash in each line: MD5, SHA-1 or SHA-256 in hex, then optionally a blank and a name; `#` begins a comment."""


MAX_FILE_BYTES: Mapping[ContentKind, int] = {ContentKind.OPENIOC: 3 * 2**20, ContentKind.HASHES: 64 * 2**20}
"""Of one file of a kind that has a bound of its own: a scan holds the bytes of one, and all hashes, in memory."""


ContentName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$"),
    TypeInfo("content", "apt-rules", "Content as it is called on the server: rules or indicators to scan with."),
]

FileName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]
"""Of a file in a pack: relative, with `/`, never used as a path on any disk."""


class PackFile(LooseModel):
    """One file of a pack."""

    name: FileName
    size: Annotated[int, Field(ge=0, le=MAX_PACK_BYTES)]
    sha256: Sha256


class PackIndex(LooseModel):
    """The first line of a pack."""

    stanch_pack: Annotated[int, Field(ge=1, le=1)] = 1
    """Version of this format."""
    kind: ContentKind
    """Of all its files."""
    files: Annotated[tuple[PackFile, ...], Field(min_length=1, max_length=MAX_PACK_FILES)]


class PackRef(LooseModel):
    """A version of content that an endpoint should have, as the server signs it."""

    name: ContentName
    kind: ContentKind
    version: Annotated[int, Field(ge=1, le=2**31)]
    sha256: Sha256
    """Of the pack."""
    size: Annotated[int, Field(ge=1, le=MAX_PACK_BYTES)]
    """Bytes of the pack."""


class Installed(Model):
    """A version of content on an endpoint."""

    name: ContentName
    """What it is called."""
    kind: ContentKind
    """What is in it."""
    version: Annotated[int, Field(ge=1, le=2**31)]
    """Which version scans use."""
    sha256: Sha256
    """Of its pack."""
    files: Annotated[int, Field(ge=1, le=MAX_PACK_FILES)]
    """How many files it has."""
    rules: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """How many rules, indicators or hashes count."""
    since: Instant | None = None
    """Since when scans use it."""
    builtin: bool = False
    """Does it come with the agent, and stay, whatever the server wants?"""


class Updated(Model):
    """What an update did to one name."""

    name: ContentName
    """What it is called."""
    before: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """The version before; null for none."""
    after: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """The version now; null if it is gone, as the server wants."""
    refused: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """A version that did not load or could not be fetched: the one before stays in use."""
    why: Text = ""
    """Why it was refused, or what in it does not count."""


class Content(Protocol):
    """The rules and indicators on this endpoint."""

    def installed(self) -> Sequence[Installed]:
        """What scans can use."""
        ...

    def wanted(self) -> Sequence[PackRef]:
        """What the server wants it to have, as it signed it last."""
        ...

    def materials(self, names: Sequence[str]) -> "Sequence[Material]":
        """The files of these; NotFound names what is not there and what is."""
        ...

    def update(self) -> AsyncIterator[Updated]:
        """Make what is installed what is wanted: fetch, try, use; one by one. Nothing if all of it is so already."""
        ...
