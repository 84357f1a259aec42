"""The items of a vault on the disk: for each a record, `ID.json`, and for a file its content beside it, `ID.age`.

A record carries its own SHA-256, and is written in one way only: each damaged byte of it is noticed.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field, ValidationError

from stanch.agent.host.metadata import Metadata
from stanch.core.errors import ActionFailed, NotFound, StanchError, VaultFull, VerificationFailed
from stanch.core.files import MAX_EXTENTS, Extent, FileId, FileInfo, Kind
from stanch.core.model import LooseModel, Model
from stanch.core.types import EndpointPath, Sha256, Size, Text
from stanch.core.vault import Item, Returned, Why
from stanch.disk.atomic import atomic_write

MAX_RECORD = 32 * 1_048_576
"""Bytes of a record that are read: many names and attributes fit, a foreign file does not fill the memory."""

_ID = re.compile(r"qrt_[0-9a-f]{16}")
_LEFTOVER = re.compile(r"qrt_[0-9a-f]{16}\.part|\.stanch-[0-9a-f]{16}")
_BEGIN, _MIDDLE, _END = b'{"sha256": "', b'", "record": ', b"}\n"

log = structlog.get_logger(__name__)


class Stage(StrEnum):
    """How far the work on an item is."""

    MOVING = "moving"
    """It does not rest: a name was moved aside before there is a copy."""

    TAKING = "taking"
    """The copy is complete; the names of the original are being removed."""

    HELD = "held"
    """The original is gone, or was to be kept."""

    RETURNING = "returning"
    """It is being put back."""

    RETURNED = "returned"
    """It is back, and still here."""

    REMOVING = "removing"
    """It is being removed for good."""


class Return(Model):
    """A way back that was begun."""

    asked: EndpointPath
    """Where it was to go, as asked."""

    own: bool
    """To where it was: its other names come back too."""

    name: EndpointPath
    """The full path that it gets."""

    temporary: EndpointPath
    """The full path of what it is built as."""

    file: FileId | None = None
    """What was built, once it is complete."""

    lost: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """What it could not be given."""

    answer: Returned | None = None
    """What was answered when it was back."""

    changed_ns: int | None = None
    """When anything of it was changed last, as it was back then: nanoseconds since 1970."""


class Record(LooseModel):
    """All that is known of an item."""

    item: Item
    """What everybody may see."""

    metadata: Metadata
    """What the file had besides content."""

    stage: Stage
    """How far the work is."""

    number: Annotated[int, Field(ge=0)]
    """Grows from item to item."""

    pieces: Annotated[tuple[tuple[int, int], ...], Field(max_length=MAX_EXTENTS)] = ()
    """Offset and length of each piece of data."""

    data_sha256: Sha256 | None = None
    """Of the pieces, one after the other."""

    file: FileId
    """What was taken."""

    modified_ns: int
    """When its content was changed last: nanoseconds since 1970."""

    deleted: bool = False
    """It had no name any more when it was taken."""

    way_back: Return | None = None
    """The last way back."""

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Where its data belongs."""
        return tuple(Extent(offset, length) for offset, length in self.pieces)

    @property
    def names(self) -> tuple[EndpointPath, ...]:
        """Every name that was taken."""
        return () if self.deleted else (self.item.path, *self.item.others)

    def at(self, stage: Stage, **more: object) -> "Record":
        """The same, elsewhere on its way."""
        return self.model_copy(update={"stage": stage, **more})


class Items:
    """The folder of a vault. Made at the first use, for root alone. All of it blocks: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, or shut it for others. OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)

    def ids(self) -> list[str]:
        """Of each item that has a record."""
        with self._names() as names:
            return [name[:20] for name in names if name[20:] == ".json" and _ID.fullmatch(name[:20])]

    def read(self, id: str) -> Record:  # noqa: A002 - the field's own name
        """One record. NotFound; VerificationFailed if it is damaged."""
        try:
            with self.record_path(id).open("rb") as file:
                return parse(file.read(MAX_RECORD + 1), id)
        except FileNotFoundError:
            raise NotFound("There is no such item in the vault", got=id) from None
        except NotADirectoryError as error:
            raise unusable(error) from error
        except OSError as error:
            raise VerificationFailed("The record of the item cannot be read", got=error.strerror) from error

    def find(self, id: str) -> Record | None:  # noqa: A002 - the field's own name
        """One record, or None. VerificationFailed if it is damaged."""
        with suppress(NotFound):
            return self.read(id)
        return None

    def every(self) -> Iterator[Record | Item]:
        """Each record; of one that is damaged, an item that says so."""
        for id_ in self.ids():
            try:
                yield self.checked(self.read(id_))
            except NotFound:
                continue  # removed meanwhile
            except VerificationFailed as error:
                yield self.damaged(id_, str(error))

    def write(self, record: Record) -> Record:
        """Put a record on the disk, in place of the one before. VaultFull, ActionFailed."""
        try:
            atomic_write(self.record_path(record.item.id), rendered(record))
        except OSError as error:
            raise unusable(error) from error
        return record

    def remove(self, id: str) -> bool:  # noqa: A002 - the field's own name
        """Remove content and record, in this order; False if there was neither. OSError."""
        found = [_unlink(path) for path in (self.content_path(id), self.part_path(id), self.record_path(id))]
        self.sync()
        return any(found)

    def sync(self) -> None:
        """Wait until the names in the folder are on the disk. OSError."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def sweep(self) -> None:
        """Remove what a crash left half written. Only while nobody writes."""
        with self._names() as names:
            left = [name for name in names if _LEFTOVER.fullmatch(name)]
        for name in left:
            _unlink(self.folder / name)

    def orphans(self) -> list[Path]:
        """Content that no record belongs to."""
        with self._names() as names:
            there = set(names)
        alone = (name for name in there if name[20:] == ".age" and _ID.fullmatch(name[:20]))
        return [self.folder / name for name in alone if f"{name[:20]}.json" not in there]

    def used(self) -> int:
        """Bytes that all of it takes on the disk."""
        total = 0
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
        return total

    def content_size(self, id: str) -> int:  # noqa: A002 - the field's own name
        """Bytes of an item's content on the disk; none if it has none."""
        with suppress(OSError):
            return self.content_path(id).stat().st_size
        return 0

    def damaged(self, id: str, why: str) -> Item:  # noqa: A002 - the field's own name
        """What can be said of an item whose record is no use."""
        info = FileInfo(size=Size(0), mode=0, user="", modified=_EPOCH, inode=0)
        return Item(
            id=id,
            path=EndpointPath("/"),
            why=Why.QUARANTINE,
            info=info,
            taken=_written(self.record_path(id)),
            stored=Size(self.content_size(id)),
            damage=why[:1000],
        )

    def checked(self, record: Record) -> Record:
        """With what is plainly wrong: reading all content would take too long for a list."""
        item = record.item
        if item.info.kind is not Kind.FILE or record.stage is Stage.REMOVING:
            return record
        try:
            size = self.content_path(item.id).stat().st_size
        except OSError as error:
            wrong = f"Its content cannot be found: {error.strerror}"
        else:
            expected = item.stored
            if size == expected:
                return record
            wrong = f"Its content has another size (got {size}, expected {expected})"
        return record.model_copy(update={"item": item.model_copy(update={"damage": wrong})})

    @contextmanager
    def _names(self) -> Iterator[Sequence[str]]:
        try:
            yield [one.name for one in self.folder.iterdir()]
        except FileNotFoundError:
            yield ()

    def record_path(self, id: str) -> Path:  # noqa: A002 - the field's own name
        """Of its record."""
        return self.folder / f"{id}.json"

    def content_path(self, id: str) -> Path:  # noqa: A002 - the field's own name
        """Of its content."""
        return self.folder / f"{id}.age"

    def part_path(self, id: str) -> Path:  # noqa: A002 - the field's own name
        """Of content that is not complete."""
        return self.folder / f"{id}.part"


def unusable(error: OSError) -> StanchError:
    """What it means when the disk of the vault does not do as told."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return VaultFull("The disk of the vault is full", got=error.strerror, hint=_FREE)
    return ActionFailed("The vault cannot be used", got=error, expected="a folder on a disk that can be written to")


_FREE = "Free space on it, remove items of the vault, or let the local policy put the vault on another disk."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rendered(record: Record) -> bytes:
    """The bytes of a record's file."""
    body = record.model_dump_json(exclude_defaults=True).encode()
    return _BEGIN + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + _END


def parse(data: bytes, id: str) -> Record:  # noqa: A002 - the field's own name
    """The record of this item from such bytes; VerificationFailed if a byte of them is another one."""
    head = len(_BEGIN) + 64
    body = data[head + len(_MIDDLE) : -len(_END)]
    own = _BEGIN + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + _END
    if data != own:
        raise VerificationFailed("The record of the item is damaged", got="another SHA-256 than its own")
    try:
        record = Record.model_validate(json.loads(body))
    except (ValidationError, ValueError) as error:
        raise VerificationFailed("The record of the item is not understood", got=str(error)[:300]) from error
    if record.item.id != id:
        raise VerificationFailed("The record is of another item", got=record.item.id, expected=id)
    return record


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _written(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return _EPOCH
