"""Which endpoints an order is for: names, labels and a group, resolved when it is submitted."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sqlalchemy import BindParameter, Connection, Select, bindparam, select

from stanch.core.action import AnyAction
from stanch.core.errors import Conflict, Invalid, NotFound
from stanch.core.rest import OrderCommon
from stanch.server.groups import find
from stanch.server.store.tables import endpoint_labels, endpoints

_CHUNK = 500
"""Names per query: SQLite bounds the variables of a statement."""


_NAMES: BindParameter[str] = bindparam("names", expanding=True)
_NAMED = select(endpoints.c.id, endpoints.c.hostname).where(
    endpoints.c.revoked.is_(False), endpoints.c.id.in_(_NAMES) | endpoints.c.hostname.in_(_NAMES)
)
_LABELS = select(endpoint_labels.c.endpoint, endpoint_labels.c.key, endpoint_labels.c.value).where(
    endpoint_labels.c.endpoint.in_(bindparam("ids", expanding=True))
)


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint that an order is for."""

    hostname: str
    labels: frozenset[str]


def resolve(
    connection: Connection, names: Sequence[str], labels: Sequence[str], group: str | None = None
) -> dict[str, Target]:
    """The endpoints by id.

    Every name must be an id, or the host name of exactly one endpoint; labels select those that carry all of them.
    Names and labels together: both. A group narrows everything to its endpoints: alone it selects all of them, and a
    named endpoint outside of it is Invalid. Invalid if nothing is given, NotFound if nothing is found.
    """
    if not names and not labels and group is None:
        raise Invalid("The order names no endpoint", expected="endpoints, labels, a group, or several of them")
    of_group = None if group is None else find(connection, group).labels
    if names and of_group is not None:
        found = _named_within(connection, names, of_group | set(labels), group)
    else:
        found = _by_names(connection, names) | _selected(connection, labels, of_group)
    if not found:
        got = [*labels, *([f"group {group}"] if group else [])]
        raise NotFound(
            "No endpoint is like that", got=", ".join(got), hint="`stanch endpoints` shows labels and groups."
        )
    carried = labels_of(connection, sorted(found))
    return {one: Target(found[one], labels) for one, labels in carried.items()}


def check_confirmed(action: AnyAction, common: OrderCommon, found: Mapping[str, Target]) -> None:
    """Invalid unless what the order is done to was typed once more, where the action wants it, or where it was typed.

    Of one endpoint its name or id; of several how many there are: a label may have come to mean more than was thought.
    A dry run changes nothing, and needs none.
    """
    if common.dry_run or (common.confirm is None and not action.typed):
        return
    if len(found) == 1:
        ((endpoint, target),) = found.items()
        right, expected = {endpoint, target.hostname}, target.hostname
    else:
        expected = str(len(found))
        right = {expected}
    if common.confirm not in right:
        raise Invalid(
            f"{action.command} is confirmed by typing what it is done to",
            got="nothing" if common.confirm is None else common.confirm,
            expected=expected,
            hint="Give the name of the one endpoint, or the number of endpoints, as `confirm` (--confirm).",
        )


def labels_of(connection: Connection, ids: Sequence[str]) -> dict[str, frozenset[str]]:
    """`key=value` of each of these endpoints."""
    found: dict[str, set[str]] = {one: set() for one in ids}
    for chunk in _chunks(ids):
        for endpoint, key, value in connection.execute(_LABELS, {"ids": chunk}):
            found[endpoint].add(f"{key}={value}")
    return {one: frozenset(labels) for one, labels in found.items()}


def carrying(label: str) -> Select[tuple[str]]:
    """The ids of all endpoints that carry `key=value`, as a query for others."""
    key, _, value = label.partition("=")
    return select(endpoint_labels.c.endpoint).where(endpoint_labels.c.key == key, endpoint_labels.c.value == value)


def _by_names(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Id to host name."""
    wanted = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    matches: dict[str, set[str]] = {name: set() for name in wanted}
    for chunk in _chunks(wanted):
        for endpoint, hostname in connection.execute(_NAMED, {"names": chunk}):
            found[endpoint] = hostname
            for name in {endpoint, hostname} & matches.keys():
                matches[name].add(endpoint)
    _refuse_unclear(matches)
    return {one: found[one] for name, ids in matches.items() for one in ([name] if name in ids else ids)}


def _refuse_unclear(matches: Mapping[str, set[str]]) -> None:
    missing = [name for name, ids in matches.items() if not ids]
    if missing:
        raise NotFound(
            "There is no such endpoint, or it was revoked",
            got=", ".join(missing[:5]),
            hint="`stanch endpoints --search TEXT` finds endpoints.",
        )
    for name, ids in matches.items():
        if len(ids) > 1 and name not in ids:
            raise Conflict(
                f"Several endpoints are called {name}",
                got=", ".join(sorted(ids)[:5]),
                hint="Name the one you mean by its id.",
            )


def _named_within(
    connection: Connection, names: Sequence[str], labels: AbstractSet[str], group: str | None
) -> dict[str, str]:
    """Id to host name, of endpoints that all carry these labels; Invalid names those that do not."""
    found = _by_names(connection, names)
    carried = labels_of(connection, sorted(found))
    outside = [found[one] for one in sorted(found) if not labels <= carried[one]]
    if outside:
        raise Invalid(
            "Some of the named endpoints do not belong to the group, or carry not all of the labels",
            got=", ".join(outside[:5]),
            expected=f"endpoints of {group}, labelled {', '.join(sorted(labels)) or 'anyhow'}",
            hint=f"Leave out the names to address all of {group}, or the group to address these.",
        )
    return found


def _selected(connection: Connection, labels: Sequence[str], of_group: AbstractSet[str] | None) -> dict[str, str]:
    """Id to host name, of endpoints that carry all these labels and those of the group; none if neither is given."""
    if of_group is None and not labels:
        return {}
    query = select(endpoints.c.id, endpoints.c.hostname).where(endpoints.c.revoked.is_(False))
    for label in {*labels, *(of_group or ())}:
        query = query.where(endpoints.c.id.in_(carrying(label)))
    return {row.id: row.hostname for row in connection.execute(query)}


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))
