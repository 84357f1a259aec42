"""The files of an endpoint as an action touches them: what is looked for, opened, hashed, put and shredded.

A part of `core.host`, which says what these protocols are for.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from stanch.core.model import Model
from stanch.core.types import EndpointPath, Glob, Instant, Md5, Mode, Sha256, Size, Text

MAX_EXTENTS = 10_000
"""Pieces of a sparse file that are told apart; beyond that, the smallest holes count as data."""


class Kind(StrEnum):
    """What a name leads to."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    FIFO = "fifo"
    SOCKET = "socket"
    BLOCK_DEVICE = "block-device"
    CHARACTER_DEVICE = "character-device"

    @property
    def words(self) -> str:
        """As people say it: `a FIFO`."""
        return "a FIFO" if self is Kind.FIFO else f"a {self.value.replace('-', ' ')}"


class HashKind(StrEnum):
    """A kind of hash."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"


class FileId(Model):
    """What makes a file the same file under each of its names, as long as it exists."""

    device: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """Number of its file system (st_dev)."""

    inode: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """Its number there."""


class FileInfo(Model):
    """A file as it is on the endpoint."""

    size: Size
    """Bytes."""

    mode: Mode
    """Permission bits."""

    user: Text
    """Owner."""

    modified: Instant
    """Last change of content."""

    inode: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """Inode number."""

    kind: Kind = Kind.FILE
    """What it is."""

    group: Text = ""
    """Group."""

    changed: Instant | None = None
    """Last change of anything, as the kernel noted it: nobody can set it."""

    allocated: Size = Size(0)
    """Bytes that it takes on the disk; less than its size if it is sparse."""

    links: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    """How many names it has; 0 if it was deleted while open."""

    device: Annotated[int, Field(ge=0, le=2**64 - 1)] = 0
    """Number of its file system (st_dev)."""

    @property
    def id(self) -> FileId:
        """Its identity."""
        return FileId(device=self.device, inode=self.inode)


class Digests(Model):
    """Hashes of a file; null for the kinds that were not asked for."""

    md5: Md5 | None = None
    """MD5."""

    sha1: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """SHA-1."""

    sha256: Sha256 | None = None
    """SHA-256."""


class FileType(Model):
    """What a file seems to be, by its first bytes. The file may lie."""

    name: Text
    """In words, such as `ELF 64-bit executable, x86-64`; `unknown` if nothing fits."""

    first: Annotated[str, Field(max_length=128, pattern=r"^[0-9a-f]*$")]
    """Its first bytes, at most 64, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a file that holds data; between extents are holes, which read as zeros."""

    offset: int
    length: int


class OpenFile(Protocol):
    """A regular file held by its descriptor: whatever its name means later, this stays the same file."""

    @property
    def info(self) -> FileInfo:
        """As it was when opened."""
        ...

    @property
    def path(self) -> EndpointPath:
        """What the descriptor is called: all links on the way resolved."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""
        ...

    async def extents(self) -> Sequence[Extent]:
        """Where it holds data, in order; one extent over all of it if its file system cannot tell."""
        ...

    async def digests(self, kinds: Collection[HashKind]) -> Digests:
        """Its hashes, read from start to end once."""
        ...

    async def type(self) -> FileType:
        """What it seems to be."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for below some places. No link is followed; file systems that the kernel makes up are left out."""

    roots: Sequence[EndpointPath] = ()
    """Files and folders to begin at; of a folder, everything below it."""

    pattern: Glob | None = None
    """Only names that fit; without roots, where to begin follows from it."""

    depth: int | None = None
    """How many folders deep at most, 0 for the roots alone; None for no limit."""

    kinds: Collection[Kind] = (Kind.FILE,)
    """What to yield."""

    hashes: Collection[HashKind] = ()
    """Hashes to take of files on the way, which is much quicker than to open each again."""

    hash_at_most: int | None = None
    """Bytes of a file that is hashed; a larger one comes without."""

    most_looked_at: int = 5_000_000
    """Names to look at before it ends with `Skipped`."""

    leaves_mounts: bool = False
    """Leave out, as `MOUNTED`, what is mounted somewhere below, be it other files or the same a second time."""


MOUNTED = "something is mounted there"
"""Why a search that leaves mounts has left something out."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something that fits."""

    path: EndpointPath
    info: FileInfo
    digests: Digests | None = None
    """The hashes that were asked for; None if they were not taken, which says nothing about the file."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was left out, and why."""

    path: EndpointPath
    why: str


class Bytes(Protocol):
    """Bytes that are read in order from the start, or at any place if the source can."""

    @property
    def size(self) -> int:
        """How many."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, or ActionFailed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How a file is put into its place."""

    path: EndpointPath
    mode: int = 0o600
    user: str | None = None
    """Account name or number; None for root."""
    group: str | None = None
    """Group name or number; None for that of the account."""
    sha256: str = ""
    """What it must be: checked before it gets its name."""
    make_folders: bool = False
    """Make the folders above it that are missing, for root only."""
    token: str = ""
    """Recognises a put that is repeated after a crash; no other has it."""


class Shredded(Model):
    """How well a file was destroyed."""

    overwritten: Size
    """Bytes that were overwritten in place."""

    caveats: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """Why its bytes may still be somewhere: flash, copy-on-write, snapshots, a journal."""


class Files(Protocol):
    """The files of the endpoint. What the owner of the machine forbids is refused or skipped, whatever leads to it."""

    def open(self, path: EndpointPath) -> AbstractAsyncContextManager[OpenFile]:
        """Open a regular file for reading, links followed; TargetGone, or Unsupported for what is no regular file."""
        ...

    async def look(self, path: EndpointPath) -> FileInfo | None:
        """What is there now, the last component not followed; None if nothing is."""
        ...

    def search(self, search: Search) -> AsyncIterator[Sequence[Found | Skipped]]:
        """Everything that fits, in batches, parents before what is below them; memory stays flat, whatever is there.

        What cannot be looked at, or must not be, comes as `Skipped`; a root that is not there is TargetGone.
        """
        ...

    async def why_protected(self, path: EndpointPath) -> str | None:
        """Why what is there must not be taken away or replaced: the machine or Stanch needs it; None otherwise.

        Decided by the file, not by its name: a hard link to a shell is that shell. The owner's local policy may except
        paths.
        """
        ...

    async def put(self, placing: Placing, content: Bytes) -> FileInfo:
        """Write a new file beside its place, verify it, and give it its name once it is whole and on the disk.

        Conflict if something is there, unless an earlier run with this token put it; Protected, ForbiddenHere,
        VerificationFailed if the content is another one.
        """
        ...

    async def shred(self, path: EndpointPath, expected: FileId) -> Shredded:
        """Overwrite this very file in place, remove its name; TargetGone if something else is there by now."""
        ...
