"""Fetch a copy of something in an endpoint's vault, as evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from stanch.core.action import AfterCrash, Concurrency, Params, Plan, Result, Risk, Step, action
from stanch.core.errors import NotFound, Unsupported
from stanch.core.files import Extent, FileInfo, Kind
from stanch.core.host import Host
from stanch.core.types import EndpointPath, EvidenceRef, VaultId, hours
from stanch.core.vault import Item, Readable


class QuarantineGet(Params):
    """Which item."""

    item: VaultId
    """Its id, as quarantine-list shows it."""


class GotItem(Result):
    """A copy of the item."""

    evidence: EvidenceRef
    """Where its bytes are now."""

    item: VaultId
    """The item, which is still in the vault."""

    path: EndpointPath
    """Where it was."""

    info: FileInfo
    """As it was when it was taken."""


@dataclass(frozen=True, slots=True)
class _ItemSource:
    """The content of an item as a source of evidence."""

    content: Readable

    @property
    def name(self) -> str:
        return self.content.name

    @property
    def size(self) -> int:
        return self.content.size

    async def read(self, offset: int, length: int) -> bytes:
        return await self.content.read(offset, length)

    async def extents(self) -> Sequence[Extent]:
        return (Extent(0, self.size),) if self.size else ()


async def _found(host: Host, params: QuarantineGet) -> Item:
    item = await host.vault.find(params.item)
    if item is None:
        raise NotFound("There is no such item in the vault", got=params.item, hint="See quarantine-list.")
    if item.info.kind is not Kind.FILE:
        raise Unsupported("This item has no content", got=item.info.kind.words, expected="a file")
    return item


async def _plan(host: Host, params: QuarantineGet) -> Plan:
    """How much would be sent?"""
    item = await _found(host, params)
    return Plan(changes=False, steps=(Step(what=f"Send {item.info.size} bytes", target=item.path),))


@action(
    "quarantine_get",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    examples=("web-01 --item qrt_0123456789abcdef --wait",),
)
async def quarantine_get(host: Host, params: QuarantineGet) -> GotItem:
    """Fetch a copy of something in the vault, and keep it as evidence.

    The item stays in the vault. `stanch evidence get` brings the copy from the server to you.
    """
    item = await _found(host, params)
    async with host.vault.open(item.id) as content:
        evidence = await host.evidence.send(_ItemSource(content))
    return GotItem(evidence=evidence, item=item.id, path=item.path, info=item.info)
