"""The way of a policy to its endpoints: the settings of all their groups together, in a signed envelope."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, select

from stanch.core.envelope import PolicyBody
from stanch.server import groups
from stanch.server.groups import NOTHING, Group, Sections
from stanch.server.signer import Signer
from stanch.server.standing import Links, Standing, StandingOrders
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints
from stanch.server.targets import labels_of

_TOLD = select(endpoints.c.id, endpoints.c.policy_told).where(endpoints.c.id.in_(bindparam("ids", expanding=True)))


class Policies(StandingOrders):
    """Tells endpoints their settings."""

    def __init__(self, *, database: Database, signer: Signer, links: Links) -> None:
        super().__init__(
            database=database,
            signer=signer,
            links=links,
            look=_settings_of,
            told=endpoints.c.policy_told,
            nothing=NOTHING,
        )


def _settings_of(connection: Connection, ids: Sequence[str]) -> dict[str, Standing]:
    """What each of these endpoints should follow now."""
    every = groups.with_policies(connection)
    carried = labels_of(connection, ids)
    known: dict[tuple[str, ...], tuple[Sections, str]] = {}
    found: dict[str, Standing] = {}
    for row in connection.execute(_TOLD, {"ids": list(ids)}):
        sections, digest = _together(groups.belonging(every, carried[row.id]), known)
        found[row.id] = Standing(PolicyBody(settings=sections), digest, told_before=row.policy_told)
    return found


def _together(
    mine: Sequence[Group], known: dict[tuple[str, ...], tuple[Sections, str]]
) -> tuple[Mapping[str, Mapping[str, object]], str]:
    """The settings of these groups and their digest: most endpoints share them with many others."""
    key = tuple(one.name for one in mine)
    if key not in known:
        sections = {name: one.value for name, one in groups.effective(mine).items()}
        known[key] = (sections, groups.digest(sections))
    return known[key]
