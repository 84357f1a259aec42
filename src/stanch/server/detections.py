"""Detections: those of the notices of endpoints that somebody should look at."""

from collections.abc import Sequence

from sqlalchemy import Connection, Row, select

from stanch.core.detections import DETECTIONS, Severity
from stanch.core.errors import Invalid
from stanch.core.rest import DetectionView
from stanch.server.store.tables import endpoints, notices


def page(
    connection: Connection,
    *,
    endpoint: str = "",
    kind: str = "",
    severity: str = "",
    after: int | None = None,
    limit: int = 50,
) -> tuple[list[DetectionView], int | None]:
    """Detections, newest first, of one endpoint (id or host name) and one kind; and the number to go on from."""
    query = (
        select(notices, endpoints.c.hostname)
        .join(endpoints, notices.c.endpoint == endpoints.c.id)
        .where(notices.c.kind.in_(kinds(kind, severity)))
        .order_by(notices.c.id.desc())
        .limit(limit + 1)
    )
    if endpoint:
        query = query.where((notices.c.endpoint == endpoint) | (endpoints.c.hostname == endpoint))
    if after is not None:
        query = query.where(notices.c.id < after)
    rows = connection.execute(query).all()
    shown = [_view(row) for row in rows[:limit]]
    return shown, shown[-1].id if len(rows) > limit else None


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
