"""Take a file into the vault: copy all of it, put the copy and its record on the disk, then remove its names.

    copy ▸ fsync ▸ its name ▸ fsync ▸ record "taking" ▸ each name aside ▸ still the same? ▸ remove ▸ record "held"

Cut anywhere, the next start finds the original, or a complete copy with its record, or both, and `settle` decides: as
long as no name is gone, all goes back and the copy is dropped; from the first one that is gone, it goes on to the end.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stanch.agent.host.metadata import Metadata, capture, extents, info_of
from stanch.agent.host.mounts import mount_of
from stanch.agent.host.other_names import other_names
from stanch.agent.host.pinned import Pinned, aside_name, pin
from stanch.agent.host.vault_clearing import clear, first_token, move_aside, same, settle, written_to
from stanch.agent.host.vault_content import Changed, Hashes, seal, sealed_size
from stanch.agent.host.vault_deleted import named_by_process, refuse_another_view, running_deleted
from stanch.agent.host.vault_items import Record, Stage, unusable
from stanch.agent.host.vault_parts import Parts, Work, here
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    ForbiddenHere,
    Protected,
    StanchError,
    TooLarge,
    Unsupported,
    VerificationFailed,
)
from stanch.core.files import Digests, Extent, FileId, Kind
from stanch.core.filesystems import MADE_UP
from stanch.core.types import EndpointPath, Size
from stanch.core.vault import MAX_NAMES, Item, Taking

COPIES = 3
"""Times that a file is copied which changes meanwhile."""

_TICK_NS = 20_000_000
"""A file that changes twice within a tick of the kernel's clock shows one time for both."""

RECORD_SIZE = 16_384
"""Bytes to keep for a record."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be taken, held by descriptors."""

    path: EndpointPath
    kind: Kind
    descriptor: int
    """Opened for reading if it is a file; otherwise it only holds it."""
    pinned: Pinned | None
    """None if it has no name any more."""

    @property
    def status(self) -> os.stat_result:
        """As it is now."""
        return os.fstat(self.descriptor)

    @property
    def links(self) -> int:
        """How many names it has now. On an overlay file system, only what was pinned follows it when it is moved."""
        return (self.pinned.status if self.pinned is not None else self.status).st_nlink


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of it that is on the disk, and what the original was then."""

    status: os.stat_result
    metadata: Metadata
    pieces: Sequence[Extent] = ()
    hashes: Hashes | None = None


def take(parts: Parts, work: Work, taking: Taking) -> Item:
    """See `core.vault.Vault.take`. Blocks."""
    try:
        return _take(parts, work, taking)
    except OSError as error:
        raise _explained(error, taking.path) from error


def _take(parts: Parts, work: Work, taking: Taking) -> Item:
    with parts.busy.claim(taking.id, taking.path):
        begun = parts.items.find(taking.id)
        if begun is not None and begun.stage in {Stage.MOVING, Stage.TAKING}:
            begun = settle(parts, begun)
        if begun is not None and begun.stage is not Stage.REMOVING:
            return begun.item
        with _source(taking.path) as source, ExitStack() as stack:
            _refuse(parts, work, taking, source)
            stack.enter_context(parts.busy.claim(_identity(source.status), source.path))
            parts.items.prepare()
            return _Take(parts, work, taking, source).run()


@contextmanager
def _source(path: EndpointPath) -> Iterator[Source]:
    """Hold what is there, or the program of that name which still runs. TargetGone."""
    with ExitStack() as stack:
        deleted = running_deleted(path)
        if deleted is not None:
            stack.callback(os.close, deleted.descriptor)
            yield Source(deleted.path, Kind.FILE, deleted.descriptor, None)
            return
        pinned = stack.enter_context(pin(named_by_process(path)))
        refuse_another_view(path, pinned)
        descriptor = pinned.descriptor
        if pinned.kind is Kind.FILE:
            descriptor = pinned.reopen()
            stack.callback(os.close, descriptor)
        yield Source(pinned.path, pinned.kind, descriptor, pinned)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _refuse(parts: Parts, work: Work, taking: Taking, source: Source) -> None:
    """What need not be tried."""
    work.orderer.forbidden(source.path)
    status = source.status
    if taking.direct and source.path != taking.path:
        raise Conflict(f"A link leads from {taking.path} to another file by now", got=source.path)
    if source.kind not in taking.kinds:
        raise Unsupported(
            f"{source.path} cannot be taken", got=source.kind.words, expected=" or ".join(sorted(taking.kinds))
        )
    if is_below(source.path, parts.items.folder):
        raise Protected(f"{source.path} must stay: it is the vault's own")
    if taking.expected is not None and taking.expected.sha1 is not None:
        raise Unsupported("What is taken is known by its MD5 or SHA-256", got="a SHA-1")
    _refuse_made_up(source)
    if source.pinned is not None and not taking.keep_original:
        source.pinned.refuse_unmovable()
    why = None if taking.critical_too else parts.why_protected(source.path, status)
    if why:
        raise Protected(f"{source.path} must stay: {why}", hint=_OWNER)
    if source.kind is Kind.FILE and taking.most is not None and status.st_size > taking.most:
        raise TooLarge(f"{source.path} is too large", got=f"{status.st_size} bytes", expected=f"at most {taking.most}")


def is_below(path: EndpointPath, folder: Path) -> bool:
    """Is it the vault, or in it?"""
    return here(path).is_relative_to(folder.resolve())


_OWNER = "Only the local policy on the endpoint can except it."


def _refuse_made_up(source: Source) -> None:
    """By the mount of what is held, not by its path."""
    kind = mount_of(source.descriptor).kind
    if kind in MADE_UP:
        raise Unsupported(
            f"{source.path} cannot be taken",
            got=f"something of {kind}, which the kernel makes up",
            expected="a file on a disk",
        )


@dataclass(frozen=True, slots=True)
class _Take:
    """One file on its way in."""

    parts: Parts
    work: Work
    taking: Taking
    source: Source

    def run(self) -> Item:
        """All of it."""
        items, id_ = self.parts.items, self.taking.id
        try:
            copied = self._copied()
            record = items.write(self._record(copied))
        except BaseException:
            self._drop()
            raise
        if record.stage is Stage.HELD:
            return record.item
        try:
            return clear(self.parts, record, self.source.descriptor, copied.status).item
        except BaseException:
            settled = settle(self.parts, items.read(id_), links=self.source.links)
            if settled is not None:  # some of its names are gone: it is in the vault
                return settled.item
            raise

    def _drop(self) -> None:
        """Nothing is kept, and the first error is the one to hear about."""
        items, id_ = self.parts.items, self.taking.id
        with suppress(OSError, StanchError):
            begun = items.find(id_)
            if begun is not None:
                settle(self.parts, begun, links=self.source.links)
            items.remove(id_)

    def _copied(self) -> Copied:
        if self.source.kind is not Kind.FILE:
            return Copied(self.source.status, self._metadata())
        for _ in range(COPIES):
            found = self._copied_once()
            if found is not None:
                return found
        return self._copied_aside()

    def _copied_aside(self) -> Copied:
        """Once more, out of the way of whoever opens it by its path; the record knows where it is meanwhile."""
        found = None
        if self.source.pinned is not None and not self.taking.keep_original:
            record = self._record(Copied(self.source.status, self._metadata()))
            move_aside(self.parts.items.write(record.at(Stage.MOVING)), self.source.pinned)
            found = self._copied_once()
        if found is None:
            raise written_to(self.source.path)
        return found

    def _copied_once(self) -> Copied | None:
        """A copy, on the disk under its name; None if the file changed meanwhile."""
        before = settled_status(self.source.descriptor)
        metadata, pieces = self._metadata(), tuple(extents(self.source.descriptor, before.st_size))
        need = sealed_size(sum(one.length for one in pieces)) + RECORD_SIZE
        with self.parts.room.promise(need, self.source.path):
            try:
                hashes = self._sealed(pieces, before.st_size)
            except Changed:
                return None
            if not same(before, self.source.status):
                return None
            self._check_expected(hashes)
            items = self.parts.items
            items.part_path(self.taking.id).rename(items.content_path(self.taking.id))
            items.sync()
        return Copied(before, metadata, pieces, hashes)

    def _sealed(self, pieces: Sequence[Extent], size: int) -> Hashes:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(self.parts.items.part_path(self.taking.id), flags, 0o600)
        try:
            hashes = seal(
                self.source.descriptor,
                target,
                pieces=pieces,
                size=size,
                to=self.parts.keys.recipients(),
                with_md5=self._wants_md5,
                watch=self.work.watch,
            )
            os.fsync(target)
        finally:
            os.close(target)
        return hashes

    @property
    def _wants_md5(self) -> bool:
        expected = self.taking.expected
        return self.taking.with_md5 or (expected is not None and expected.md5 is not None)

    def _check_expected(self, hashes: Hashes) -> None:
        expected = self.taking.expected or Digests()
        for wanted, found in ((expected.sha256, hashes.sha256), (expected.md5, hashes.md5)):
            if wanted is not None and wanted != found:
                raise VerificationFailed(f"{self.source.path} is another file", got=found, expected=wanted)

    def _metadata(self) -> Metadata:
        return capture(self.source.descriptor)

    def _record(self, copied: Copied) -> Record:
        others, left = self._others()
        hashes, status = copied.hashes, copied.status
        item = Item(
            id=self.taking.id,
            path=self.source.path,
            why=self.taking.why,
            info=info_of(status),
            sha256=hashes.sha256 if hashes else None,
            md5=hashes.md5 if hashes else None,
            others=others,
            names_left=left,
            original_kept=self.taking.keep_original,
            taken=self.parts.stamp(),
            until=self._until(),
            order=self.work.orderer.order,
            by=self.work.orderer.by[:200],
            reason=self.work.orderer.reason,
            stored=Size(self.parts.items.content_size(self.taking.id)),
        )
        return Record(
            item=item,
            metadata=copied.metadata,
            stage=Stage.HELD if self.taking.keep_original or self.source.pinned is None else Stage.TAKING,
            number=self.parts.numbers.next(),
            pieces=tuple((one.offset, one.length) for one in copied.pieces),
            data_sha256=hashes.data_sha256 if hashes else None,
            file=FileId(device=status.st_dev, inode=status.st_ino),
            modified_ns=status.st_mtime_ns,
            deleted=self.source.pinned is None,
        )

    def _others(self) -> tuple[tuple[EndpointPath, ...], int]:
        """Its other names that may be taken, and how many are left."""
        if self.taking.keep_original or self.source.pinned is None or self.source.kind is Kind.FOLDER:
            return (), 0
        # Moved aside before it was copied, it has its own name twice: as it was, and as it is.
        aside = aside_name(first_token(self.taking.id))
        names, left = other_names(self.source.pinned, cancelled=self.work.watch.stop.is_set, aside=aside)
        self._refuse_needed(names)
        allowed = tuple(one for one in names if self._allowed(one))[:MAX_NAMES]
        return allowed, left + len(names) - len(allowed)

    def _refuse_needed(self, names: Sequence[EndpointPath]) -> None:
        """Some things have to be where they are: a second link to one is not the way to take it away."""
        if self.taking.critical_too:
            return
        for name in names:
            why = self.parts.why_protected(name, self.source.status)
            if why:
                raise Protected(f"{self.source.path} must stay: one of its names is {name}: {why}", hint=_OWNER)

    def _allowed(self, path: EndpointPath) -> bool:
        try:
            self.work.orderer.forbidden(path)
        except ForbiddenHere:
            return False
        return True

    def _until(self) -> datetime | None:
        """Not before the time is known can it be said when this ends."""
        now = self.parts.clock()
        if now is None or self.taking.lasts is None:
            return None
        with suppress(OverflowError):
            return now + self.taking.lasts
        return None


# --- to be sure ------------------------------------------------------------------------------------------------------


def settled_status(descriptor: int) -> os.stat_result:
    """What a file is, at a moment from which on every change shows.

    What is written through a mapping shows in its times only when it leaves the memory: so it is made to. And of two
    changes within a tick of the clock the second does not show: so a file that was changed just now is looked at again.
    """
    with suppress(OSError):  # a file system that cannot
        os.fsync(descriptor)
    status = os.fstat(descriptor)
    if abs(time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns)) < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)
        status = os.fstat(descriptor)
    return status


_MEANINGS = {
    errno.EIO: "its disk does not give it",
    errno.ESTALE: "it has vanished from its network file system",
    errno.EROFS: "its file system is read-only",
}


def _explained(error: OSError, path: EndpointPath) -> StanchError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return unusable(error)
    why = _MEANINGS.get(error.errno or 0, error.strerror)
    return ActionFailed(f"{path} cannot be taken: {why}", got=error.strerror)
