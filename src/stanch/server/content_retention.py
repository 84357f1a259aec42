"""Which versions of content are kept when it is pruned, and how much room there is for more.

Kept are the newest ones, those that are current for a group, those to which a rollback would go back, and those that
an open order refers to: its task may begin, or go on, at any time before its end. Only people remove: nothing goes by
itself.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from stanch.core.content import MAX_PACKS
from stanch.core.errors import Conflict
from stanch.core.rest_content import ContentRoom
from stanch.core.task import OPEN
from stanch.server import content_rows
from stanch.server.store.tables import content_publications, content_versions, orders, tasks

MAX_BYTES = 20 * 2**30
"""Of all packs together."""


def reasons(connection: Connection, name: str, keep: int) -> Mapping[int, str]:
    """Version to why it is kept; the others may go."""
    versions = [one.version for one in content_rows.versions(connection, name)]
    steps = _steps(connection, name)
    found = dict.fromkeys(versions[:keep], f"one of the newest {keep}")
    found |= dict.fromkeys(_before(steps), "a rollback goes back to it")
    found |= {version: f"open order {order}" for version, order in in_orders(connection, name).items()}
    for one in reversed(content_rows.publications(connection, name)):
        found[one.version] = f"current for {one.group}"
    return {one: found[one] for one in versions if one in found}


def in_orders(connection: Connection, name: str) -> Mapping[int, str]:
    """Version to an order that is under way and may have to do with it: it was current since that was given."""
    steps, found = _steps(connection, name), dict[int, str]()
    for order, created in _open_orders(connection, name):
        found |= dict.fromkeys(_since(steps, created), order)
    return found


def _steps(connection: Connection, name: str) -> Mapping[str, Sequence[Row[Any]]]:
    """Group to its steps, the newest first."""
    query = (
        select(content_publications)
        .where(content_publications.c.content == name)
        .order_by(content_publications.c.id.desc())
    )
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.group_name, []).append(row)
    return found


def _before(steps: Mapping[str, Sequence[Row[Any]]]) -> set[int]:
    """The version, for each group, to which the next rollback goes back."""
    still = ([one for one in some if one.undone is None] for some in steps.values())
    return {some[1].version for some in still if len(some) > 1 and some[1].version is not None}


def _since(steps: Mapping[str, Sequence[Row[Any]]], moment: datetime) -> set[int]:
    """Versions that were current for any group at this moment or later."""
    found = set[int]()
    for some in steps.values():
        for one in some:
            found.update([one.version] if one.version is not None else [])
            if one.at <= moment and (one.undone is None or one.undone > moment):
                break  # this one was current then: what is older was not
    return found


def _open_orders(connection: Connection, name: str) -> Sequence[tuple[str, datetime]]:
    """Orders with tasks that are not final, and that name this content."""
    under_way = select(tasks.c.order_id).where(tasks.c.state.in_(OPEN)).distinct()
    query = select(orders.c.id, orders.c.created, orders.c.params).where(orders.c.id.in_(under_way))
    return [(row.id, row.created) for row in connection.execute(query) if name in (row.params.get("content") or ())]


# --- room ------------------------------------------------------------------------------------------------------------


def room(connection: Connection, most: int = MAX_BYTES) -> ContentRoom:
    """How much there is, and may be."""
    versions = connection.execute(select(func.count()).select_from(content_versions)).scalar_one()
    return ContentRoom(
        names=len(content_rows.names(connection)),
        most_names=MAX_PACKS,
        versions=versions,
        most_versions=content_rows.MAX_VERSIONS,
        bytes=_bytes(connection),
        most_bytes=most,
    )


def refuse_too_much(connection: Connection, sha256: str, size: int, most: int) -> None:
    """Conflict if there is no room for a pack; one that is here already needs none."""
    if sha256 in content_rows.used(connection):
        return
    there = _bytes(connection)
    if there + size > most:
        raise Conflict(
            "There is no room for more content on the server",
            got=f"{there} bytes of other versions and {size} of this one",
            expected=f"at most {most} bytes in all",
            hint="`stanch content prune --dry-run` shows which old versions nobody needs.",
        )


def _bytes(connection: Connection) -> int:
    each = select(content_versions.c.sha256, content_versions.c.size).distinct().subquery()
    return int(connection.execute(select(func.coalesce(func.sum(each.c.size), 0))).scalar_one())
