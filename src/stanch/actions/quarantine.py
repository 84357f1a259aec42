"""Take files out of the way into the endpoint's vault, and bring them back as they were."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from stanch.core.action import AfterCrash, Check, Concurrency, Pair, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import Unsupported
from stanch.core.files import FileInfo, Kind
from stanch.core.holding import DELETED, Ended, Holders, Places, StillHeld, end_runners, ended_of, holders_of, meant
from stanch.core.holding import still_held as holding_on
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.processes import Held, Holder
from stanch.core.returning import (
    Entry,
    Intent,
    Restored,
    Wish,
    put_all_back,
    raise_first,
    restore_intent,
    restored_of,
    seen_back,
)
from stanch.core.selection import Chosen, Selection, choose, described
from stanch.core.settings import VaultSettings
from stanch.core.taking import (
    MAX_ROWS,
    Lefts,
    SkipCounts,
    Target,
    Way,
    dumped,
    found_of,
    lefts_of,
    named,
    no_room,
    none_done,
    protected,
    refuse_no_room,
    refuse_protected,
    refuse_too_large,
    skip_counts,
    still_there,
    take_all,
    targets_of,
    told,
    too_large,
)
from stanch.core.types import EndpointPath, Id, Sha256, Size, VaultId, hours
from stanch.core.vault import Item, OnConflict, Why, item_id

MEBIBYTE = 1_048_576
LARGEST = Size(100 * MEBIBYTE)
"""What is quarantined unless the order says more."""

_INSTEAD = {
    Kind.LINK: "Order what it leads to.",
    Kind.FOLDER: "Order what is in it with --recursive.",
}

MAX_ITEMS = 1000
"""Items, or paths, that one order names one by one."""


_OF_PROCESS = re.compile(r"/proc/\d{1,10}/exe")


class Quarantine(Selection):
    """Which files, and what else is done about them."""

    max_size: Annotated[Size, Field(ge=1, le=2**50)] = LARGEST
    """Refuse if a file is larger than this, before any is touched."""

    end_processes: bool = False
    """End the processes that run one of them, too."""

    keep_original: bool = False
    """Take a copy only, and leave the file where it is."""

    def does_also(self) -> tuple[str, ...]:
        """Ending processes has an action of its own."""
        return ("kill_process",) if self.end_processes else ()


class QuarantinedFile(Model):
    """A file that is in the vault now."""

    id: VaultId
    """Its item in the vault."""

    path: EndpointPath
    """Where it was, all links on the way resolved."""

    size: Size
    """Bytes."""

    sha256: Sha256 | None
    """Of its content."""

    others: Annotated[int, Field(ge=0, le=2**32)]
    """Its other names (hard links) that were taken with it."""

    names_left: Annotated[int, Field(ge=0, le=2**32)]
    """Its names that were not found: its content is still readable there."""


class Quarantined(Result):
    """What is out of the way."""

    order: Id
    """Brings everything back: `restore --order`."""

    taken: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    """Files that are in the vault."""

    size: Size
    """Bytes of all of them."""

    items: Annotated[tuple[QuarantinedFile, ...], Field(max_length=MAX_ROWS)]
    """The files; of very many, as many as fit into an answer."""

    not_taken: Lefts = ()
    """Files that fit and could not be taken: they are as they were."""

    ended: Annotated[tuple[Ended, ...], Field(max_length=MAX_ROWS)] = ()
    """Processes that ran one of them, and have ended."""

    still_held: Annotated[tuple[StillHeld, ...], Field(max_length=MAX_ROWS)] = ()
    """Processes that go on running one of them, or have it open."""

    skipped: SkipCounts = ()
    """What was left out when the files were looked for."""


class Restore(Params):
    """What comes back, and where to."""

    items: Annotated[tuple[VaultId, ...], Field(max_length=MAX_ITEMS)] = ()
    """Items of the vault."""

    order: Id | None = None
    """Everything that this order took on the endpoint."""

    to: EndpointPath | None = None
    """Another place: a path for one file, a folder that is there for several."""

    replace: bool = False
    """If something else is there, put that into the vault first."""

    rename: bool = False
    """If something else is there, put the file beside it, under a name that is free."""

    fallback: EndpointPath | None = None
    """A folder to use for what has lost its own."""

    keep_item: bool = False
    """Leave it in the vault, too."""

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if bool(self.items) == (self.order is not None):
            raise ValueError("expected either items or an order")
        if self.replace and self.rename:
            raise ValueError("expected either replace or rename")
        return self


# --- quarantine ------------------------------------------------------------------------------------------------------


class _Begun(LooseModel):
    """What is written down before the first file is touched."""

    targets: tuple[Target, ...]
    skipped: SkipCounts
    holders: Holders


async def _chosen(host: Host, params: Quarantine) -> tuple[Chosen, list[Target]]:
    """What fits; a program that was deleted and still runs can be named, too."""
    running = await _deleted_but_running(host, params)
    rest = params.model_copy(update={"path": tuple(one for one in params.path if one not in running)})
    alone = bool(running) and not (rest.path or rest.glob or rest.area)
    chosen = Chosen() if alone else await choose(host, rest, hash_at_most=params.max_size)
    wrong = next((one for one in chosen.files if one.info.kind is not Kind.FILE), None)
    if wrong is not None:
        raise Unsupported(
            f"{wrong.path} is no regular file; nothing was touched",
            got=wrong.info.kind.words,
            expected="a file",
            hint=_INSTEAD.get(wrong.info.kind, "It holds no content; delete-file removes it."),
        )
    # Of a file that stays, one copy is enough.
    named = targets_of(host.task, chosen, once=params.keep_original)
    return chosen, [*named, *(_nameless(host.task, len(named) + n, one) for n, one in enumerate(running))]


async def _deleted_but_running(host: Host, params: Quarantine) -> tuple[EndpointPath, ...]:
    """The paths that lead to nothing but a running process: malware deletes itself to be found by nobody."""
    if params.hashes:
        return ()
    of_process = [one for one in params.path if _OF_PROCESS.fullmatch(one)]
    gone = [one for one in params.path if one not in of_process and await host.files.look(one) is None]
    programs = {one.executable for one in await host.processes.list()} if gone else set()
    return (*dict.fromkeys([*of_process, *(one for one in gone if f"{one}{DELETED}" in programs)]),)


def _nameless(task: str, n: int, path: EndpointPath) -> Target:
    return Target(id=item_id(task, n), path=path, kind=Kind.FILE, size=Size(0))


async def _plan(host: Host, params: Quarantine) -> Plan:
    """Which files would be taken, who holds them, and what would be refused."""
    chosen, targets = await _chosen(host, params)
    infos = {one.path: one.info for one in chosen.files}
    held = await holders_of(host, _places(targets))
    refused = [*await protected(host, targets), *too_large(targets, params.max_size)]
    missing = await no_room(host, targets)
    what = "Copy into the vault" if params.keep_original else "Quarantine"
    steps = [
        *(Step(what=what, target=f"{one.path} ({_about(infos.get(one.path))}{_names(one)})"[:4000]) for one in targets),
        *(_step_of(one, params) for one in held),
    ]
    warnings = [
        *(f"Will be refused: {one.path}: {one.why}"[:4000] for one in refused),
        *(f"Will be refused: the vault has no room: {missing}" for _ in [1] if missing),
        *(f"{one.files} left out: {one.why}" for one in skip_counts(chosen)),
    ]
    return Plan(changes=not refused and not missing, steps=tuple(steps[:10_000]), warnings=tuple(warnings[:100]))


def _about(info: FileInfo | None) -> str:
    return "deleted, but still running" if info is None else described(info)


def _names(target: Target) -> str:
    others = target.links - 1
    return "" if others < 1 else ", 1 other name" if others == 1 else f", {others} other names"


def _step_of(holder: Holder, params: Quarantine) -> Step:
    ends = params.end_processes and holder.how is Held.RUNS
    return Step(what="End" if ends else "Leave running", target=f"{holder.process.pid} {holder.name}, {holder.how} it")


async def _verify(host: Host, _params: Quarantine, result: Quarantined | None) -> Check:
    """Is every item in the vault, and its content not at its path any more? After a crash: was any taken?"""
    if result is None:
        begun = _recorded(host)
        items = await found_of(host, (one.id for one in begun.targets)) if begun else []
        return Check.of(bool(items), f"{len(items)} files are in the vault")
    if result.not_taken:
        return Check.of(False, f"{result.taken} were taken, not {named(result.not_taken)}")
    mine = await host.vault.of_order(host.order)
    back = [str(one.path) for one in mine if one.why is Why.QUARANTINE and await still_there(host, one)]
    if back:
        return Check.of(False, f"the content is at its place again: {', '.join(back[:10])}")
    return Check.of(len(mine) >= result.taken, f"{len(mine)} files are in the vault, {result.taken} were taken")


def _recorded(host: Host) -> _Begun | None:
    recorded = host.journal.recorded()
    return None if recorded is None else _Begun.model_validate(recorded)


def _restore_again(params: Quarantine, result: Quarantined) -> Restore | None:
    # Of a copy the original is in its place.
    return Restore(order=result.order) if result.taken and not params.keep_original else None


@action(
    "quarantine",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    verify=_verify,
    undo=Undo("restore", _restore_again),
    openc2=Pair("contain", "file"),
    examples=(
        "web-01 --path /tmp/dropper --end-processes --wait",
        "web-01 --glob '/home/*/.cache/**/*.sh' --max-files 20 --dry-run",
        f"--label env=prod --sha256 {'ab' * 32} --area /tmp --area /home --reason 'known dropper'",
    ),
)
async def quarantine(host: Host, params: Quarantine) -> Quarantined:
    """Take files out of the way, encrypted, so that they can be brought back as they were.

    All are checked before the first is touched. An encrypted copy, with owner, mode, times, attributes and every name,
    is on the disk before the original goes. If some cannot be taken, the order fails and says which: those are as they
    were, and `restore --order` brings back the others. Once the first is taken, a cancel comes too late.
    """
    begun = _recorded(host) or await _begin(host, params)
    taken = await take_all(host, begun.targets, _way(host, params))
    if taken.failed and not taken.items:
        raise none_done(taken.failed)
    places = {one.info.id: one.path for one in taken.items}
    known = tuple(dict.fromkeys([*begun.holders, *await meant(host, begun.holders, places)]))
    spared = await end_runners(host, known, places) if params.end_processes else {}
    return Quarantined(
        order=host.order,
        taken=len(taken.items),
        size=Size(sum(one.info.size for one in taken.items)),
        items=told([_row(one) for one in taken.items]),
        not_taken=told(lefts_of(taken.failed)),
        ended=told(await ended_of(host, known, places)),
        still_held=told(await holding_on(host, known, places, spared)),
        skipped=begun.skipped,
    )


async def _begin(host: Host, params: Quarantine) -> _Begun:
    """Choose all, check all, write down all."""
    chosen, targets = await _chosen(host, params)
    refuse_protected(await protected(host, targets), len(targets))
    refuse_too_large(too_large(targets, params.max_size), len(targets), params.max_size)
    await refuse_no_room(host, targets)
    holders = await holders_of(host, _places(targets))
    begun = _Begun(targets=tuple(targets), skipped=skip_counts(chosen), holders=holders)
    await host.journal.record(dumped(begun))
    return begun


def _way(host: Host, params: Quarantine) -> Way:
    return Way(
        why=Why.QUARANTINE,
        most=params.max_size,
        with_md5=bool(params.md5),
        keep_original=params.keep_original,
        lasts=(host.settings.vault or VaultSettings()).keep,
    )


def _places(targets: Sequence[Target]) -> Places:
    return {one.file: one.path for one in targets if one.file is not None}


def _row(item: Item) -> QuarantinedFile:
    return QuarantinedFile(
        id=item.id,
        path=item.path,
        size=item.info.size,
        sha256=item.sha256,
        others=len(item.others),
        names_left=item.names_left,
    )


# --- restore ---------------------------------------------------------------------------------------------------------


def _wish(params: Restore) -> Wish:
    return Wish(
        items=params.items,
        order=params.order,
        to=params.to,
        on_conflict=OnConflict.RENAME if params.rename else OnConflict.REFUSE,
        replace=params.replace,
        fallback=params.fallback,
    )


async def _plan_restore(host: Host, params: Restore) -> Plan:
    """Where each would go, and what stands in the way."""
    intent, errors = await restore_intent(host, _wish(params))
    steps = [step for one in intent.entries for step in _steps_back(one)]
    warnings = [f"Will be refused: {error}"[:4000] for error in errors]
    return Plan(changes=not errors, steps=tuple(steps[:10_000]), warnings=tuple(warnings[:100]))


def _steps_back(entry: Entry) -> Iterator[Step]:
    if entry.replaces is not None:
        yield Step(what="Put into the vault", target=entry.target)
    beside = ", beside what is there" if entry.taken and entry.kind is not Kind.FOLDER else ""
    yield Step(what=f"Restore {entry.id}", target=f"{entry.target} (a {entry.kind}, {entry.size} bytes){beside}"[:4000])


async def _verify_restore(host: Host, params: Restore, result: Restored | None) -> Check:
    """Is each where it is said to be? After a crash: was any put back?"""
    if result is None:
        recorded = host.journal.recorded()
        intent = None if recorded is None else Intent.model_validate(recorded)
        if intent is None or intent.done is not None:
            return Check.of(intent is not None, "nothing was begun" if intent is None else "all were put back")
        seen = await seen_back(host, intent.entries)
        return Check.of(seen > 0, f"{seen} of {len(intent.entries)} are at their places")
    if result.not_restored:
        return Check.of(False, f"{result.count} are back, not {named(result.not_restored)}")
    missing = [str(one.path) for one in result.restored if await host.files.look(one.path) is None]
    if missing:
        return Check.of(False, f"not there: {', '.join(missing[:10])}")
    left = [] if params.keep_item else await found_of(host, (one.id for one in result.restored))
    return Check.of(not left, f"{result.count} are back, {len(left)} still in the vault")


def _quarantine_again(_params: Restore, result: Restored) -> Quarantine | None:
    """The files: folders, links and the like are not quarantined."""
    files = [one for one in result.restored if one.kind is Kind.FILE]
    if not files or len(files) > MAX_ITEMS or len(result.restored) < result.count:
        return None
    return Quarantine(
        path=tuple(one.path for one in files),
        max_files=max(100, len(files)),
        max_size=max(LARGEST, *(one.size for one in files)),
    )


@action(
    "restore",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan_restore,
    verify=_verify_restore,
    undo=Undo("quarantine", _quarantine_again),
    openc2=Pair("restore", "file"),
    examples=(
        "web-01 --items qrt_0123456789abcdef --wait",
        "--label env=prod --order ord_01 --rename --reason 'false alarm'",
        "web-01 --items qrt_0123456789abcdef --to /opt/incident/sample --keep-item --dry-run",
    ),
)
async def restore(host: Host, params: Restore) -> Restored:
    """Bring files from the vault back as they were, to their place or another one.

    Where the file was something else is now: that is refused, unless the order says to put the file beside it or to
    take the other one away, which then is in the vault. Each is verified before its item leaves the vault. Everything
    is checked before the first is touched. The time of a folder's last change is that of the restore. To undo it
    quarantines the files, and leaves folders and links.
    """
    wish, recorded = _wish(params), host.journal.recorded()
    if recorded is None:
        intent, errors = await restore_intent(host, wish)
        raise_first(errors, len(errors) + len(intent.entries))
        await host.journal.record(dumped(intent))
    else:
        intent = Intent.model_validate(recorded)
    if intent.done is None:
        lasts = (host.settings.vault or VaultSettings()).keep_deleted
        intent = await put_all_back(host, wish, intent, replaced_for=lasts)
        # From now on the items may go: what is back is known, and what was meant to be is needed no more.
        await host.journal.record(dumped(intent.model_copy(update={"entries": ()})))
    for one in () if params.keep_item else intent.done or ():
        await host.vault.remove(one.id)
    return restored_of(intent)
