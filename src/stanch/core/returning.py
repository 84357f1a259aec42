"""Bring items of the vault back: where each goes, what stands in the way, and the order of the steps.

Everything is checked before the first is touched. First all are put back; that is written down; only then the items are
removed from the vault. So a crash finds each file in the vault, at its place, or in both, never in neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from stanch.core.action import Result
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    NotFound,
    NotVerified,
    Protected,
    StanchError,
    TargetGone,
    VerificationFailed,
)
from stanch.core.files import FileInfo, Kind
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.taking import MAX_ROWS, Left, Lefts, named, reason, told
from stanch.core.types import EndpointPath, Id, Size, Text, VaultId
from stanch.core.vault import Item, OnConflict, Returned, Returning, Taking, Why, item_id

NOT_FOLDERS = tuple(kind for kind in Kind if kind is not Kind.FOLDER)
"""What may be replaced."""

_MOST_LOST_LINES, _MOST_LOST_BYTES = 20, 500_000
"""Lines about one file, and bytes of all of them, that are told."""

_KEEPS_ITS_OWN = "the folder was there already: it keeps its own owner, mode and times"
_TOO_MANY = ("more could not be brought back than can be told here",)


class RestoredFile(Model):
    """Something that is back."""

    id: VaultId
    """The item that it was."""

    path: EndpointPath
    """Where it is now."""

    was: EndpointPath
    """Where it was taken from."""

    kind: Kind
    """What it is."""

    size: Size
    """Bytes."""

    others: Annotated[int, Field(ge=0, le=2**32)] = 0
    """Its other names (hard links), which are back too."""

    replaced: VaultId | None = None
    """The item that what was there before is now."""

    lost: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """What of it could not be brought back."""


class Restored(Result):
    """What is back."""

    count: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    """Files and folders that are back."""

    restored: Annotated[tuple[RestoredFile, ...], Field(max_length=MAX_ROWS)]
    """Each of them; of very many, as many as fit into an answer."""

    not_restored: Lefts = ()
    """What is still in the vault, because it could not be put back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to come back, and how."""

    items: Sequence[VaultId] = ()
    order: Id | None = None
    to: EndpointPath | None = None
    on_conflict: OnConflict = OnConflict.REFUSE
    replace: bool = False
    fallback: EndpointPath | None = None


class Entry(LooseModel):
    """One thing that comes back, as it is written down before that."""

    id: VaultId
    was: EndpointPath
    kind: Kind
    size: Size
    to: EndpointPath | None = None
    """Where to, if it was ordered; what is below a folder follows the folder."""
    target: EndpointPath
    """Where it will be, as far as that can be told before."""
    replaces: VaultId | None = None
    """The item that what is there becomes."""
    taken: bool = False
    """Is something there that stays?"""


class Intent(LooseModel):
    """Everything that comes back, and how far it is."""

    entries: Annotated[tuple[Entry, ...], Field(max_length=MAX_ROWS)]
    done: tuple[RestoredFile, ...] | None = None
    """What is back; null as long as they are being put back."""
    failed: tuple[Left, ...] = ()


# --- before the first is touched -------------------------------------------------------------------------------------


async def wanted_items(host: Host, wish: Wish) -> list[Item]:
    """The items, folders before what is in them; NotFound if one is not there, VerificationFailed if it is damaged."""
    items = await _of_order(host, wish.order) if wish.order is not None else await named_items(host, wish.items)
    damaged = [Left(path=one.path, why=one.damage) for one in items if one.damage]
    if damaged:
        raise VerificationFailed("Items in the vault are damaged; nothing was touched", got=named(damaged))
    return sorted(items, key=lambda one: one.path.count("/"))


async def _of_order(host: Host, order: Id) -> list[Item]:
    found = [one for one in await host.vault.of_order(order) if not one.original_kept]
    if not found:
        raise NotFound(
            "Nothing that this order took is in the vault",
            got=order,
            hint="It may have been restored or removed already: quarantine-list shows what is there.",
        )
    return found


async def named_items(host: Host, ids: Sequence[VaultId]) -> list[Item]:
    """The items of these ids, each once; NotFound if one is not there."""
    found = {one: await host.vault.find(one) for one in dict.fromkeys(ids)}
    missing = [id_ for id_, one in found.items() if one is None]
    if missing:
        raise NotFound(
            "Not in the vault; nothing was touched",
            got=", ".join(missing[:10]),
            hint="It may have been restored or removed already: quarantine-list shows what is there.",
        )
    return [one for one in found.values() if one is not None]


async def restore_intent(host: Host, wish: Wish) -> tuple[Intent, list[StanchError]]:
    """Where each goes, and what stands in the way of it; nothing is changed."""
    plan = _Planning(host, wish, await wanted_items(host, wish))
    await plan.make()
    return Intent(entries=tuple(plan.entries)), plan.errors


@dataclass
class _Planning:
    """Where each item goes, folders first."""

    host: Host
    wish: Wish
    items: Sequence[Item]
    entries: list[Entry] = field(default_factory=list)
    errors: list[StanchError] = field(default_factory=list)
    targets: dict[EndpointPath, EndpointPath] = field(default_factory=dict)
    """Where something was to where it will be."""

    async def make(self) -> None:
        """One entry for each item, or an error."""
        await self._check_folders()
        for n, item in enumerate(self.items):
            try:
                entry = await self._entry(n, item)
            except StanchError as error:
                self.errors.append(error)
                continue
            self.entries.append(entry)
            self.targets[item.path] = entry.target

    async def _check_folders(self) -> None:
        to = self.wish.to if len(self._roots()) > 1 else None
        if to is not None and not _may_be_folder(await self.host.files.look(to)):
            raise TargetGone(f"{to} is no folder", expected="a folder that is there")
        # The fallback is made if need be.
        fallback = None if self.wish.fallback is None else await self.host.files.look(self.wish.fallback)
        if fallback is not None and not _may_be_folder(fallback):
            raise Conflict(f"{self.wish.fallback} is no folder", got=fallback.kind.words)

    def _roots(self) -> list[Item]:
        paths = {one.path for one in self.items}
        return [one for one in self.items if _parent(one.path) not in paths]

    async def _entry(self, n: int, item: Item) -> Entry:
        above = self.targets.get(_parent(item.path))
        to = None if above else await self._ordered_place(item)
        target = below(above, item.path.name) if above else to or item.path
        if above is None and not _may_be_folder(await self.host.files.look(_parent(target))):
            target = self._fallback(item, target)
        there = await self.host.files.look(target)
        if there is None and target in self.targets.values():
            raise Conflict(f"Two items would both be {target}", hint="Bring them back one by one, with --to.")
        replaces = None if there is None else await self._conflict(n, item, target, there)
        stays = there is not None and replaces is None
        return Entry(
            id=item.id,
            was=item.path,
            kind=item.info.kind,
            size=item.info.size,
            to=to,
            target=target,
            replaces=replaces,
            taken=stays,
        )

    async def _ordered_place(self, item: Item) -> EndpointPath | None:
        to = self.wish.to
        if to is None:
            return None
        info = await self.host.files.look(to)
        is_folder = len(self._roots()) > 1 or (info is not None and info.kind is Kind.FOLDER)
        return below(to, item.path.name) if is_folder else to

    def _fallback(self, item: Item, target: EndpointPath) -> EndpointPath:
        if self.wish.fallback is None:
            raise TargetGone(
                "The folder of the file is gone",
                got=_parent(target),
                hint="Say where to put it: --fallback FOLDER, or --to PATH.",
            )
        return below(self.wish.fallback, item.path.name)

    async def _conflict(self, n: int, item: Item, target: EndpointPath, there: FileInfo) -> VaultId | None:
        """The id under which what is there will be taken; None if it may stay."""
        if Kind.FOLDER in {item.info.kind, there.kind}:
            if item.info.kind is there.kind or self.wish.on_conflict is OnConflict.RENAME:
                return None
            raise Conflict(
                f"Something else is at {target}", got=there.kind.words, expected=f"nothing, or {item.info.kind.words}"
            )
        if self.wish.on_conflict is OnConflict.RENAME:
            return None
        if not self.wish.replace:
            raise Conflict(f"Something is at {target} already", got=there.kind.words, hint=_HINT)
        why = await self.host.files.why_protected(target)
        if why is not None:
            raise Protected(f"{target} must not be replaced", got=why)
        return item_id(self.host.task, n)


_HINT = "Order it with --rename to put it beside, with --replace to take away what is there, or with --to PATH."


def _may_be_folder(info: FileInfo | None) -> bool:
    """Links may lead to a folder: whoever writes there looks again."""
    return info is not None and info.kind in {Kind.FOLDER, Kind.LINK}


def _parent(path: EndpointPath) -> EndpointPath:
    return EndpointPath(path.rpartition("/")[0] or "/")


def below(folder: EndpointPath, name: str) -> EndpointPath:
    """A name in a folder."""
    return EndpointPath(f"{folder.rstrip('/')}/{name}")


def raise_first(errors: Sequence[StanchError], total: int) -> None:
    """What stands in the way, as one error."""
    if errors and total == 1:
        raise errors[0]
    if errors:
        lines = "; ".join(f"{one.message[:200]}" for one in errors[:10])
        first = errors[0]
        raise type(first)(f"{len(errors)} of {total} stand in the way; nothing was touched", got=lines, hint=first.hint)


# --- putting back ----------------------------------------------------------------------------------------------------


async def put_all_back(host: Host, wish: Wish, intent: Intent, *, replaced_for: timedelta) -> Intent:
    """Put back each; one that fails does not keep the others. The error itself if none could be."""
    moved, done, failed = dict[EndpointPath, EndpointPath](), list[RestoredFile](), list[tuple[Entry, StanchError]]()
    told_of = 0
    for n, one in enumerate(intent.entries):
        host.progress(n, len(intent.entries), "files", str(one.was)[-200:])
        try:
            row = await _put_back(host, wish, one, moved.get(_parent(one.was)), replaced_for)
        except StanchError as error:
            failed.append((one, error))
            continue
        told_of += sum(map(len, row.lost))
        done.append(row if told_of <= _MOST_LOST_BYTES else row.model_copy(update={"lost": _TOO_MANY}))
        if row.path != one.was:
            moved[one.was] = row.path
    if failed and not done:
        raise _none_back(failed)
    lefts = tuple(Left(path=one.was, why=reason(error)) for one, error in failed)
    return intent.model_copy(update={"done": tuple(done), "failed": lefts})


def _none_back(failed: Sequence[tuple[Entry, StanchError]]) -> StanchError:
    if len(failed) == 1:
        return failed[0][1]
    lefts = [Left(path=one.was, why=reason(error)) for one, error in failed]
    return ActionFailed(f"None of {len(failed)} could be put back; all are still in the vault", got=named(lefts))


async def _put_back(
    host: Host, wish: Wish, entry: Entry, above: EndpointPath | None, replaced_for: timedelta
) -> RestoredFile:
    to = below(above, entry.was.name) if above else entry.to
    replaced = await _take_away(host, entry, replaced_for)
    try:
        back = await host.vault.put_back(
            Returning(id=entry.id, to=to, on_conflict=wish.on_conflict, fallback=wish.fallback)
        )
    except Conflict as error:
        if not await _is_folder_on_folder(host, entry, to or entry.was):
            raise await _let_stay(host, replaced, error) from error
        back = Returned(id=entry.id, path=to or entry.was, was=entry.was, lost=(_KEEPS_ITS_OWN,))
    except StanchError as error:
        raise await _let_stay(host, replaced, error) from error
    await _expect_back(host, entry, back)
    return RestoredFile(
        id=entry.id,
        path=back.path,
        was=entry.was,
        kind=entry.kind,
        size=entry.size,
        others=len(back.others),
        replaced=replaced,
        lost=tuple(one[:200] for one in back.lost[:_MOST_LOST_LINES]),
    )


async def _take_away(host: Host, entry: Entry, lasts: timedelta) -> VaultId | None:
    """Put what is in the way into the vault."""
    if entry.replaces is None:
        return None
    taking = Taking(id=entry.replaces, path=entry.target, why=Why.REPLACED, kinds=NOT_FOLDERS, lasts=lasts)
    try:
        await host.vault.take(taking)
    except TargetGone:
        return None
    return entry.replaces


async def _let_stay(host: Host, replaced: VaultId | None, error: StanchError) -> StanchError:
    """What was in the way is back where it was; the error to raise, which tells if it could not be."""
    if replaced is None:
        return error
    try:
        await host.vault.put_back(Returning(id=replaced))
    except StanchError as again:
        return ActionFailed(
            f"{error.message}; what was there before is in the vault as {replaced}",
            got=again.message,
            hint=f"Order `restore --items {replaced}`.",
        )
    await host.vault.remove(replaced)
    return error


async def _is_folder_on_folder(host: Host, entry: Entry, path: EndpointPath) -> bool:
    there = await host.files.look(path)
    return entry.kind is Kind.FOLDER and there is not None and there.kind is Kind.FOLDER


async def _expect_back(host: Host, entry: Entry, back: Returned) -> None:
    """NotVerified if it is not there; then it stays in the vault, too."""
    info = await host.files.look(back.path)
    if info is None or info.kind is not entry.kind or (entry.kind is Kind.FILE and info.size != entry.size):
        seen = "nothing" if info is None else f"a {info.kind} of {info.size} bytes"
        raise NotVerified(f"It was put back to {back.path}, but is not there", got=seen)


def restored_of(intent: Intent) -> Restored:
    """The answer."""
    done = intent.done or ()
    return Restored(count=len(done), restored=told(done), not_restored=told(intent.failed))


async def seen_back(host: Host, entries: Sequence[Entry]) -> int:
    """How many seem to be at their places already, after a run that was cut short."""
    seen = 0
    for one in entries:
        replaced = one.replaces is not None and await host.vault.find(one.replaces) is not None
        # What may stay, stands at the place whether or not the item is back: then it is better completed than denied.
        seen += one.taken or replaced or (one.replaces is None and await host.files.look(one.target) is not None)
    return seen
