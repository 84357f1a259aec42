"""The vault of this endpoint: `core.vault.Vault` on its disk.

The work itself is in `vault_taking` and `vault_returning`, which block; here it gets its threads, is cancelled, watched
and told of. What a crash has cut short is settled by `recover`, before anybody works.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from stanch.agent.host import vault_clearing, vault_returning, vault_taking
from stanch.agent.host.vault_content import Watch
from stanch.agent.host.vault_items import Items, Record, Stage, unusable
from stanch.agent.host.vault_parts import Keys, Orderer, Parts, Room, WhyProtected, Work
from stanch.agent.host.vault_stream import Stream
from stanch.core.errors import NotFound, StanchError, Unsupported, VaultFull, VerificationFailed
from stanch.core.files import Kind
from stanch.core.host import Progress
from stanch.core.types import Id
from stanch.core.vault import Item, Returned, Returning, Taking, Usage

if TYPE_CHECKING:
    from stanch.agent.path_rules import PathRules
    from stanch.agent.tasks import TaskContext

Tell = Callable[[str, Mapping[str, object]], Awaitable[None]]
"""Tells the server of something: a kind of notice, and details."""

T = TypeVar("T")

GRACE = 10
"""Seconds that a cancelled piece of work has to clean up; a disk that hangs must not hold its task any longer."""

ORPHANS_AFTER = 3600
"""Seconds for which content without a record is kept."""

TOLD_EVERY = 8 * 1_048_576
"""Bytes between two reports of progress."""

_MOST_TOLD = 50
"""Items that one notice names."""

_FAR = datetime(9999, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


def _no_progress(done: int, total: int | None, unit: str, text: str = "", *, paused: str = "") -> None:
    """Nobody looks."""


class LinuxVault:
    """The vault. Nothing is made or imported before something is taken."""

    def __init__(
        self,
        folder: Path,
        *,
        key: Path,
        evidence_key: Callable[[], str],
        limit: Callable[[], int],
        why_protected: WhyProtected,
        clock: Callable[[], datetime | None],
        tell: Tell,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        items = Items(folder)
        self.tell = tell
        self.parts = Parts(
            items=items,
            keys=Keys(key, evidence_key),
            room=Room(items, limit),
            why_protected=why_protected,
            clock=clock,
        )
        self._seconds = seconds
        self._orphans: dict[Path, float] = {}
        self._due: datetime | None = None
        """When the next item is to be removed, as far as we know; None if we do not."""

    def of(self, context: "TaskContext", rules: "PathRules") -> "TaskVault":
        """The vault in the hands of one task."""
        order = context.order
        orderer = Orderer(
            order=context.task if context.own else order.order,
            by=order.requested_by,
            reason=order.reason,
            forbidden=rules.check,
            unwritable=rules.check_write,
        )
        return TaskVault(self, orderer, context.progress)

    async def recover(self) -> None:
        """Settle what a crash cut short: each item is either whole, or not there. Before anybody works on the vault.

        A vault that cannot be used is told of, and stops nobody: the agent has other things to do.
        """
        try:
            problems = await _blocking(self._recover)
        except StanchError as error:
            problems = [_problem("", str(self.parts.items.folder), str(error))]
        for problem in problems:
            await self.tell("vault-damaged", problem)

    def _recover(self) -> list[Mapping[str, object]]:
        items = self.parts.items
        items.sweep()
        damaged: list[Mapping[str, object]] = []
        for one in items.every():
            item = one.item if isinstance(one, Record) else one
            if item.damage:
                damaged.append(_problem(item.id, item.path, item.damage))
            if isinstance(one, Record):
                self.parts.numbers.seen(one.number)
                self._settle(one)
        return damaged[:_MOST_TOLD]

    def _settle(self, record: Record) -> None:
        try:
            settle(self.parts, record)
        except (StanchError, OSError) as error:
            log.error("an item of the vault cannot be settled", id=record.item.id, why=str(error))  # noqa: TRY400 - an error of a file, not of ours

    async def expire(self) -> None:
        """Remove what was kept long enough, and say so. Not while the time is not known; what fails is tried again."""
        now, gone = self.parts.clock(), list[Item]()
        try:
            await _blocking(self._remove_orphans)
            if now is not None and (self._due is None or now >= self._due):
                gone = await _blocking(lambda: self._expire(now))
        except StanchError as error:
            log.warning("the vault could not be tidied", why=str(error))
        for first in range(0, len(gone), _MOST_TOLD):
            some = gone[first : first + _MOST_TOLD]
            await self.tell("vault-expired", {"ids": [one.id for one in some], "paths": [one.path for one in some]})

    def _expire(self, now: datetime) -> list[Item]:
        gone: list[Item] = []
        due = _FAR
        for one in self.parts.items.every():
            item = one.item if isinstance(one, Record) else one
            if item.until is not None and item.until <= now and self._removed(item):
                gone.append(item)
            elif item.until is not None:
                due = min(due, item.until)
        self._due = due
        return gone

    def _remove_orphans(self) -> None:
        """Content without a record, once it has been like that for long: somebody may be about to write the record."""
        now = self._seconds()
        found = self.parts.items.orphans()
        self._orphans = {one: self._orphans.get(one, now) for one in found}
        for orphan, seen in self._orphans.items():
            if now - seen >= ORPHANS_AFTER:
                orphan.unlink(missing_ok=True)

    def _removed(self, item: Item) -> bool:
        try:
            return remove(self.parts, item.id)
        except (StanchError, OSError) as error:
            log.warning("an item of the vault could not be removed", id=item.id, why=str(error))
            return False

    def look_again(self) -> None:
        """Something was taken: there may be an earlier time to remove something."""
        self._due = None


class TaskVault:
    """The vault in the hands of one task; see `core.vault.Vault`."""

    def __init__(self, vault: LinuxVault, orderer: Orderer, progress: Progress = _no_progress) -> None:
        self._vault = vault
        self._parts = vault.parts
        self._orderer = orderer
        self._progress = progress

    async def expect_room(self, size: int, what: str) -> None:
        """See the protocol."""
        try:
            await asyncio.to_thread(self._parts.room.check, size, what)
        except VaultFull as error:
            await self._tell_full(error, what)
            raise

    async def take(self, taking: Taking) -> Item:
        """See the protocol."""
        try:
            item = await self._in_thread(
                lambda work: vault_taking.take(self._parts, work, taking), f"{taking.path.name} into the vault"
            )
        except VaultFull as error:
            await self._tell_full(error, taking.path)
            raise
        self._vault.look_again()
        return item

    async def _tell_full(self, error: VaultFull, what: str) -> None:
        detail = {"path": what, "order": self._orderer.order, "got": error.got, "left": error.expected}
        await self._vault.tell("vault-full", detail)

    async def put_back(self, returning: Returning) -> Returned:
        """See the protocol."""
        return await self._telling_damage(
            returning.id,
            lambda: self._in_thread(
                lambda work: vault_returning.put_back(self._parts, work, returning), f"{returning.id} back"
            ),
        )

    async def remove(self, id: str) -> bool:  # noqa: A002 - the field's own name
        """See the protocol."""
        return await _blocking(lambda: remove(self._parts, id))

    async def find(self, id: str) -> Item | None:  # noqa: A002 - the field's own name
        """See the protocol; an item whose record is damaged comes with its damage."""
        return await _blocking(lambda: self._find(id))

    def _find(self, id: str) -> Item | None:  # noqa: A002 - the field's own name
        try:
            found = self._parts.items.find(id)
            return None if found is None else _shown(self._parts.items.checked(found))
        except VerificationFailed as error:
            return self._parts.items.damaged(id, str(error))

    async def items(self) -> Sequence[Item]:
        """See the protocol."""
        found = await _blocking(self._every)
        return [item for _, item in sorted(found, key=lambda one: (-one[0], one[1].id))]

    async def of_order(self, order: Id) -> Sequence[Item]:
        """See the protocol."""
        found = await _blocking(self._every)
        return [item for _, item in sorted(found, key=lambda one: one[0]) if item.order == order]

    def _every(self) -> list[tuple[int, Item]]:
        """Each complete item, and a number that grows from one to the next."""
        found = []
        for one in self._parts.items.every():
            item = _shown(one) if isinstance(one, Record) else one
            if item is not None:
                found.append((one.number if isinstance(one, Record) else 0, item))
        return found

    @asynccontextmanager
    async def open(self, id: str) -> AsyncIterator["Reading"]:  # noqa: A002 - the field's own name
        """See the protocol; Unsupported for what has no content."""
        reading = await self._telling_damage(id, lambda: _blocking(lambda: self._open(id)))
        try:
            yield reading
        finally:
            await asyncio.to_thread(reading.close)

    def _open(self, id: str) -> "Reading":  # noqa: A002 - the field's own name
        record = self._parts.items.read(id)
        item = _shown(record)
        if item is None:
            raise NotFound("There is no such item in the vault", got=id)
        # What must not be read in its place must not be read here either.
        self._orderer.forbidden(item.path)
        if item.info.kind is not Kind.FILE:
            raise Unsupported("The item has no content", got=item.info.kind.words, expected="a file")
        source = vault_returning.open_content(self._parts.items, record)
        try:
            stream = Stream(
                source,
                self._parts.keys.own(),
                pieces=record.extents,
                size=item.info.size,
                data_sha256=record.data_sha256,
            )
        except BaseException:
            os.close(source)
            raise
        reading = Reading(item.path, item.info.size, stream, source)
        try:
            stream.begin()
        except BaseException:
            reading.close()
            raise
        return reading

    async def usage(self) -> Usage:
        """See the protocol."""
        return await _blocking(self._parts.room.usage)

    async def _telling_damage(self, id: str, do: Callable[[], Awaitable[T]]) -> T:  # noqa: A002 - the field's own name
        try:
            return await do()
        except VerificationFailed as error:
            await self._vault.tell("vault-damaged", _problem(id, "", str(error)))
            raise

    async def _in_thread(self, do: Callable[[Work], T], what: str) -> T:
        """Work in a thread; whoever is cancelled waits for a moment until it has cleaned up."""
        loop = asyncio.get_running_loop()
        watch = Watch(told=_Told(loop, self._progress, what))
        running = loop.run_in_executor(None, do, Work(orderer=self._orderer, watch=watch))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            watch.stop.set()
            running.add_done_callback(_heard)
            await asyncio.wait([running], timeout=GRACE)
            raise


async def _blocking(do: Callable[[], T]) -> T:
    """Ask the disk of the vault in a thread; ActionFailed if it does not answer."""

    def asked() -> T:
        try:
            return do()
        except OSError as error:
            raise unusable(error) from error

    return await asyncio.to_thread(asked)


def _heard(running: "asyncio.Future[T]") -> None:
    """Nobody waits for it any more: its error is no news."""
    if not running.cancelled():
        running.exception()


@dataclass(slots=True)
class _Told:
    """Reports progress from a thread, now and then."""

    loop: asyncio.AbstractEventLoop
    progress: Progress
    what: str
    last: int = 0

    def __call__(self, done: int, total: int) -> None:
        if done - self.last >= TOLD_EVERY:
            self.last = done
            self.loop.call_soon_threadsafe(self.progress, done, total, "bytes", self.what[:200])


class Reading:
    """The content of an item while it is read: in order, from the start."""

    def __init__(self, name: str, size: int, stream: Stream, source: int) -> None:
        self._name = name
        self._size = size
        self._stream = stream
        self._source = source

    @property
    def name(self) -> str:
        """Where it was."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes, holes included."""
        return self._size

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; VerificationFailed if the item is damaged."""
        return await asyncio.to_thread(self._stream.read, offset, length)

    def close(self) -> None:
        """End it."""
        self._stream.close()
        os.close(self._source)


def _shown(record: Record) -> Item | None:
    """The item, if it is complete: its original gone or meant to stay, itself not about to go."""
    if record.stage in {Stage.MOVING, Stage.TAKING, Stage.REMOVING}:
        return None
    return record.item


def _problem(id_: str, path: str, damage: str) -> Mapping[str, object]:
    return {"id": id_, "path": path, "damage": damage[:1000]}


def settle(parts: Parts, record: Record) -> Record | None:
    """Finish or undo what was cut short with an item; its record now, None if the item is gone."""
    match record.stage:
        case Stage.MOVING | Stage.TAKING:
            return vault_clearing.settle(parts, record)
        case Stage.RETURNING:
            return vault_returning.settle(parts, record)
        case Stage.REMOVING:
            parts.items.remove(record.item.id)
            return None
        case _:
            return record


def remove(parts: Parts, id_: str) -> bool:
    """Remove an item for good: first it is written that it goes, so that a crash leaves nothing half there."""
    with parts.busy.claim(id_, id_):
        try:
            record = parts.items.find(id_)
        except VerificationFailed:
            return parts.items.remove(id_)
        if record is None:
            return False
        settled = settle(parts, record)
        if settled is None:
            return record.stage is Stage.REMOVING
        with suppress(StanchError):  # a full disk must not keep anybody from making room
            parts.items.write(settled.at(Stage.REMOVING))
        return parts.items.remove(id_)
