"""Take the hashes of files on an endpoint."""

from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Plan, Result, Risk, Step, action
from stanch.core.errors import StanchError, TooLarge
from stanch.core.files import FileInfo, FileType, HashKind
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.selection import Chosen, Selection, choose, described
from stanch.core.taking import MAX_ROWS, Lefts, SkipCounts, lefts, none_worked, skip_counts, told
from stanch.core.types import EndpointPath, Md5, Sha256, Size, hours

GIBIBYTE = 2**30

Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class HashFile(Selection):
    """Which files; links are followed."""

    kinds: Annotated[tuple[HashKind, ...], Field(min_length=1, max_length=3)] = (HashKind.SHA256, HashKind.MD5)
    """Which hashes."""

    max_size: Annotated[Size, Field(ge=1, le=2**50)] = Size(GIBIBYTE)
    """Leave out files that are larger than this."""


class HashedFile(Model):
    """A file and its hashes; null for the kinds that were not asked for."""

    path: EndpointPath
    """Where it is."""

    sha256: Sha256 | None = None
    """SHA-256."""

    md5: Md5 | None = None
    """MD5."""

    sha1: Sha1 | None = None
    """SHA-1."""

    type: FileType
    """What it seems to be, by its first bytes."""

    info: FileInfo
    """Size, owner, mode and times."""


class HashedFiles(Result):
    """The hashes."""

    count: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    """Files whose hashes were taken."""

    files: Annotated[tuple[HashedFile, ...], Field(max_length=MAX_ROWS)]
    """Each of them; of very many, as many as fit into an answer."""

    not_hashed: Lefts = ()
    """What fits and whose hashes could not be taken."""

    skipped: SkipCounts = ()
    """What was left out when the files were looked for."""


async def _chosen(host: Host, params: HashFile) -> Chosen:
    return await choose(host, params, hash_at_most=params.max_size)


async def _plan(host: Host, params: HashFile) -> Plan:
    """Of what would the hashes be taken?"""
    chosen = await _chosen(host, params)
    wanted = [one for one in chosen.files if one.info.size <= params.max_size]
    steps = (Step(what="Take the hashes", target=f"{one.path} ({described(one.info)})"[:4000]) for one in wanted)
    warnings = [
        *(f"{one.path}: larger than --max-size"[:4000] for one in chosen.files if one.info.size > params.max_size),
        *(f"{one.files} left out: {one.why}"[:4000] for one in skip_counts(chosen)),
    ]
    return Plan(changes=False, steps=tuple(steps), warnings=tuple(warnings[:100]))


@action(
    "hash_file",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    examples=(
        "web-01 --path /tmp/dropper --wait",
        "web-01 --path /usr/local/bin --recursive --kinds sha256 --wait",
        "web-01 --glob '/home/*/.ssh/authorized_keys' --wait --json",
    ),
)
async def hash_file(host: Host, params: HashFile) -> HashedFiles:
    """Take the hashes of files on the endpoint, and tell what each seems to be.

    Nothing is sent but the hashes and the first bytes. A file that cannot be read does not keep the others.
    """
    chosen = await _chosen(host, params)
    rows: list[HashedFile] = []
    failed: list[tuple[EndpointPath, StanchError]] = []
    for n, one in enumerate(chosen.files):
        host.progress(n, len(chosen.files), "files", str(one.path)[-200:])
        try:
            rows.append(await _hash(host, params, one.path))
        except StanchError as error:
            failed.append((one.path, error))
    if not rows:
        raise none_worked(failed)
    return HashedFiles(count=len(rows), files=told(rows), not_hashed=told(lefts(failed)), skipped=skip_counts(chosen))


async def _hash(host: Host, params: HashFile, path: EndpointPath) -> HashedFile:
    async with host.files.open(path) as file:
        if file.info.size > params.max_size:
            raise TooLarge(
                f"{path} is larger than allowed",
                got=f"{file.info.size} bytes",
                expected=f"at most {params.max_size} bytes",
                hint=f"Order it again with --max-size {file.info.size}.",
            )
        digests = await file.digests(params.kinds)
        return HashedFile(
            path=path,
            sha256=digests.sha256,
            md5=digests.md5,
            sha1=digests.sha1,
            type=await file.type(),
            info=file.info,
        )
