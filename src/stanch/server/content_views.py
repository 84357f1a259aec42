"""How content is shown: who should have it, and who has told that it does not load."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from stanch.core.content import MAX_PACKS, PackRef
from stanch.core.rest_content import ContentDetail, ContentView, Publication
from stanch.server import content_rows
from stanch.server.store.tables import notices

REFUSED = "content-not-loaded"
"""The detection by which an endpoint tells it: its detail has `name` and `refused`, the version."""

MAX_NOTICES = 20_000
"""The newest of them that are looked at."""
MAX_OF_EACH = 2 * MAX_PACKS
"""Of one endpoint: whoever tells more must not hide what the others tell."""

Told = Mapping[tuple[str, int], frozenset[str]]
"""Content and version to the endpoints that could not load it."""


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
            "refused": _refused(having.get(row.name, {}), told, published),
        }


def _by_name(wanted: Mapping[str, Sequence[PackRef]]) -> Mapping[str, Mapping[str, PackRef]]:
    """Content to the endpoints that should have some of it, and which."""
    found: defaultdict[str, dict[str, PackRef]] = defaultdict(dict)
    for endpoint, refs in wanted.items():
        for ref in refs:
            found[ref.name][endpoint] = ref
    return found


def _refused(having: Mapping[str, PackRef], told: Told, published: Sequence[Publication]) -> int:
    """How many of those who should have a version have told that it does not load."""
    current = {one.version for one in published}
    return sum(
        endpoint in told.get((ref.name, ref.version), ()) for endpoint, ref in having.items() if ref.version in current
    )


def _not_loaded(connection: Connection) -> Told:
    newest = func.row_number().over(partition_by=notices.c.endpoint, order_by=notices.c.id.desc())
    told = (
        select(notices.c.id, notices.c.endpoint, notices.c.detail, newest.label("newest"))
        .where(notices.c.kind == REFUSED)
        .subquery()
    )
    query = (
        select(told.c.endpoint, told.c.detail)
        .where(told.c.newest <= MAX_OF_EACH)
        .order_by(told.c.id.desc())
        .limit(MAX_NOTICES)
    )
    found: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for endpoint, detail in connection.execute(query):
        name, version = detail.get("name"), detail.get("refused")
        if isinstance(name, str) and isinstance(version, int):
            found[name, version].add(endpoint)
    return {key: frozenset(some) for key, some in found.items()}
