"""What is done about malware that was found: its files go into the vault, the processes that run it are ended.

All of it is written down before the first thing is touched, so that a run after a crash goes on with it instead of
looking again, and `restore` brings the files back.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from stanch.core.errors import StanchError
from stanch.core.files import Digests, FileId, HashKind, Kind
from stanch.core.holding import DELETED, Ended, Holders, Places, end_all, end_runners, ended_of, holders_of
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.processes import Held, ProcessId
from stanch.core.scan_report import MAX_OBJECTS
from stanch.core.scanning import Count, Object
from stanch.core.settings import VaultSettings
from stanch.core.taking import Left, Lefts, Target, Way, lefts_of, protected, reason, take_all, told
from stanch.core.types import EndpointPath, Pid, Sha256, Size, Text, VaultId
from stanch.core.vault import Why, item_id

MAX_CLEANED = MAX_OBJECTS
"""Files and processes that one scan does something about."""


class Removed(Model):
    """A file that is in the vault now."""

    id: VaultId
    """Its item in the vault."""

    path: EndpointPath
    """Where it was."""

    sha256: Sha256 | None
    """Of its content."""


class LeftRunning(Model):
    """A process in which malware was found, or that runs it, and that goes on."""

    pid: Pid
    """Process id."""

    why: Text
    """Why it was not ended."""


class Cleaned(LooseModel):
    """What is to be done, as it is written down before; and after a crash, what was."""

    targets: Annotated[tuple[Target, ...], Field(max_length=MAX_CLEANED)] = ()
    """Files that go into the vault."""
    processes: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_CLEANED)] = ()
    """Processes that are ended: malware was found in their memory, or in the program that they run."""
    holders: Holders = ()
    """Who runs the files, before they go."""
    refused: Lefts = ()
    """Files that must not be taken away, or are not what was found any more."""
    programs: Annotated[tuple[Target, ...], Field(max_length=MAX_CLEANED)] = ()
    """Files that stay, and whose processes are ended."""
    spared: Annotated[tuple[LeftRunning, ...], Field(max_length=MAX_CLEANED)] = ()
    """Processes that go on, as the machine needs what they run."""
    beyond: Count = 0
    """Finds about which nothing is done, since they are too many."""

    def doomed(self) -> Iterator[ProcessId]:
        """All that are to be ended."""
        ran = {one.file for one in (*self.targets, *self.programs)}
        yield from self.processes
        yield from (one.process for one in self.holders if one.how is Held.RUNS and one.file in ran)


async def meant_by(host: Host, objects: Sequence[Object], *, quarantine: bool, end_processes: bool) -> Cleaned:
    """What should be done about that in which something was found; nothing is changed."""
    if not (quarantine or end_processes):
        return Cleaned()
    found, changed = await _targets(host, objects)
    refused = await protected(host, found)
    needed = {one.path: one.why for one in refused}
    kept = [one for one in found if one.path not in needed]
    return Cleaned(
        targets=tuple(kept) if quarantine else (),
        processes=_processes(objects) if end_processes else (),
        holders=await holders_of(host, _places(kept)),
        refused=(*refused, *changed) if quarantine else (),
        programs=() if quarantine else tuple([one for one in kept if await _is_what_was_found(host, one)]),
        spared=await _spared(host, found, needed) if end_processes else (),
    )


async def _targets(host: Host, objects: Sequence[Object]) -> tuple[list[Target], list[Left]]:
    """Each file once, as it is there now, and those that are not what was found any more.

    What else has changed since it was scanned is refused when it is taken: its hash tells.
    """
    found, changed = dict[FileId | str, Target](), dict[str, Left]()
    for one in objects:
        if one.document != "FileItem" or one.path is None:
            continue
        target = await _target(host, one, one.path, item_id(host.task, len(found)))
        if isinstance(target, Left):
            changed[target.path] = target
        else:
            found.setdefault(target.file or target.path, target)
    paths = {one.path for one in found.values()}
    return [*found.values()], [left for path, left in changed.items() if path not in paths]


async def _target(host: Host, one: Object, path: EndpointPath, id_: VaultId) -> Target | Left:
    if one.sha256 is None:  # another file could have its place by now
        return Left(path=path, why="the scan could not take its hash, by which it would be known again")
    expected = Digests(sha256=one.sha256)
    try:
        info = await host.files.look(path)
    except StanchError as error:
        return Left(path=path, why=reason(error))
    if info is None and one.pid and path.endswith(DELETED):
        return await _deleted(host, EndpointPath(f"/proc/{one.pid}/exe"), id_, expected)
    if info is None:
        return Left(path=path, why="nothing is there any more")
    if info.kind is not Kind.FILE:
        return Left(path=path, why=f"there is no regular file any more, but {info.kind.words}")
    return Target(
        id=id_,
        path=path,
        kind=info.kind,
        size=info.size,
        file=info.id,
        links=info.links,
        stored=min(info.size, info.allocated),
        expected=expected,
    )


async def _deleted(host: Host, path: EndpointPath, id_: VaultId, expected: Digests) -> Target | Left:
    """A program that has deleted itself and runs: the vault takes it from the process. The hash tells if it is it."""
    try:
        async with host.files.open(path) as file:
            return Target(id=id_, path=path, kind=Kind.FILE, size=file.info.size, file=file.info.id, expected=expected)
    except StanchError as error:
        return Left(path=path, why=reason(error))


async def _is_what_was_found(host: Host, target: Target) -> bool:
    """A file that is only named is read again: who has put another one there must not have its processes ended."""
    try:
        async with host.files.open(target.path) as file:
            is_it = file.info.id == target.file
            return is_it and (await file.digests((HashKind.SHA256,))) == target.expected
    except StanchError:
        return False


async def _spared(host: Host, found: Sequence[Target], needed: Mapping[EndpointPath, str]) -> tuple[LeftRunning, ...]:
    """Those who run what the machine needs."""
    places = _places([one for one in found if one.path in needed])
    runs = [one for one in await holders_of(host, places) if one.how is Held.RUNS]
    return tuple(LeftRunning(pid=one.process.pid, why=needed[places[one.file]]) for one in runs)[:MAX_CLEANED]


def _processes(objects: Sequence[Object]) -> tuple[ProcessId, ...]:
    """In whose memory it was found, or who run a file that has no path any more."""
    known = (
        ProcessId(pid=one.pid, started=one.started)
        for one in objects
        if one.document in {"ProcessItem", "FileItem"} and one.pid and one.started is not None
    )
    return tuple(dict.fromkeys(known))[:MAX_CLEANED]


def _places(targets: Sequence[Target]) -> Places:
    return {one.file: one.path for one in targets if one.file is not None}


class Outcome(LooseModel):
    """What was done."""

    removed: tuple[Removed, ...] = ()
    size: Size = Size(0)
    not_removed: Lefts = ()
    ended: tuple[Ended, ...] = ()
    ended_pids: tuple[int, ...] = ()
    left_running: tuple[LeftRunning, ...] = ()


async def clean(host: Host, cleaned: Cleaned, *, end_processes: bool) -> Outcome:
    """Do what was written down; what is done already is left."""
    lasts = (host.settings.vault or VaultSettings()).keep
    taken = await take_all(host, cleaned.targets, Way(why=Why.QUARANTINE, lasts=lasts))
    places = {**{one.info.id: one.path for one in taken.items}, **_places(cleaned.programs)}
    spared: Mapping[ProcessId, str] = {}
    if end_processes:
        spared = {**await end_runners(host, cleaned.holders, places), **await end_all(host, cleaned.processes)}
    gone = [one.pid for one in cleaned.processes if one not in spared and not await host.processes.alive(one)]
    lefts: list[Left] = [*cleaned.refused, *lefts_of(taken.failed)]
    kept = _kept(cleaned, {one.file: reason(error) for one, error in taken.failed if one.file}) if end_processes else []
    left = [LeftRunning(pid=one.pid, why=why) for one, why in spared.items()]
    return Outcome(
        removed=told([Removed(id=one.id, path=one.path, sha256=one.sha256) for one in taken.items]),
        size=Size(sum(one.info.size for one in taken.items)),
        not_removed=told(lefts),
        ended=told(await ended_of(host, cleaned.holders, places)) if end_processes else (),
        ended_pids=tuple(gone),
        left_running=told([*left, *cleaned.spared, *kept]),
    )


def _kept(cleaned: Cleaned, failed: Mapping[FileId, str]) -> list[LeftRunning]:
    """Who runs a file that could not be taken: it may be another one by now, so they go on."""
    runs = [one for one in cleaned.holders if one.how is Held.RUNS and one.file in failed]
    return [
        LeftRunning(pid=one.process.pid, why=f"its file was not removed: {failed[one.file]}"[:4000]) for one in runs
    ]
