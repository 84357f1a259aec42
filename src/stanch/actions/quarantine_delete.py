"""Remove items from an endpoint's vault for good."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Params,
    Plan,
    Result,
    Risk,
    Step,
    action,
)
from stanch.core.errors import NotFound
from stanch.core.files import Kind
from stanch.core.host import Host
from stanch.core.model import LooseModel, Model
from stanch.core.returning import named_items
from stanch.core.taking import dumped, found_of, told
from stanch.core.types import EndpointPath, Id, Instant, Size, VaultId, minutes
from stanch.core.vault import Item

MAX_ITEMS = 10_000


class QuarantineDelete(Params):
    """Which items."""

    items: Annotated[tuple[VaultId, ...], Field(max_length=1000)] = ()
    """These items."""

    order: Id | None = None
    """Everything that this order took on the endpoint."""

    before: Instant | None = None
    """Everything that was taken before this moment, by the agent's clock."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        said = [bool(self.items), self.order is not None, self.before is not None]
        if sum(said) != 1:
            raise ValueError("expected one of items, order, before")
        return self


class RemovedItem(Model):
    """Something that is gone for good."""

    id: VaultId
    """Its id."""

    path: EndpointPath
    """Where it was taken from."""

    kind: Kind
    """What it was."""

    size: Size
    """Bytes."""


class Removed(Result):
    """What is gone for good."""

    count: Annotated[int, Field(ge=0, le=MAX_ITEMS)]
    """Items that were removed."""

    size: Size
    """Bytes that they took in the vault."""

    items: Annotated[tuple[RemovedItem, ...], Field(max_length=MAX_ITEMS)]
    """The items; of very many, as many as fit into an answer."""


class _Begun(LooseModel):
    """What is written down before the first is removed."""

    rows: tuple[RemovedItem, ...]
    size: Size


async def _chosen(host: Host, params: QuarantineDelete) -> list[Item]:
    if params.items:
        return await named_items(host, params.items)
    if params.order is not None:
        found = list(await host.vault.of_order(params.order))
    else:
        found = [one for one in await host.vault.items() if params.before is not None and one.taken < params.before]
    if not found:
        raise NotFound("Nothing of it is in the vault", got=params.order or f"before {params.before}")
    # More are removed by ordering it again.
    return found[:MAX_ITEMS]


async def _plan(host: Host, params: QuarantineDelete) -> Plan:
    """Which items would be gone for good."""
    items = await _chosen(host, params)
    steps = (
        Step(what=f"Remove {one.id} for good", target=f"{one.path} ({one.info.size} bytes)"[:4000]) for one in items
    )
    warnings = ("None of it can be brought back.",)
    return Plan(changes=True, steps=tuple(steps), warnings=warnings)


async def _verify(host: Host, _params: QuarantineDelete, result: Removed | None) -> Check:
    """Is none of them in the vault any more? After a crash: is any gone?"""
    if result is not None:
        left = await found_of(host, (one.id for one in result.items))
        return Check.of(not left, f"{len(left)} of {result.count} are still in the vault")
    recorded = host.journal.recorded()
    rows = () if recorded is None else _Begun.model_validate(recorded).rows
    gone = len(rows) - len(await found_of(host, (one.id for one in rows)))
    return Check.of(gone > 0, f"{gone} of {len(rows)} are gone")


@action(
    "quarantine_delete",
    version=1,
    risk=Risk.DESTRUCTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.BACKGROUND,
    time_limit=minutes(30),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("What is removed from the vault is nowhere any more."),
    examples=(
        "web-01 --items qrt_0123456789abcdef --wait",
        "--label env=prod --before 2026-10-01T00:00:00Z --dry-run",
        "web-01 --order ord_01 --reason 'case closed'",
    ),
)
async def quarantine_delete(host: Host, params: QuarantineDelete) -> Removed:
    """Remove items from the vault for good.

    They cannot be restored after that. Fetch a copy as evidence first with `quarantine-get` if it may be needed.
    """
    recorded = host.journal.recorded()
    if recorded is None:
        items = await _chosen(host, params)
        rows = tuple(RemovedItem(id=one.id, path=one.path, kind=one.info.kind, size=one.info.size) for one in items)
        begun = _Begun(rows=rows, size=Size(sum(one.stored for one in items)))
        await host.journal.record(dumped(begun))
    else:
        begun = _Begun.model_validate(recorded)
    for n, one in enumerate(begun.rows):
        host.progress(n, len(begun.rows), "items", str(one.path)[-200:])
        await host.vault.remove(one.id)
    return Removed(count=len(begun.rows), size=begun.size, items=told(begun.rows))
