"""List what is in an endpoint's vault."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.errors import NotFound
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.taking import told
from stanch.core.types import EndpointPath, Instant, Sha256, Size, Text, VaultId, minutes
from stanch.core.vault import Item, Usage, Why

MAX_PAGE = 1000


class QuarantineList(Params):
    """Which items."""

    contains: Annotated[str, Field(max_length=1000)] = ""
    """Only items whose path contains this text."""

    sha256: Sha256 | None = None
    """Only items with this content."""

    why: Why | None = None
    """Only what was quarantined, deleted, or replaced."""

    after: VaultId | None = None
    """Go on after this item: the `next` of the page before."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    """Items of one page."""


class ListedItem(Model):
    """Something in the vault."""

    id: VaultId
    """Its id on this endpoint."""

    why: Why
    """What for."""

    path: EndpointPath
    """Where it was."""

    size: Size
    """Bytes."""

    user: Text
    """Its owner."""

    taken: Instant
    """When, by the agent's clock."""

    until: Instant | None
    """When it is removed for good; null for never."""

    by: Text
    """Who ordered it."""

    order: Annotated[str, Field(max_length=64)]
    """The order."""

    reason: Text
    """Why they said."""

    copy_only: bool
    """Was the file itself left where it is?"""

    sha256: Sha256 | None
    """Of its content."""

    damage: Text | None
    """What is wrong with it; null if nothing is known to be."""


class QuarantinePage(Result):
    """One page of what is in the vault, the newest first."""

    items: Annotated[tuple[ListedItem, ...], Field(max_length=MAX_PAGE)]
    """The items."""

    next: VaultId | None
    """Go on with `--after` this; null if there is no more."""

    usage: Usage
    """Room that the vault takes, and that is left."""


@action(
    "quarantine_list",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=minutes(5),
    examples=("web-01 --wait", "--label env=prod --contains /tmp/ --why quarantine --limit 1000 --wait --json"),
)
async def quarantine_list(host: Host, params: QuarantineList) -> QuarantinePage:
    """List what is in an endpoint's vault, the newest first.

    Each item with where it was, who ordered it and why, and when it goes for good; and how full the vault is.
    """
    fitting = [one for one in await host.vault.items() if _fits(one, params)]
    start = _start(fitting, params.after)
    wanted = fitting[start : start + params.limit]
    items = told([_row(one) for one in wanted])
    more = items and start + len(items) < len(fitting)
    return QuarantinePage(items=items, next=items[-1].id if more else None, usage=await host.vault.usage())


def _fits(item: Item, params: QuarantineList) -> bool:
    return (
        params.contains in item.path
        and params.sha256 in {None, item.sha256}
        and params.why in {None, item.why}
    )  # fmt: skip


def _start(items: Sequence[Item], after: VaultId | None) -> int:
    if after is None:
        return 0
    found = next((n for n, one in enumerate(items) if one.id == after), None)
    if found is None:
        raise NotFound("The item to go on after is not there any more", got=after, hint="Start again without --after.")
    return found + 1


def _row(item: Item) -> ListedItem:
    return ListedItem(
        id=item.id,
        why=item.why,
        path=item.path,
        size=item.info.size,
        user=item.info.user,
        taken=item.taken,
        until=item.until,
        by=item.by,
        order=item.order,
        reason=item.reason,
        copy_only=item.original_kept,
        sha256=item.sha256,
        damage=item.damage,
    )
