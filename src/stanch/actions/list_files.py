"""List the files of an endpoint: the first ones in the answer, all of very many as evidence."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from stanch.core.action import AfterCrash, Concurrency, Params, Plan, Result, Risk, Step, action
from stanch.core.errors import StanchError
from stanch.core.evidence import Lines
from stanch.core.files import Digests, Found, HashKind, Kind, Search, Skipped
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.selection import LeftOut
from stanch.core.taking import Left, SkipCounts, skip_counts, told
from stanch.core.types import EndpointPath, EvidenceRef, Glob, Instant, Md5, Mode, Sha256, Size, Text, hours

INLINE = 1000
"""Files that are told in the answer itself."""

CHUNK_BYTES = 8 * 2**20
"""What is collected in memory before it is sent."""

MAX_CHUNKS = 1000

_MEBIBYTE = 2**20


class ListFiles(Params):
    """Where, and which."""

    folder: Annotated[tuple[EndpointPath, ...], Field(max_length=100)] = ()
    """Folders to list."""

    glob: Annotated[tuple[Glob, ...], Field(max_length=100)] = ()
    """Patterns: `*` and `?` within a name, `**` across folders."""

    depth: Annotated[int, Field(ge=1, le=4096)] | None = 1
    """How many folders deep; 1 for what is in the folder itself, null for everything below it."""

    kinds: Annotated[tuple[Kind, ...], Field(max_length=len(Kind))] = ()
    """Only these kinds; all if none is named."""

    min_size: Annotated[Size, Field(le=2**63 - 1)] = Size(0)
    """Only what has at least so many bytes."""

    max_size: Annotated[Size, Field(le=2**63 - 1)] | None = None
    """Only what has at most so many bytes."""

    modified_after: Instant | None = None
    """Only what was changed after this moment; an attacker can set this time."""

    modified_before: Instant | None = None
    """Only what was changed before this moment."""

    owner: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Only what belongs to this account."""

    hashes: Annotated[tuple[HashKind, ...], Field(max_length=len(HashKind))] = ()
    """Hashes of regular files to take, too: it takes as long as reading them."""

    hash_at_most: Annotated[Size, Field(ge=1, le=2**50)] = Size(100 * _MEBIBYTE)
    """Take no hashes of files that are larger than this."""

    max_files: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """End the list after so many."""

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if not (self.folder or self.glob):
            raise ValueError("expected --folder or --glob")
        return self


class ListedFile(Model):
    """Something that is there."""

    path: EndpointPath
    """Where."""

    kind: Kind
    """What it is."""

    size: Size
    """Bytes."""

    allocated: Size
    """Bytes that it takes on the disk."""

    mode: Mode
    """Permission bits."""

    user: Text
    """Owner."""

    group: Text
    """Group."""

    modified: Instant
    """Last change of content; anybody who owns it can set it."""

    changed: Instant | None
    """Last change of anything, as the kernel noted it."""

    links: Annotated[int, Field(ge=0, le=2**32 - 1)]
    """How many names it has."""

    sha256: Sha256 | None = None
    """SHA-256, if asked for."""

    md5: Md5 | None = None
    """MD5, if asked for."""

    sha1: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """SHA-1, if asked for."""


class Listed(Result):
    """What is there."""

    count: Annotated[int, Field(ge=0, le=1_000_000)]
    """How many were found."""

    size: Annotated[int, Field(ge=0, le=2**83)]
    """Bytes of all of them, holes included."""

    complete: bool
    """False if there is more than --max-files allows."""

    files: Annotated[tuple[ListedFile, ...], Field(max_length=INLINE)]
    """The first of them, as many as fit into an answer."""

    evidence: Annotated[tuple[EvidenceRef, ...], Field(max_length=MAX_CHUNKS)] = ()
    """All of them, if they are more: one JSON object in each line, in the order of the names of these pieces."""

    skipped: SkipCounts = ()
    """How many were left out, by reason."""

    first_skipped: Annotated[tuple[Left, ...], Field(max_length=100)] = ()
    """The first that were left out."""


# --- looking ---------------------------------------------------------------------------------------------------------


def _searches(params: ListFiles) -> list[Search]:
    kinds = params.kinds or tuple(Kind)
    more: dict[str, Any] = {"kinds": kinds, "hashes": params.hashes, "hash_at_most": params.hash_at_most}
    below = [Search(roots=(one,), depth=params.depth, **more) for one in dict.fromkeys(params.folder)]
    return below + [Search(pattern=one, **more) for one in dict.fromkeys(params.glob)]


async def _found(host: Host, params: ListFiles) -> AsyncGenerator[Found | Skipped, None]:
    """Everything that fits, once; the folders themselves are not in their own lists."""
    searches = _searches(params)
    # Only where several searches may meet; of a path no more than a number is kept.
    seen: set[int] | None = set() if len(searches) > 1 else None
    for search in searches:
        async for batch in host.files.search(search):
            for one in batch:
                is_root = one.path in search.roots and isinstance(one, Found) and one.info.kind is Kind.FOLDER
                if not is_root and _fits(params, one) and _is_new(seen, one):
                    yield one


def _fits(params: ListFiles, one: Found | Skipped) -> bool:
    if isinstance(one, Skipped):
        return True
    info = one.info
    return (
        params.min_size <= info.size
        and (params.max_size is None or info.size <= params.max_size)
        and (params.modified_after is None or info.modified > params.modified_after)
        and (params.modified_before is None or info.modified < params.modified_before)
        and params.owner in {None, info.user}
    )


def _is_new(seen: set[int] | None, one: Found | Skipped) -> bool:
    if seen is None or isinstance(one, Skipped):
        return True
    number, count = int.from_bytes(hashlib.blake2b(one.path.raw, digest_size=8).digest()), len(seen)
    seen.add(number)
    return len(seen) > count


def _listed(found: Found, digests: Digests) -> ListedFile:
    info = found.info
    return ListedFile(
        path=found.path,
        kind=info.kind,
        size=info.size,
        allocated=info.allocated,
        mode=info.mode,
        user=info.user,
        group=info.group,
        modified=info.modified,
        changed=info.changed,
        links=info.links,
        sha256=digests.sha256,
        md5=digests.md5,
        sha1=digests.sha1,
    )


# --- the list --------------------------------------------------------------------------------------------------------


@dataclass
class _Listing:
    """One list on its way: no more of it in memory than the first files and one piece."""

    host: Host
    params: ListFiles
    left_out: LeftOut = field(default_factory=LeftOut)
    first: list[ListedFile] = field(default_factory=list)
    lines: bytearray = field(default_factory=bytearray)
    evidence: list[EvidenceRef] = field(default_factory=list)
    count: int = 0
    size: int = 0
    complete: bool = True

    async def make(self) -> None:
        """Until the end, or until there is too much."""
        async with aclosing(_found(self.host, self.params)) as found:
            async for one in found:
                if isinstance(one, Skipped):
                    self.left_out.skip(one)
                elif self.count >= self.params.max_files or len(self.evidence) >= MAX_CHUNKS - 1:
                    self.complete = False
                    break
                else:
                    await self._add(one)
        if self.lines and (self.evidence or len(told(self.first)) < self.count):
            await self._send()

    async def _add(self, found: Found) -> None:
        self.count += 1
        self.size += found.info.size
        if self.params.hashes or self.count % 1000 == 1:
            self.host.progress(self.count, None, "files", str(found.path)[-200:])
        row = _listed(found, await self._digests(found))
        if len(self.first) < INLINE:
            self.first.append(row)
        self.lines += row.model_dump_json(exclude_none=True).encode() + b"\n"
        if len(self.lines) >= CHUNK_BYTES:
            await self._send()

    async def _digests(self, found: Found) -> Digests:
        if not self.params.hashes or found.info.kind is not Kind.FILE:
            return Digests()
        if found.info.size > self.params.hash_at_most:
            self.left_out.skip(Skipped(found.path, "not hashed: larger than --hash-at-most"))
            return Digests()
        if found.digests is not None:
            return found.digests
        try:
            async with self.host.files.open(found.path) as file:
                return await file.digests(self.params.hashes)
        except StanchError as error:
            self.left_out.skip(Skipped(found.path, f"not hashed: {error.message}"[:200]))
            return Digests()

    async def _send(self) -> None:
        piece = Lines("files", len(self.evidence) + 1, bytes(self.lines))
        self.lines.clear()
        self.evidence.append(await self.host.evidence.send(piece))

    def result(self) -> Listed:
        """What was found."""
        return Listed(
            count=self.count,
            size=self.size,
            complete=self.complete,
            files=told(self.first),
            evidence=tuple(self.evidence),
            skipped=skip_counts(self.left_out),
            first_skipped=told([Left(path=one.path, why=one.why[:1000]) for one in self.left_out.skipped]),
        )


async def _plan(_host: Host, params: ListFiles) -> Plan:
    """Where it would look."""
    depth = "all levels" if params.depth is None else f"{params.depth} deep"
    steps = [Step(what=f"List, {depth}", target=one[:4000]) for one in params.folder]
    steps += [Step(what="List what fits", target=one[:4000]) for one in params.glob]
    return Plan(changes=False, steps=tuple(steps))


@action(
    "list_files",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    examples=(
        "web-01 --folder /tmp --wait",
        "web-01 --glob '/home/*/.ssh/*' --hashes sha256 --wait",
        "web-01 --folder / --depth none --kinds file --modified-after 2026-11-23T00:00:00Z --max-files 1000000",
    ),
)
async def list_files(host: Host, params: ListFiles) -> Listed:
    """List what is in folders of the endpoint, or fits a pattern: kind, size, owner, mode, times, on demand hashes.

    The first 1000 stand in the answer. If there are more, all of them come as evidence, as lines of JSON, in pieces
    of about 8 MiB. Links are listed, not followed.
    """
    listing = _Listing(host, params)
    await listing.make()
    return listing.result()
