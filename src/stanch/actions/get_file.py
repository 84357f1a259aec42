"""Fetch files from an endpoint, as evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Pair, Plan, Result, Risk, Step, action
from stanch.core.errors import ActionFailed, StanchError, TooLarge
from stanch.core.files import Extent, FileId, FileInfo, FileType, OpenFile
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.selection import Selection, choose
from stanch.core.taking import MAX_ROWS, Left, Lefts, SkipCounts, lefts, named, none_worked, skip_counts, told
from stanch.core.types import EndpointPath, EvidenceRef, Size, hours

MEBIBYTE = 1_048_576

NOTHING_SENT = "nothing was sent"


class GetFile(Selection):
    """Which files; links are followed."""

    max_size: Annotated[Size, Field(ge=1, le=2**50)] = Size(100 * MEBIBYTE)
    """Refuse if one of them is larger than this, before anything is sent."""


class GotFile(Model):
    """A file, as it was."""

    path: EndpointPath
    """Where it is on the endpoint."""

    evidence: EvidenceRef
    """Where its bytes are now."""

    type: FileType
    """What it seems to be, by its first bytes."""

    info: FileInfo
    """Size, owner, mode and times on the endpoint."""

    changed: bool = False
    """It was written to while it was sent: its bytes may be of several moments."""


class GotFiles(Result):
    """What was sent."""

    count: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    """Files that were sent. One that has several names is sent once."""

    size: Size
    """Bytes of all of them, holes included."""

    files: Annotated[tuple[GotFile, ...], Field(max_length=MAX_ROWS)]
    """Each of them; of very many, as many as fit into an answer: all are evidence of the task."""

    not_sent: Lefts = ()
    """What fits and could not be sent."""

    skipped: SkipCounts = ()
    """What was left out when the files were looked for."""


@dataclass(frozen=True, slots=True)
class _FileSource:
    """An open file as a source of evidence."""

    path: EndpointPath
    file: OpenFile

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        return self.file.info.size

    async def read(self, offset: int, length: int) -> bytes:
        data = await self.file.read(offset, length)
        if len(data) != length:
            raise ActionFailed(
                "The file became shorter while it was read",
                got=f"{len(data)} bytes at {offset}",
                expected=f"{length} bytes",
                hint="Order it again: the file is being written to.",
            )
        return data

    async def extents(self) -> Sequence[Extent]:
        return await self.file.extents()


# --- which -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file that is to be sent, by one of its names."""

    path: EndpointPath
    info: FileInfo


@dataclass(slots=True)
class _Looked:
    """What was found, each file opened once and closed again."""

    skipped: SkipCounts
    wanted: dict[FileId, _Wanted] = field(default_factory=dict)
    failed: list[tuple[EndpointPath, StanchError]] = field(default_factory=list)

    def too_large(self, most: int) -> list[Left]:
        """Those that are larger than allowed."""
        return [
            Left(path=one.path, why=f"{one.info.size} bytes") for one in self.wanted.values() if one.info.size > most
        ]


async def _look(host: Host, params: GetFile) -> _Looked:
    """All that fits; the error itself if none of it can be opened."""
    chosen = await choose(host, params)
    looked = _Looked(skip_counts(chosen))
    for found in chosen.files:
        try:
            async with host.files.open(found.path) as file:
                looked.wanted.setdefault(file.info.id, _Wanted(found.path, file.info))
        except StanchError as error:
            looked.failed.append((found.path, error))
    if not looked.wanted:
        raise none_worked(looked.failed)
    return looked


def _refuse_too_large(params: GetFile, looked: _Looked) -> None:
    large = looked.too_large(params.max_size)
    if not large:
        return
    largest = max(one.info.size for one in looked.wanted.values())
    what = f"{large[0].path} is" if len(looked.wanted) == 1 else f"{len(large)} of {len(looked.wanted)} are"
    raise TooLarge(
        f"{what} larger than allowed; {NOTHING_SENT}",
        got=large[0].why if len(looked.wanted) == 1 else named(large),
        expected=f"at most {params.max_size} bytes each",
        hint=f"Order it again with --max-size {largest}.",
    )


async def _plan(host: Host, params: GetFile) -> Plan:
    """What would be sent, and what would be refused?"""
    looked = await _look(host, params)
    steps = (Step(what=f"Send {one.info.size} bytes", target=one.path[:4000]) for one in looked.wanted.values())
    large = looked.too_large(params.max_size)
    warnings = [
        *(f"Will be refused: {one.path}: {one.why}, over --max-size {params.max_size}"[:4000] for one in large),
        *(f"Cannot be sent: {one.path}: {one.why}"[:4000] for one in lefts(looked.failed)),
        *(f"{one.files} left out: {one.why}"[:4000] for one in looked.skipped),
    ]
    return Plan(changes=False, steps=tuple(steps), warnings=tuple(warnings[:100]))


# --- the deed --------------------------------------------------------------------------------------------------------


@action(
    "get_file",
    version=2,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    openc2=Pair("copy", "file"),
    examples=(
        "web-01 --path /var/log/auth.log --wait",
        "web-01 --path /tmp/dropper --max-size 1GiB",
        "web-01 --glob '/tmp/**/*.sh' --glob '/dev/shm/*' --max-files 50",
        "web-01 --area /home --md5 d41d8cd98f00b204e9800998ecf8427e",
    ),
)
async def get_file(host: Host, params: GetFile) -> GotFiles:
    """Fetch files from the endpoint and keep them as evidence.

    Each is sent in hashed parts, holes left out; a cut link or a restart goes on from the first missing part. A file
    that cannot be sent does not keep the others. `stanch evidence get` brings them from the server to you.
    """
    looked = await _look(host, params)
    _refuse_too_large(params, looked)
    got: list[GotFile] = []
    for one in looked.wanted.values():
        try:
            got.append(await _send(host, params, one))
        except StanchError as error:
            looked.failed.append((one.path, error))
    if not got:
        raise none_worked(looked.failed)
    return GotFiles(
        count=len(got),
        size=Size(min(sum(one.info.size for one in got), Size.most)),
        files=told(got),
        not_sent=told(lefts(looked.failed)),
        skipped=looked.skipped,
    )


async def _send(host: Host, params: GetFile, wanted: _Wanted) -> GotFile:
    async with host.files.open(wanted.path) as file:
        if file.info.size > params.max_size:
            raise TooLarge("It has grown beyond what is allowed", got=f"{file.info.size} bytes")
        kind = await file.type()
        evidence = await host.evidence.send(_FileSource(wanted.path, file))
        changed = await _changed(host, file)
        return GotFile(path=wanted.path, evidence=evidence, type=kind, info=file.info, changed=changed)


async def _changed(host: Host, file: OpenFile) -> bool:
    """Is there another file, or other content, at its place by now?"""
    try:
        now = await host.files.look(file.path)
    except StanchError:
        return True
    was = file.info
    return now is None or (now.id, now.size, now.modified) != (was.id, was.size, was.modified)
