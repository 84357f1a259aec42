"""The way of content to its endpoints: what each should have, signed; and the bytes, for those who should have them."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from stanch.core.envelope import ContentBody
from stanch.core.errors import NotFound
from stanch.server import content_rows
from stanch.server.signer import Signer
from stanch.server.standing import Links, Standing, StandingOrders
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints

_TOLD = select(endpoints.c.id, endpoints.c.content_told).where(endpoints.c.id.in_(bindparam("ids", expanding=True)))


class ContentWay(StandingOrders):
    """Tells endpoints which packs they should have."""

    def __init__(self, *, database: Database, signer: Signer, links: Links) -> None:
        super().__init__(
            database=database,
            signer=signer,
            links=links,
            look=_packs_of,
            told=endpoints.c.content_told,
            nothing=content_rows.NOTHING,
        )

    async def require(self, endpoint: str, sha256: str) -> None:
        """NotFound unless the endpoint should have this pack now: to all others it does not exist."""
        wanted = await self._database.read(lambda connection: content_rows.wanted(connection, [endpoint])[endpoint])
        if all(one.sha256 != sha256 for one in wanted):
            raise NotFound(
                "This endpoint should have no such content",
                got=sha256[:100],
                expected="content that is published for one of its groups",
            )


def _packs_of(connection: Connection, ids: Sequence[str]) -> dict[str, Standing]:
    """What each of these endpoints should have now."""
    told = {row.id: row.content_told for row in connection.execute(_TOLD, {"ids": list(ids)})}
    wanted = content_rows.wanted(connection, list(told))
    return {
        one: Standing(ContentBody(packs=packs), content_rows.digest(packs), told_before=told[one])
        for one, packs in wanted.items()
    }
