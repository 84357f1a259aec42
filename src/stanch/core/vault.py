"""The vault of an endpoint: files that were taken out of the way, encrypted, with all it takes to put them back.

A part of `core.host`, which says what these protocols are for. The one rule: at any moment either the original is in
its place or a complete copy of it, with its metadata, is on the disk.
"""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from stanch.core.files import Digests, FileInfo, Kind
from stanch.core.model import LooseModel, Model
from stanch.core.types import EndpointPath, Id, Instant, Md5, Sha256, Size, Text, VaultId

MAX_NAMES = 1000
"""Names of one file (hard links) that are taken together."""


class Why(StrEnum):
    """What a file is in the vault for."""

    QUARANTINE = "quarantine"
    """It is suspected."""

    DELETED = "deleted"
    """It was deleted, and can be brought back for a while."""

    REPLACED = "replaced"
    """Another file was put in its place."""


def item_id(task: str, n: int) -> VaultId:
    """The id of the n-th thing that a task takes: the same when the task is run again after a crash."""
    return f"qrt_{hashlib.sha256(f'{task}/{n}'.encode()).hexdigest()[:16]}"


class Item(LooseModel):
    """Something in the vault."""

    id: VaultId
    """Its id on this endpoint."""

    path: EndpointPath
    """Where it was, all links on the way resolved."""

    why: Why
    """What for."""

    info: FileInfo
    """As it was when it was taken."""

    sha256: Sha256 | None = None
    """Of its content; null for what has none, such as a folder."""

    md5: Md5 | None = None
    """Of its content, where somebody asked for it."""

    others: Annotated[tuple[EndpointPath, ...], Field(max_length=MAX_NAMES)] = ()
    """Its other names (hard links), taken with it."""

    names_left: Annotated[int, Field(ge=0)] = 0
    """Names of the same file that were not found: its content is still readable there."""

    original_kept: bool = False
    """It is a copy: the file itself was left where it is."""

    taken: Instant
    """When, by the agent's clock."""

    until: Instant | None = None
    """When it is removed for good; null for never."""

    order: Annotated[str, Field(max_length=64)] = ""
    """The order that asked for it."""

    by: Annotated[str, Field(max_length=200)] = ""
    """Who ordered it."""

    reason: Text = ""
    """Why they said."""

    stored: Size = Size(0)
    """Bytes that it takes in the vault."""

    damage: Text | None = None
    """What is wrong with it; null if nothing is known to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """What to take, and how."""

    id: VaultId
    path: EndpointPath
    why: Why
    kinds: Collection[Kind] = (Kind.FILE,)
    """What it may be; a folder must be empty by the time it is taken."""
    expected: Digests | None = None
    """What its content must be, as far as it says."""
    most: int | None = None
    """Bytes of content at most."""
    with_md5: bool = False
    keep_original: bool = False
    lasts: timedelta | None = None
    """Remove it for good after this long."""
    direct: bool = False
    """Only if no link is on the way to it: for a path whose links were resolved before. Conflict otherwise."""
    critical_too: bool = False
    """Only for what Stanch itself has put there: take it although it is protected."""


class OnConflict(StrEnum):
    """What to do if something else is where a file goes back to."""

    REFUSE = "refuse"
    RENAME = "rename"
    """Put it beside, under a name that is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """How an item goes back."""

    id: VaultId
    to: EndpointPath | None = None
    """Where to; None for where it was."""
    on_conflict: OnConflict = OnConflict.REFUSE
    fallback: EndpointPath | None = None
    """A folder to use if its own is gone; None to refuse then."""


class Returned(Model):
    """An item that is back."""

    id: VaultId
    """Which."""

    path: EndpointPath
    """Where it is now."""

    was: EndpointPath
    """Where it was before it was taken."""

    others: Annotated[tuple[EndpointPath, ...], Field(max_length=MAX_NAMES)] = ()
    """Its other names, which are back too."""

    lost: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """What of it could not be brought back, such as an attribute that this file system does not know."""


class Usage(Model):
    """How full the vault is."""

    items: Annotated[int, Field(ge=0, le=2**53)]
    """How many."""

    size: Size
    """Bytes on the disk."""

    limit: Size
    """Bytes at most."""

    free: Size
    """Bytes that its file system has left."""


class Readable(Protocol):
    """The content of an item, decrypted as it is read: in order, from the start."""

    @property
    def name(self) -> str:
        """Where it was."""
        ...

    @property
    def size(self) -> int:
        """Bytes, holes included."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; VerificationFailed if the item is damaged."""
        ...


class Vault(Protocol):
    """The vault, in the hands of one task: who ordered it and why are of the task."""

    async def expect_room(self, size: int, what: str) -> None:
        """VaultFull, which the server is told of as with `take`, if so many bytes do not fit now; keeps none free."""
        ...

    async def take(self, taking: Taking) -> Item:
        """Copy it into the vault, all of it and its metadata on the disk; then take every name of it away.

        Repeating it with the same id finishes what was begun. TargetGone if nothing is there; Protected; Unsupported
        for another kind, a mount point, a read-only file system; TooLarge; VaultFull; VerificationFailed if the content
        is not the expected one; ActionFailed if it kept changing. Then the original is as it was, and nothing is kept.
        """
        ...

    async def put_back(self, returning: Returning) -> Returned:
        """Bring it back, content and metadata, under its name only once it is whole; the item stays until `remove`.

        Repeating it after it worked changes nothing, and answers the same. NotFound; Conflict if something is there;
        TargetGone if its folder is gone and there is no fallback; VerificationFailed if it is damaged: then nothing is
        put back.
        """
        ...

    async def remove(self, id: VaultId) -> bool:  # noqa: A002 - the field's own name
        """Remove it for good; False if it is not there."""
        ...

    async def find(self, id: VaultId) -> Item | None:  # noqa: A002 - the field's own name
        """The complete item of this id, or None."""
        ...

    async def items(self) -> Sequence[Item]:
        """All complete items, the newest first."""
        ...

    async def of_order(self, order: Id) -> Sequence[Item]:
        """What the tasks of an order took on this endpoint, in the order in which they took it."""
        ...

    def open(self, id: VaultId) -> AbstractAsyncContextManager[Readable]:  # noqa: A002 - the field's own name
        """The content of an item; NotFound, VerificationFailed if its key is not ours."""
        ...

    async def usage(self) -> Usage:
        """How full it is."""
        ...
