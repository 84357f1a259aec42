"""How content is shown: who should have it, and who has told that it does not load."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from stanch.core.content import MAX_PACKS, PackRef
from stanch.core.rest_content import ContentDetail, ContentView, Publication
from stanch.server import content_rows
from stanch.server.store.tables import notices

REFUSED = "content-not-loaded"
"""The detection by which an endpoint tells it: its detail has `name` and `refused`, the version."""
LOADED = "content-loaded"
"""The notice by which it takes that back: `name` and `loaded`, the version."""

MAX_NOTICES = 20_000
"""The newest of them that are looked at."""
MAX_OF_EACH = 2 * MAX_PACKS
"""Of one endpoint: whoever tells more must not hide what the others tell."""


@dataclass(frozen=True, slots=True)
class _Told:
    """Who could not load a version."""

    now: frozenset[str]
    """Endpoints that still cannot."""
    before: frozenset[str]
    """Endpoints that could not, and have loaded it since."""


_NOBODY = _Told(frozenset(), frozenset())

Told = Mapping[tuple[str, int], _Told]
"""Content and version to what was told of it."""


def views_of(connection: Connection) -> list[ContentView]:
    """All content, by name."""
    return [ContentView(**one) for one in _views(connection, content_rows.names(connection))]


def detail_of(connection: Connection, name: str) -> ContentDetail:
    """One content, with its versions and what was published; NotFound."""
    about = next(_views(connection, [content_rows.find(connection, name)]))
    every = tuple(content_rows.versions(connection, name))
    return ContentDetail(**about, every=every, history=content_rows.history(connection, name))


def _views(connection: Connection, rows: Sequence[Row[Any]]) -> Iterator[dict[str, Any]]:
    wanted = content_rows.wanted_by(connection) if rows else {}
    told = _not_loaded(connection) if wanted else {}
    having = _by_name(wanted)
    for row in rows:
        versions = content_rows.versions(connection, row.name)
        published = content_rows.publications(connection, row.name)
        yield {
            "name": row.name,
            "kind": row.kind,
            "versions": len(versions),
            "newest": versions[0].version if versions else None,
            "published": published,
            "endpoints": len(having.get(row.name, {})),
            **_refused(having.get(row.name, {}), told, published),
        }


def _by_name(wanted: Mapping[str, Sequence[PackRef]]) -> Mapping[str, Mapping[str, PackRef]]:
    """Content to the endpoints that should have some of it, and which."""
    found: defaultdict[str, dict[str, PackRef]] = defaultdict(dict)
    for endpoint, refs in wanted.items():
        for ref in refs:
            found[ref.name][endpoint] = ref
    return found


def _refused(having: Mapping[str, PackRef], told: Told, published: Sequence[Publication]) -> Mapping[str, int]:
    """How many of those who should have a version cannot load it now, and how many could not before."""
    current = {one.version for one in published}
    said = [
        (endpoint, told.get((ref.name, ref.version), _NOBODY))
        for endpoint, ref in having.items()
        if ref.version in current
    ]
    return {
        "refused": sum(endpoint in one.now for endpoint, one in said),
        "refused_before": sum(endpoint in one.before for endpoint, one in said),
    }


def _not_loaded(connection: Connection) -> Told:
    """Of each endpoint and version, what it has told last counts."""
    newest = func.row_number().over(partition_by=notices.c.endpoint, order_by=notices.c.id.desc())
    told = (
        select(notices.c.id, notices.c.endpoint, notices.c.kind, notices.c.detail, newest.label("newest"))
        .where(notices.c.kind.in_((REFUSED, LOADED)))
        .subquery()
    )
    query = (
        select(told.c.endpoint, told.c.kind, told.c.detail)
        .where(told.c.newest <= MAX_OF_EACH)
        .order_by(told.c.id.desc())
        .limit(MAX_NOTICES)
    )
    last: dict[tuple[str, int], dict[str, str]] = {}
    for endpoint, kind, detail in connection.execute(query):
        name, version = detail.get("name"), detail.get("refused" if kind == REFUSED else "loaded")
        if isinstance(name, str) and isinstance(version, int):
            last.setdefault((name, version), {}).setdefault(endpoint, kind)
    return {key: _Told(_having(some, REFUSED), _having(some, LOADED)) for key, some in last.items()}


def _having(last: Mapping[str, str], kind: str) -> frozenset[str]:
    return frozenset(endpoint for endpoint, one in last.items() if one == kind)
