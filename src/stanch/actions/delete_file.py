"""Delete files and folders of an endpoint, so that they can be brought back for a while, or destroy their bytes."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from stanch.actions.quarantine import Restore
from stanch.core.action import AfterCrash, Check, Concurrency, Pair, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import StanchError, TargetGone, TooLarge, Unsupported
from stanch.core.files import MOUNTED, FileId, Found, Kind, Search, Shredded, Skipped
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.selection import Chosen, Selection, choose, described
from stanch.core.settings import VaultSettings
from stanch.core.taking import (
    MAX_ROWS,
    Lefts,
    SkipCounts,
    Target,
    Way,
    dumped,
    lefts_of,
    named,
    no_room,
    none_done,
    protected,
    refuse_no_room,
    refuse_protected,
    skip_counts,
    still_there,
    take_all,
    targets_of,
    told,
)
from stanch.core.types import EndpointPath, Id, Size, Text, VaultId, hours
from stanch.core.vault import Item, Why

EVERYTHING = tuple(Kind)
NOT_FOLDERS = tuple(kind for kind in Kind if kind is not Kind.FOLDER)

_CUT_SHORT = "the agent was stopped while it was destroyed: what the file system told of it is not known"


class DeleteFile(Selection):
    """Which files, and whether they may come back."""

    shred: bool = False
    """Overwrite the bytes of regular files in place instead of keeping them in the vault: no way back."""


class DeletedFile(Model):
    """Something that is not there any more."""

    path: EndpointPath
    """Where it was."""

    kind: Kind
    """What it was."""

    size: Size
    """Bytes."""

    id: VaultId | None
    """Its item in the vault; null if its bytes were destroyed."""

    others: Annotated[int, Field(ge=0, le=2**32)] = 0
    """Its other names (hard links) that were taken with it."""


class Deleted(Result):
    """What is not there any more."""

    order: Id
    """Brings back what is in the vault: `restore --order`."""

    count: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    """Files, folders and others that are gone."""

    size: Size
    """Bytes of all of them."""

    shredded: Annotated[int, Field(ge=0, le=MAX_ROWS)] = 0
    """Of them, files whose bytes were overwritten: they cannot come back."""

    caveats: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """Why bytes that were overwritten may still be somewhere."""

    deleted: Annotated[tuple[DeletedFile, ...], Field(max_length=MAX_ROWS)]
    """Each of them; of very many, as many as fit into an answer."""

    not_deleted: Lefts = ()
    """What fits and could not be deleted: it is as it was."""

    skipped: SkipCounts = ()
    """What was left out when the files were looked for."""


class _Begun(LooseModel):
    """What is written down before the first is touched."""

    targets: tuple[Target, ...]
    skipped: SkipCounts


# --- which -----------------------------------------------------------------------------------------------------------


async def _chosen(host: Host, params: DeleteFile) -> Chosen:
    """What fits; of folders all that is in them, too."""
    kinds = EVERYTHING if params.recursive else NOT_FOLDERS
    chosen = await choose(host, params, kinds=kinds, leaves_mounts=not params.hashes)
    known = {one.info.id for one in chosen.files}
    for path in params.path if params.recursive and not params.hashes else ():
        info = await host.files.look(path)
        if info is not None and info.id not in known:
            _add(params, chosen, Found(path, info), known)
    for folder in _highest(chosen) if params.glob else ():
        async for one in _below(host, folder):
            _add(params, chosen, one, known)
    _refuse_mounts(chosen)
    wrong = next((one for one in chosen.files if one.info.kind is Kind.FOLDER and not params.recursive), None)
    if wrong is not None:
        raise Unsupported(f"{wrong.path} is a folder; nothing was touched", hint="Order it with --recursive.")
    return chosen


def _refuse_mounts(chosen: Chosen) -> None:
    """What is mounted below a folder is no part of it: it may be the whole machine, seen a second time."""
    mounts = [one.path for one in chosen.skipped if one.why == MOUNTED]
    if chosen.reasons[MOUNTED]:
        raise Unsupported(
            "Something is mounted below; nothing was touched",
            got=", ".join(mounts[:10]) or f"{chosen.reasons[MOUNTED]} mount points",
            expected="folders without mount points",
            hint="Unmount it first, or name what is beside it.",
        )


def _add(params: DeleteFile, chosen: Chosen, one: Found | Skipped, known: set[FileId]) -> None:
    if isinstance(one, Skipped):
        chosen.skip(one)
    elif one.info.id not in known:
        known.add(one.info.id)
        chosen.files.append(one)
    if len(chosen.files) > params.max_files:
        raise TooLarge(
            "More would be deleted than allowed; nothing was touched",
            got=f"over {params.max_files}",
            expected=f"at most {params.max_files}, folders and what is in them counted",
            hint="Narrow it, or raise --max-files.",
        )


def _highest(chosen: Chosen) -> list[Found]:
    """The folders that are in no other one that was chosen."""
    folders = sorted((one for one in chosen.files if one.info.kind is Kind.FOLDER), key=lambda one: one.path)
    highest: list[Found] = []
    for one in folders:
        if not highest or not one.path.startswith(f"{highest[-1].path}/"):
            highest.append(one)
    return highest


async def _below(host: Host, folder: Found) -> AsyncGenerator[Found | Skipped, None]:
    async for batch in host.files.search(Search(roots=(folder.path,), kinds=EVERYTHING, leaves_mounts=True)):
        for one in batch:
            yield one


def _targets(host: Host, chosen: Chosen) -> list[Target]:
    """The deepest first: a folder is empty by the time it is taken."""
    return sorted(targets_of(host.task, chosen), key=lambda one: -one.path.count("/"))


def _shreds(params: DeleteFile, target: Target) -> bool:
    return params.shred and target.kind is Kind.FILE and target.file is not None


def _for_the_vault(params: DeleteFile, targets: Sequence[Target]) -> list[Target]:
    return [one for one in targets if not _shreds(params, one)]


# --- before and after ------------------------------------------------------------------------------------------------


async def _plan(host: Host, params: DeleteFile) -> Plan:
    """What would be deleted, and what would be refused."""
    chosen = await _chosen(host, params)
    targets = _targets(host, chosen)
    infos = {one.path: one.info for one in chosen.files}
    refused, missing = await protected(host, targets), await no_room(host, _for_the_vault(params, targets))
    steps = (
        Step(
            what="Destroy" if _shreds(params, one) else "Delete",
            target=f"{one.path} ({described(infos[one.path])})"[:4000],
        )
        for one in targets
    )
    warnings = [
        *(f"Will be refused: {one.path}: {one.why}"[:4000] for one in refused),
        *(f"Will be refused: the vault has no room: {missing}" for _ in [1] if missing),
        *("What is destroyed cannot be brought back." for _ in [1] if any(_shreds(params, one) for one in targets)),
        *(_about_names(params, one) for one in targets if one.kind is Kind.FILE and one.links > 1),
        *(f"{one.files} left out: {one.why}" for one in skip_counts(chosen)),
    ]
    return Plan(changes=not refused and not missing, steps=tuple(steps), warnings=tuple(warnings[:100]))


def _about_names(params: DeleteFile, target: Target) -> str:
    what = "the others will lead to random bytes" if _shreds(params, target) else "all of them go, wherever they are"
    return f"{target.path} has {target.links} names: {what}"[:4000]


async def _verify(host: Host, params: DeleteFile, result: Deleted | None) -> Check:
    """Is each gone from its place, and in the vault unless destroyed? After a crash: is any gone?"""
    if result is None:
        begun = _recorded(host)
        gone = [one for one in begun.targets if await _is_gone(host, params, one)] if begun else []
        return Check.of(bool(gone), f"{len(gone)} are gone")
    if result.not_deleted:
        return Check.of(False, f"{result.count} are gone, not {named(result.not_deleted)}")
    kept = [one for one in await host.vault.of_order(host.order) if one.why is Why.DELETED]
    back = [str(one.path) for one in kept if await still_there(host, one)]
    back += [str(one.path) for one in result.deleted if one.id is None and await host.files.look(one.path) is not None]
    if back:
        return Check.of(False, f"there again: {', '.join(back[:10])}")
    wanted = result.count - result.shredded
    return Check.of(len(kept) >= wanted, f"{len(kept)} of {wanted} are in the vault, {result.shredded} destroyed")


def _recorded(host: Host) -> _Begun | None:
    recorded = host.journal.recorded()
    return None if recorded is None else _Begun.model_validate(recorded)


async def _is_gone(host: Host, params: DeleteFile, target: Target) -> bool:
    if not _shreds(params, target):
        return await host.vault.find(target.id) is not None
    info = await host.files.look(target.path)
    return info is None or info.id != target.file


def _bring_back(_params: DeleteFile, result: Deleted) -> Restore | None:
    return Restore(order=result.order) if result.count and not result.shredded else None


# --- the deed --------------------------------------------------------------------------------------------------------


@action(
    "delete_file",
    version=1,
    risk=Risk.DESTRUCTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    verify=_verify,
    undo=Undo("restore", _bring_back),
    openc2=Pair("delete", "file"),
    examples=(
        "web-01 --path /tmp/dropper --wait",
        "web-01 --path /tmp/.x11 --recursive --max-files 500 --dry-run",
        "web-01 --path /srv/export/customers.csv --shred --reason 'must not be kept'",
    ),
)
async def delete_file(host: Host, params: DeleteFile) -> Deleted:
    """Delete files, and folders with all that is in them; for a while they can be brought back.

    Files, links, pipes, sockets and devices go into the vault, under all of their names, and stay there as long as the
    policy says (24 hours), so that it can be undone. With `shred` the bytes of regular files are overwritten in place
    instead; what may still keep them, such as flash memory or a snapshot, is told. Once the first is gone, a cancel
    comes too late.
    """
    begun = _recorded(host) or await _begin(host, params)
    work = _Work(host, params, begun)
    await work.carry_out()
    return work.result()


async def _begin(host: Host, params: DeleteFile) -> _Begun:
    """Choose all, check all, write down all."""
    chosen = await _chosen(host, params)
    targets = _targets(host, chosen)
    refuse_protected(await protected(host, targets), len(targets))
    await refuse_no_room(
        host,
        _for_the_vault(params, targets),
        hint="Make room with quarantine-delete; or order it with --shred, which keeps nothing and needs no room.",
    )
    begun = _Begun(targets=tuple(targets), skipped=skip_counts(chosen))
    await host.journal.record(dumped(begun))
    return begun


@dataclass
class _Work:
    """One deletion, in the order in which things may go."""

    host: Host
    params: DeleteFile
    begun: _Begun
    rows: list[DeletedFile] = field(default_factory=list)
    failed: list[tuple[Target, StanchError]] = field(default_factory=list)
    caveats: dict[str, None] = field(default_factory=dict)
    """In order, each once."""

    async def carry_out(self) -> None:
        """Files are destroyed first, so that the folders around them are empty; the error itself if nothing worked."""
        targets = self.begun.targets
        for one in targets:
            if one.file is not None and _shreds(self.params, one):
                await self._shred(one, one.file)
        rest = _for_the_vault(self.params, targets)
        if rest:
            await self._take(rest)
        if self.failed and not self.rows:
            raise none_done(self.failed)

    async def _shred(self, target: Target, file: FileId) -> None:
        try:
            done = await self.host.files.shred(target.path, file)
        except StanchError as error:
            if not await self._was_shredded(target, error):
                self.failed.append((target, error))
                return
            done = Shredded(overwritten=target.size, caveats=(_CUT_SHORT,))
        self.caveats |= dict.fromkeys(done.caveats)
        self.rows.append(DeletedFile(path=target.path, kind=target.kind, size=target.size, id=None))

    async def _was_shredded(self, target: Target, error: StanchError) -> bool:
        """Had an earlier run come to its end with it before the agent was killed?"""
        earlier = self.host.journal.recorded() is not None
        return earlier and isinstance(error, TargetGone) and await self.host.files.look(target.path) is None

    async def _take(self, targets: Sequence[Target]) -> None:
        lasts = (self.host.settings.vault or VaultSettings()).keep_deleted
        way = Way(why=Why.DELETED, kinds=EVERYTHING, with_md5=bool(self.params.md5), lasts=lasts)
        taken = await take_all(self.host, targets, way)
        self.failed += taken.failed
        self.rows += [_row(one) for one in taken.items]

    def result(self) -> Deleted:
        """What is gone."""
        return Deleted(
            order=self.host.order,
            count=len(self.rows),
            size=Size(sum(one.size for one in self.rows)),
            shredded=sum(one.id is None for one in self.rows),
            caveats=tuple(self.caveats)[:20],
            deleted=told(self.rows),
            not_deleted=told(lefts_of(self.failed)),
            skipped=self.begun.skipped,
        )


def _row(item: Item) -> DeletedFile:
    return DeletedFile(path=item.path, kind=item.info.kind, size=item.info.size, id=item.id, others=len(item.others))
