"""Put a file on an endpoint; what it replaces goes into the vault."""

import asyncio
from typing import Annotated

from pydantic import Field

from stanch.actions.delete_file import DeleteFile
from stanch.actions.quarantine import Restore
from stanch.core.action import AfterCrash, Check, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import ActionFailed, Conflict, NotVerified, Protected, StanchError, TargetGone, Unsupported
from stanch.core.files import FileId, FileInfo, HashKind, Kind, Placing
from stanch.core.host import Host
from stanch.core.model import LooseModel
from stanch.core.selection import described
from stanch.core.settings import VaultSettings
from stanch.core.taking import dumped
from stanch.core.types import EndpointPath, Id, Mode, Sha256, Upload, VaultId, hours, show_mode
from stanch.core.vault import Item, Returning, Taking, Why, item_id

Account = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*\$?$")]


class PutFile(Params):
    """What, and where to."""

    content: Upload
    """The file to put there."""

    path: EndpointPath
    """The new file, by its whole path."""

    mode: Mode = Mode(0o600)
    """Its permission bits."""

    owner: Account | None = None
    """Its owner, by name or number; null for root."""

    owner_group: Account | None = None
    """Its group, by name or number; null for that of the owner."""

    replace: bool = False
    """If another file is there, put that into the vault first."""

    make_folders: bool = False
    """Make the folders above it that are missing, for root only."""


class Put(Result):
    """What is there now."""

    order: Id
    """Brings back what was replaced: `restore --order`."""

    changed: bool
    """False if this very file, of this owner and mode, was there already."""

    path: EndpointPath
    """Where it is."""

    sha256: Sha256
    """Of its content, as it was read back."""

    replaced: VaultId | None = None
    """The item that what was there before is now; null if nothing was."""

    others: Annotated[int, Field(ge=0, le=2**32)] = 0
    """Its other names (hard links), which are in the vault with it."""

    info: FileInfo
    """Size, owner, mode and times."""


class _Begun(LooseModel):
    """What is written down before anything is changed."""

    token: str
    """Recognises the file that an earlier run put."""
    replaces: VaultId
    """The item that what is there becomes, if anything is."""
    there: FileId | None
    """What was there."""


# --- before and after ------------------------------------------------------------------------------------------------


async def _there(host: Host, params: PutFile) -> FileInfo | None:
    """What is in its place and may be replaced; None if nothing is. The error that refuses it otherwise."""
    info = await host.files.look(params.path)
    if info is None:
        await _expect_folder(host, params)
        return None
    if await _is_it(host, params, info):
        return info
    if info.kind is not Kind.FILE:
        hint = "Name the file that it leads to." if info.kind is Kind.LINK else "Name a file that is not there yet."
        raise Unsupported(f"{params.path} is no regular file", got=info.kind.words, expected="a file", hint=hint)
    if not params.replace:
        raise Conflict(
            f"Another file is at {params.path} already",
            got=described(info),
            hint="Order it with --replace: what is there then goes into the vault.",
        )
    why = await host.files.why_protected(params.path)
    if why is not None:
        raise Protected(f"{params.path} must not be replaced", got=why)
    return info


async def _expect_folder(host: Host, params: PutFile) -> None:
    folder = EndpointPath(params.path.rpartition("/")[0] or "/")
    if not params.make_folders and folder != "/" and await host.files.look(folder) is None:
        raise TargetGone("Its folder is not there", got=folder, hint="Order it with --make-folders.")


async def _is_it(host: Host, params: PutFile, info: FileInfo) -> bool:
    """Is exactly what is ordered there already? Owners are compared as far as they are named."""
    if info.kind is not Kind.FILE or (info.size, info.mode) != (params.content.size, params.mode):
        return False
    owner = (params.owner or "root", params.owner_group or info.group)
    return owner == (info.user, info.group) and await _sha256_at(host, params) == params.content.sha256


async def _sha256_at(host: Host, params: PutFile) -> str | None:
    try:
        async with host.files.open(params.path) as file:
            return (await file.digests((HashKind.SHA256,))).sha256
    except StanchError:
        return None


async def _plan(host: Host, params: PutFile) -> Plan:
    """What would be put there, and what would be replaced."""
    there = await _there(host, params)
    if there is not None and await _is_it(host, params, there):
        return Plan(changes=False, warnings=("This very file is there already.",))
    owner = ":".join(filter(None, [params.owner or "root", params.owner_group]))
    put = Step(
        what=f"Put {params.content.name or 'a file'} ({params.content.size} bytes, SHA-256 {params.content.sha256})",
        target=f"{params.path} ({owner}, mode {show_mode(params.mode)})"[:4000],
    )
    if there is None:
        return Plan(changes=True, steps=(put,))
    away = Step(what="Put into the vault", target=f"{params.path} ({described(there)})"[:4000])
    names = (f"What is there has {there.links} names: all of them go into the vault.",) if there.links > 1 else ()
    return Plan(changes=True, steps=(away, put), warnings=names)


async def _verify(host: Host, params: PutFile, result: Put | None) -> Check:
    """Is the content, with its mode and owner, at its place?"""
    info = await host.files.look(params.path)
    if info is None or info.kind is not Kind.FILE:
        return Check.of(False, f"{params.path} is no file")
    sha256 = await _sha256_at(host, params)
    if sha256 != params.content.sha256:
        return Check.of(False, f"SHA-256 is {sha256}")
    expected = params.mode if result is None else (params.mode, result.info.user, result.info.group)
    seen = info.mode if result is None else (info.mode, info.user, info.group)
    return Check.of(seen == expected, f"{described(info)}, SHA-256 {sha256}")


def _bring_back(_params: PutFile, result: Put) -> Restore | None:
    return Restore(order=result.order, replace=True) if result.replaced is not None else None


def _delete(_params: PutFile, result: Put) -> DeleteFile | None:
    """By its hash, too: what was changed since then stays."""
    return DeleteFile(path=(result.path,), sha256=(result.sha256,)) if result.changed else None


# --- the deed --------------------------------------------------------------------------------------------------------


@action(
    "put_file",
    version=1,
    risk=Risk.DESTRUCTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    time_limit=hours(24),
    plan=_plan,
    verify=_verify,
    undo=Undo("restore", _bring_back, otherwise=Undo("delete_file", _delete)),
    examples=(
        "web-01 --content ./triage.sh --path /opt/ir/triage.sh --mode 0755 --make-folders --wait",
        "web-01 --content ./sshd_config --path /etc/ssh/sshd_config --replace --dry-run --wait",
    ),
)
async def put_file(host: Host, params: PutFile) -> Put:
    """Put a file on the endpoint, with its owner and mode.

    The content is uploaded to the server first; the endpoint compares its SHA-256 with the one in the signed order
    before the file gets its name, whole and on the disk. A file that is there already goes into the vault, if so
    ordered. Folders that were made stay when it is undone.
    """
    recorded = host.journal.recorded()
    begun = None if recorded is None else _Begun.model_validate(recorded)
    there = None
    if begun is None:
        there = await _there(host, params)
        if there is not None and await _is_it(host, params, there):
            return Put(order=host.order, changed=False, path=params.path, sha256=params.content.sha256, info=there)
        begun = _Begun(token=host.task, replaces=item_id(host.task, 0), there=there and there.id)
        await host.journal.record(dumped(begun))
    try:
        replaced = await _take_away(host, params, begun)
        await _put(host, params, begun)
    except BaseException:
        # Failed, or stopped on request: what was there comes back.
        await asyncio.shield(_bring_it_back(host, begun))
        raise
    return await _seen(host, params, replaced)


async def _take_away(host: Host, params: PutFile, begun: _Begun) -> Item | None:
    """What was there, in the vault; None if nothing was."""
    if begun.there is None:
        return None
    kept = await host.vault.find(begun.replaces)
    is_back = kept is not None and await _sha256_at(host, params) == kept.sha256 != params.content.sha256
    if kept is not None and not is_back:
        return kept
    if kept is not None:
        # Killed after it was put back and before it left the vault: it is in both.
        await host.vault.remove(kept.id)
    lasts = (host.settings.vault or VaultSettings()).keep_deleted
    try:
        return await host.vault.take(Taking(id=begun.replaces, path=params.path, why=Why.REPLACED, lasts=lasts))
    except TargetGone:
        return None


async def _put(host: Host, params: PutFile, begun: _Begun) -> None:
    there = await host.files.look(params.path)
    if there is not None and await _is_it(host, params, there):
        # An earlier run got so far: it must not fail now because the server has the upload no more.
        return
    placing = Placing(
        path=params.path,
        mode=params.mode,
        user=params.owner,
        group=params.owner_group,
        sha256=params.content.sha256,
        make_folders=params.make_folders,
        token=begun.token,
    )
    async with host.uploads.open(params.content) as content:
        await host.files.put(placing, content)


async def _bring_it_back(host: Host, begun: _Begun) -> None:
    """What was there is there again; ActionFailed, which says where it is, if it cannot be."""
    replaced = None if begun.there is None else await host.vault.find(begun.replaces)
    if replaced is None:
        return
    try:
        await host.vault.put_back(Returning(id=replaced.id))
        await host.vault.remove(replaced.id)
    except StanchError as error:
        raise ActionFailed(
            f"It failed, and what was at {replaced.path} could not be put back: it is in the vault as {replaced.id}",
            got=error.message,
            hint=f"Order `restore --items {replaced.id}`.",
        ) from error


async def _seen(host: Host, params: PutFile, replaced: Item | None) -> Put:
    """What is there, read back; NotVerified if it is something else."""
    info, sha256 = await host.files.look(params.path), await _sha256_at(host, params)
    if info is None or sha256 != params.content.sha256:
        raise NotVerified(f"It was put to {params.path}, but is not there", got=sha256, expected=params.content.sha256)
    return Put(
        order=host.order,
        changed=True,
        path=params.path,
        sha256=sha256,
        replaced=replaced and replaced.id,
        others=len(replaced.others) if replaced else 0,
        info=info,
    )
