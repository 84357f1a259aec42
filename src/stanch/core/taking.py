"""Many files into the vault, one after the other: what `quarantine` and `delete_file` share.

All are checked before the first is touched, and what is to be taken is written down. Each is taken under an id that
follows from the task, so that a run after a crash goes on where the first one stopped.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import Field

from stanch.core.errors import Protected, StanchError, TargetGone, TooLarge, VaultFull
from stanch.core.files import Digests, FileId, Found, HashKind, Kind
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.selection import Chosen, LeftOut
from stanch.core.types import EndpointPath, Size, Text, VaultId
from stanch.core.vault import Item, Taking, Why, item_id

MAX_ROWS = 10_000

MAX_TOLD_BYTES = 786_432
"""Bytes that the rows of one kind may take in a result. What more there is, is counted."""

_MOST_NAMED = 10
"""Files that one error names."""

M = TypeVar("M", bound=Model)


class Left(Model):
    """A file that was left as it is."""

    path: EndpointPath
    """Which."""

    why: Text
    """Why."""


class SkipCount(Model):
    """How many were left out for one reason when the files were looked for."""

    why: Text
    """The reason."""

    files: Annotated[int, Field(ge=1, le=2**53)]
    """How many."""


Lefts = Annotated[tuple[Left, ...], Field(max_length=MAX_ROWS)]
SkipCounts = Annotated[tuple[SkipCount, ...], Field(max_length=100)]


class Target(LooseModel):
    """A file that is to be taken, as it is written down before that."""

    id: VaultId
    path: EndpointPath
    kind: Kind
    size: Size
    file: FileId | None = None
    """None for a program that has no name any more."""
    links: int = 1
    stored: int = 0
    """Bytes that it takes on the disk."""
    expected: Digests | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How all of them are taken."""

    why: Why
    kinds: Collection[Kind] = (Kind.FILE,)
    most: int | None = None
    with_md5: bool = False
    keep_original: bool = False
    lasts: timedelta | None = None


@dataclass(slots=True)
class Taken:
    """What became of them."""

    items: list[Item] = field(default_factory=list)
    failed: list[tuple[Target, StanchError]] = field(default_factory=list)


def targets_of(task: str, chosen: Chosen, *, once: bool = False) -> list[Target]:
    """What was chosen; each file `once`, or under each of its names that were."""
    first: dict[FileId, Found] = {}
    for one in chosen.files:
        first.setdefault(one.info.id, one)
    found = [*first.values()] if once else chosen.files
    return [_target(task, n, one, chosen.digests.get(one.path)) for n, one in enumerate(found)]


def _target(task: str, n: int, found: Found, expected: Digests | None) -> Target:
    info = found.info
    return Target(
        id=item_id(task, n),
        path=found.path,
        kind=info.kind,
        size=info.size,
        file=info.id,
        links=info.links,
        stored=min(info.size, info.allocated) if info.kind is Kind.FILE else 0,
        expected=expected,
    )


def skip_counts(chosen: LeftOut) -> SkipCounts:
    """What was left out, by reason, the most frequent first."""
    return tuple(SkipCount(why=why, files=n) for why, n in chosen.reasons.most_common(100))


# --- before the first is touched -------------------------------------------------------------------------------------


async def protected(host: Host, targets: Sequence[Target]) -> list[Left]:
    """Those that must not be taken away, and why."""
    found = [(one.path, await host.files.why_protected(one.path)) for one in targets]
    return [Left(path=path, why=why) for path, why in found if why is not None]


def too_large(targets: Sequence[Target], most: int | None) -> list[Left]:
    """Those that are larger than allowed."""
    return [Left(path=one.path, why=f"{one.size} bytes") for one in targets if most is not None and one.size > most]


def room_for(targets: Sequence[Target]) -> int:
    """Bytes that all of them need in the vault, as far as it can be told before."""
    return sum({one.file: one.stored for one in targets}.values())


async def no_room(host: Host, targets: Sequence[Target]) -> str | None:
    """What is missing in the vault for all of them; None if they fit."""
    usage, need = await host.vault.usage(), room_for(targets)
    room = max(0, min(usage.limit - usage.size, usage.free))
    return f"{need} bytes, room for {room}" if need > room else None


def refuse_protected(lefts: Sequence[Left], total: int) -> None:
    """Protected if there are any: nothing was touched."""
    if lefts:
        raise Protected(f"{len(lefts)} of {total} must not be taken away; nothing was touched", got=named(lefts))


def refuse_too_large(lefts: Sequence[Left], total: int, most: int | None) -> None:
    """TooLarge if there are any: nothing was touched."""
    if lefts:
        raise TooLarge(
            f"{len(lefts)} of {total} are larger than allowed; nothing was touched",
            got=named(lefts),
            expected=f"at most {most} bytes each",
            hint="Order it again with a larger --max-size.",
        )


async def refuse_no_room(host: Host, targets: Sequence[Target], *, hint: str | None = None) -> None:
    """VaultFull if they do not all fit: nothing was touched."""
    try:
        await host.vault.expect_room(room_for(targets), f"all of {len(targets)}; nothing was touched")
    except VaultFull as error:
        raise VaultFull(error.message, got=error.got, expected=error.expected, hint=hint or error.hint) from None


def named(lefts: Sequence[Left]) -> str:
    """The first of them, on one line."""
    more = f" and {len(lefts) - _MOST_NAMED} more" if len(lefts) > _MOST_NAMED else ""
    return "; ".join(f"{one.path[-200:]}: {one.why[:200]}" for one in lefts[:_MOST_NAMED]) + more


# --- taking ----------------------------------------------------------------------------------------------------------


async def take_all(host: Host, targets: Sequence[Target], way: Way) -> Taken:
    """Take each; one that cannot be taken does not keep the others."""
    taken, files = Taken(), set[FileId]()
    for n, one in enumerate(targets):
        host.progress(n, len(targets), "files", str(one.path)[-200:])
        try:
            taken.items.append(await host.vault.take(_taking(one, way)))
            files |= {one.file} if one.file else set()
        except StanchError as error:
            # Another name of a file that was taken has gone with it.
            if not (isinstance(error, TargetGone) and one.file in files):
                taken.failed.append((one, error))
    return taken


def _taking(target: Target, way: Way) -> Taking:
    return Taking(
        id=target.id,
        path=target.path,
        why=way.why,
        kinds=way.kinds,
        expected=target.expected,
        most=way.most,
        with_md5=way.with_md5,
        keep_original=way.keep_original,
        lasts=way.lasts,
    )


def none_done(failed: Sequence[tuple[Target, StanchError]]) -> StanchError:
    """The one error of what failed altogether."""
    return none_worked([(one.path, error) for one, error in failed])


def none_worked(failed: Sequence[tuple[EndpointPath, StanchError]]) -> StanchError:
    """The same, of paths."""
    first = failed[0][1]
    if len(failed) == 1:
        return first
    return type(first)(f"None of {len(failed)} worked", got=named(lefts(failed)), hint=first.hint)


def lefts_of(failed: Iterable[tuple[Target, StanchError]]) -> Lefts:
    """What failed, and why, as rows."""
    return lefts((one.path, error) for one, error in failed)


def lefts(failed: Iterable[tuple[EndpointPath, StanchError]]) -> Lefts:
    """The same, of paths."""
    return tuple(Left(path=path, why=reason(error)) for path, error in failed)


def reason(error: StanchError) -> str:
    """An error in a row of a table."""
    return error.message + (f" (got {error.got})" if error.got else "")


def told(rows: Sequence[M], *, most: int = MAX_TOLD_BYTES) -> tuple[M, ...]:
    """As many of the rows, from the first, as fit into a result: `most` bytes of them."""
    kept, left = list[M](), most
    for one in rows[:MAX_ROWS]:
        left -= len(one.model_dump_json().encode())
        if left < 0:
            break
        kept.append(one)
    return tuple(kept)


async def found_of(host: Host, ids: Iterable[str]) -> list[Item]:
    """Those of these items that are in the vault, complete."""
    return [one for id_ in ids if (one := await host.vault.find(id_)) is not None]


async def still_there(host: Host, item: Item) -> bool:
    """Is the content of an item (again) readable where it was taken?"""
    info = await host.files.look(item.path)
    if info is None or item.original_kept or info.kind is not item.info.kind:
        return False
    if info.kind is not Kind.FILE:
        return info.kind is not Kind.FOLDER and info.id == item.info.id
    return info.size == item.info.size and await _sha256_at(host, item.path) == item.sha256


async def _sha256_at(host: Host, path: EndpointPath) -> str | None:
    try:
        async with host.files.open(path) as file:
            return (await file.digests((HashKind.SHA256,))).sha256
    except StanchError:
        return None


def dumped(model: Model) -> dict[str, Any]:
    """As it is written down."""
    return model.model_dump(mode="json")
