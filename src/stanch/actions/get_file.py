"""Fetch a file from an endpoint, as evidence."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Pair, Params, Plan, Result, Risk, Step, action
from stanch.core.errors import ActionFailed, TooLarge
from stanch.core.host import FileInfo, Host, OpenFile
from stanch.core.types import EndpointPath, EvidenceRef, hours

MEBIBYTE = 1_048_576


class GetFile(Params):
    """Which file."""

    path: EndpointPath
    """The file on the endpoint; links are followed."""

    max_size: Annotated[int, Field(ge=1, le=2**50)] = 100 * MEBIBYTE
    """Refuse a file that is larger than this many bytes, before anything is sent."""


class GotFile(Result):
    """The file, as it was."""

    evidence: EvidenceRef
    """Where its bytes are now."""

    info: FileInfo
    """Size, owner, mode and times on the endpoint."""


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


async def _plan(host: Host, params: GetFile) -> Plan:
    """Would it be sent, and how large is it?"""
    async with host.files.open(params.path) as file:
        size = file.info.size
    too_large = (f"Will be refused: {size} bytes, over --max-size {params.max_size}",) if size > params.max_size else ()
    return Plan(changes=False, steps=(Step(what=f"Send {size} bytes", target=params.path),), warnings=too_large)


@action(
    "get_file",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    openc2=Pair("copy", "file"),
    examples=("web-01 --path /var/log/auth.log --wait", "web-01 --path /tmp/dropper --max-size 1000000"),
)
async def get_file(host: Host, params: GetFile) -> GotFile:
    """Fetch a file from the endpoint and keep it as evidence.

    It is sent in hashed parts; a cut link or a restart goes on from the first missing part. `stanch evidence get`
    brings it from the server to you.
    """
    async with host.files.open(params.path) as file:
        if file.info.size > params.max_size:
            raise TooLarge(
                f"{params.path} is larger than allowed",
                got=f"{file.info.size} bytes",
                expected=f"at most {params.max_size} bytes",
                hint=f"Order it again with --max-size {file.info.size}.",
            )
        evidence = await host.evidence.send(_FileSource(params.path, file))
        return GotFile(evidence=evidence, info=file.info)
