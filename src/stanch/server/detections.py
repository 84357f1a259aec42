"""Detections: those of the notices of endpoints that somebody should look at."""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, Row, delete, select

from stanch.core.detections import DETECTIONS, Severity
from stanch.core.errors import Invalid, NotFound
from stanch.core.policy import Principal, reach
from stanch.core.rest import DetectionView
from stanch.server.store.tables import endpoints, notices
from stanch.server.targets import carrying, labels_of

MAX_DETECTIONS = 500
"""Kept of one endpoint and one kind of detection; the oldest go first."""

MAX_NOTICES = 10_000
"""Kept of one endpoint of all other notices."""


def page(
    connection: Connection,
    principal: Principal,
    *,
    endpoint: str = "",
    kind: str = "",
    severity: str = "",
    after: int | None = None,
    limit: int = 50,
) -> tuple[list[DetectionView], int | None]:
    """Detections, newest first, of one endpoint (id or host name) and one kind; and the number to go on from.

    Only of endpoints that the principal's labels reach. NotFound or Denied for one that is not there, or not in reach:
    it must not look like one that is well.
    """
    query = (
        select(notices, endpoints.c.hostname)
        .join(endpoints, notices.c.endpoint == endpoints.c.id)
        .where(notices.c.kind.in_(kinds(kind, severity)))
        .order_by(notices.c.id.desc())
        .limit(limit + 1)
    )
    for label in principal.labels:
        query = query.where(notices.c.endpoint.in_(carrying(label)))
    if endpoint:
        ids = _named(connection, endpoint)
        reach(principal, labels_of(connection, ids))
        query = query.where(notices.c.endpoint.in_(ids))
    if after is not None:
        query = query.where(notices.c.id < after)
    rows = connection.execute(query).all()
    shown = [_view(row) for row in rows[:limit]]
    return shown, shown[-1].id if len(rows) > limit else None


def _named(connection: Connection, endpoint: str) -> Sequence[str]:
    """The ids of the endpoints of this id or host name; NotFound if there are none.

    An endpoint may call itself what it likes, but takes the place of no other one's id.
    """
    named = (endpoints.c.id == endpoint) | (endpoints.c.hostname == endpoint)
    found = connection.execute(select(endpoints.c.id).where(named)).scalars().all()
    found = [endpoint] if endpoint in found else found
    if not found:
        raise NotFound(
            f"There is no endpoint {endpoint[:100]}", hint="`stanch endpoints --search TEXT` finds endpoints."
        )
    return found


def forget_old(connection: Connection, endpoint: str, told: Iterable[str]) -> None:
    """Make room after an endpoint has told notices of these kinds.

    A chatty endpoint must not fill the database. Each kind of detection has room of its own: what somebody should look
    at is not pushed out by chatter, nor a grave detection by many mild ones.
    """
    fresh = set(told)
    for kind in sorted(fresh & DETECTIONS.keys()):
        _keep_newest(connection, (notices.c.endpoint == endpoint) & (notices.c.kind == kind), MAX_DETECTIONS)
    if fresh - DETECTIONS.keys():
        others = (notices.c.endpoint == endpoint) & notices.c.kind.not_in(DETECTIONS)
        _keep_newest(connection, others, MAX_NOTICES)


def _keep_newest(connection: Connection, which: ColumnElement[bool], most: int) -> None:
    oldest_kept = select(notices.c.id).where(which).order_by(notices.c.id.desc()).offset(most - 1).limit(1)
    kept_from = connection.execute(oldest_kept).scalar()
    if kept_from is not None:
        connection.execute(delete(notices).where(which, notices.c.id < kept_from))


def kinds(kind: str, severity: str) -> Sequence[str]:
    """The kinds that are asked for; Invalid if there is no such kind or severity."""
    if kind and kind not in DETECTIONS:
        raise Invalid("There is no such kind of detection", got=kind[:100], expected=", ".join(DETECTIONS))
    if severity and severity not in set(Severity):
        raise Invalid("There is no such severity", got=severity[:100], expected=", ".join(Severity))
    least = Severity(severity).rank if severity else 0
    return [name for name, one in DETECTIONS.items() if kind in {"", name} and one.severity.rank >= least]


def _view(row: Row[tuple[object, ...]]) -> DetectionView:
    about = DETECTIONS[row.kind]
    return DetectionView(
        id=row.id,
        endpoint=row.endpoint,
        hostname=row.hostname,
        kind=row.kind,
        title=about.title,
        severity=about.severity,
        detail=row.detail,
        at=row.at,
        received=row.received,
    )
