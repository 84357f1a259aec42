"""Content in the database: what is there, which version is current for whom, and the steps that changed it.

Of one content and group, the newest publication that is not undone counts. Of the groups of an endpoint, the first one
for which a version is current decides which version it should have: as with policies.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from stanch.core.content import MAX_PACKS, PackRef
from stanch.core.errors import Conflict, NotFound
from stanch.core.rest_content import Publication, Published, VersionDetail, VersionView
from stanch.server import groups
from stanch.server.groups import Group
from stanch.server.store.tables import content, content_publications, content_versions, endpoints
from stanch.server.targets import labels_of

MAX_VERSIONS = 500
"""Kept of one content."""

MAX_STEPS = 1000
"""Of what was published, that are told."""

Current = Mapping[str, Mapping[str, PackRef]]
"""Group to content to the version that is current for it."""

_VIEWED = [
    content_versions.c[name]
    for name in ("content", "version", "sha256", "size", "files", "rules", "problems", "note", "created")
]


# --- what is current -------------------------------------------------------------------------------------------------


def _newest() -> Any:
    """Of each content and group, the publication that counts."""
    return (
        select(func.max(content_publications.c.id))
        .where(content_publications.c.undone.is_(None))
        .group_by(content_publications.c.content, content_publications.c.group_name)
    )


def current(connection: Connection) -> Current:
    """The version of each content that is current for each group."""
    query = (
        select(
            content_publications.c.group_name,
            content.c.name,
            content.c.kind,
            content_versions.c.version,
            content_versions.c.sha256,
            content_versions.c.size,
        )
        .join(content, content.c.name == content_publications.c.content)
        .join(
            content_versions,
            (content_versions.c.content == content_publications.c.content)
            & (content_versions.c.version == content_publications.c.version),
        )
        .where(content_publications.c.id.in_(_newest()))
    )
    found: dict[str, dict[str, PackRef]] = {}
    for group, *about in connection.execute(query):
        ref = PackRef(**dict(zip(("name", "kind", "version", "sha256", "size"), about, strict=True)))
        found.setdefault(group, {})[ref.name] = ref
    return found


def packs_of(mine: Iterable[Group], published: Current) -> tuple[PackRef, ...]:
    """What an endpoint of these groups, in the order in which they decide, should have."""
    found: dict[str, PackRef] = {}
    for group in mine:
        for name, ref in published.get(group.name, {}).items():
            found.setdefault(name, ref)
    return tuple(found[name] for name in sorted(found))


def digest(packs: Sequence[PackRef]) -> str:
    """The same for the same packs."""
    told = [one.model_dump(mode="json") for one in packs]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


NOTHING = digest(())
"""Of no packs at all."""


def wanted(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[PackRef, ...]]:
    """What each of these endpoints should have now; most share it with many others."""
    published = current(connection)
    if not published:
        return dict.fromkeys(ids, ())
    every, carried = groups.selectors(connection), labels_of(connection, ids)
    known: dict[tuple[str, ...], tuple[PackRef, ...]] = {}
    found: dict[str, tuple[PackRef, ...]] = {}
    for one in ids:
        mine = groups.belonging(every, carried.get(one, frozenset()))
        key = tuple(group.name for group in mine)
        if key not in known:
            known[key] = packs_of(mine, published)
        found[one] = known[key]
    return found


def wanted_by(connection: Connection) -> dict[str, tuple[PackRef, ...]]:
    """What every endpoint that is not revoked should have."""
    present = select(endpoints.c.id).where(endpoints.c.revoked.is_(False))
    return wanted(connection, list(connection.execute(present).scalars()))


def publication(connection: Connection, name: str, group: str) -> Row[Any] | None:
    """The step that counts for a group; None if there never was one, or all are undone."""
    query = (
        select(content_publications)
        .where(
            content_publications.c.content == name,
            content_publications.c.group_name == group,
            content_publications.c.undone.is_(None),
        )
        .order_by(content_publications.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def publications(connection: Connection, name: str) -> tuple[Publication, ...]:
    """The version that is current, for each group for which there is one, the one that decides first at the top."""
    query = select(content_publications).where(
        content_publications.c.content == name,
        content_publications.c.id.in_(_newest()),
        content_publications.c.version.is_not(None),
    )
    rows = {row.group_name: row for row in connection.execute(query)}
    ordered = [rows[one.name] for one in groups.selectors(connection) if one.name in rows]
    return tuple(Publication(group=row.group_name, version=row.version, at=row.at, by=row.by) for row in ordered)


# --- steps -----------------------------------------------------------------------------------------------------------


def publish(connection: Connection, name: str, group: str, version: int | None, *, by: str, at: datetime) -> bool:
    """Make a version, or none, current for a group; was it another before?"""
    before = publication(connection, name, group)
    if (None if before is None else before.version) == version:
        return False
    row = {"content": name, "group_name": group, "version": version, "at": at, "by": by}
    connection.execute(insert(content_publications), row)
    return True


def roll_back(connection: Connection, name: str, group: str, *, by: str, at: datetime) -> tuple[int | None, int | None]:
    """Undo the newest step of a group; the version before and now. Conflict if there was none before it."""
    newest = publication(connection, name, group)
    if newest is None:
        raise _nothing_before(name, group, None)
    _undo(connection, newest.id, by, at)
    now = publication(connection, name, group)
    if now is None:
        raise _nothing_before(name, group, newest.version)
    return newest.version, now.version


def _undo(connection: Connection, step: int, by: str, at: datetime) -> None:
    change = update(content_publications).where(content_publications.c.id == step)
    connection.execute(change.values(undone=at, undone_by=by))


def _nothing_before(name: str, group: str, version: int | None) -> Conflict:
    there = "nothing" if version is None else f"version {version}, and no other before it"
    return Conflict(
        f"There is nothing to go back to of {name} for the group {group}",
        got=there,
        expected="a version that was current before",
        hint=f"`stanch content publish {name} VERSION` makes another version current, "
        f"`stanch content unpublish {name}` none.",
    )


def history(connection: Connection, name: str) -> tuple[Published, ...]:
    """The steps of a content, the newest first."""
    query = (
        select(content_publications)
        .where(content_publications.c.content == name)
        .order_by(content_publications.c.id.desc())
        .limit(MAX_STEPS)
    )
    return tuple(
        Published(
            group=row.group_name,
            version=row.version,
            at=row.at,
            by=row.by,
            undone=row.undone,
            undone_by=row.undone_by,
        )
        for row in connection.execute(query)
    )


# --- names and versions ----------------------------------------------------------------------------------------------


_PRESENT = content.c.name.in_(select(content_versions.c.content).distinct())
"""A name that has no version any more stays for its numbers alone: nobody sees it."""


def names(connection: Connection) -> Sequence[Row[Any]]:
    """All content, by name."""
    return connection.execute(select(content).where(_PRESENT).order_by(content.c.name)).all()


def find(connection: Connection, name: str) -> Row[Any]:
    """Content of this name; NotFound says what there is."""
    row = connection.execute(select(content).where(content.c.name == name, _PRESENT)).one_or_none()
    if row is None:
        known = [one.name for one in names(connection)]
        raise NotFound(
            "There is no such content",
            got=name[:100],
            expected=f"one of {', '.join(known[:20])}" if known else "a name of content that was imported",
            hint="`stanch content list` lists it, `stanch content import NAME PATH` brings some.",
        )
    return row


def versions(connection: Connection, name: str) -> Sequence[VersionView]:
    """All versions of a content, the newest first."""
    query = _with_kind(_VIEWED).where(content_versions.c.content == name).order_by(content_versions.c.version.desc())
    where = _groups_of(connection, name)
    return [VersionView(**_plain(row), groups=where.get(row.version, ())) for row in connection.execute(query)]


def version(connection: Connection, name: str, number: int) -> VersionDetail:
    """One version, and what is in it; NotFound says which there are."""
    find(connection, name)
    query = _with_kind([*_VIEWED, content_versions.c.lint]).where(
        content_versions.c.content == name, content_versions.c.version == number
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        there = select(content_versions.c.version).where(content_versions.c.content == name)
        numbers = sorted(connection.execute(there).scalars(), reverse=True)
        raise NotFound(
            f"{name} has no such version",
            got=number,
            expected=f"one of {', '.join(map(str, numbers[:20]))}" if numbers else "an import first",
            hint=f"`stanch content show {name}` lists its versions.",
        )
    return VersionDetail(**_plain(row), groups=_groups_of(connection, name).get(number, ()))


def same(connection: Connection, name: str, sha256: str) -> int | None:
    """The version of a content that has these bytes already."""
    query = select(content_versions.c.version).where(
        content_versions.c.content == name, content_versions.c.sha256 == sha256
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def add(connection: Connection, row: Mapping[str, Any], kind: str) -> int:
    """A new version; its number. Conflict if the content is of another kind, or there is too much."""
    name = str(row["content"])
    number = _next(connection, name, kind)
    connection.execute(insert(content_versions), {**row, "version": number})
    return number


def look_again(connection: Connection, name: str, number: int, row: Mapping[str, Any]) -> bool:
    """Keep what was found in the same bytes now, if all of them were not looked at before; is it kept?

    A server that was busy, or was stopped, must not leave a version of which nothing counts for ever.
    """
    if version(connection, name, number).lint.complete or not row["lint"].get("complete", True):
        return False
    one = (content_versions.c.content == name) & (content_versions.c.version == number)
    found = {key: row[key] for key in ("rules", "problems", "lint")}
    connection.execute(update(content_versions).where(one).values(found))
    return True


def _next(connection: Connection, name: str, kind: str) -> int:
    """The number of a new version, which is written down."""
    there = connection.execute(select(content).where(content.c.name == name)).one_or_none()
    kept = select(func.count()).select_from(content_versions).where(content_versions.c.content == name)
    count = connection.execute(kept).scalar_one()
    if not count:
        _refuse_too_many(connection)
    if there is None:
        connection.execute(insert(content), {"name": name, "kind": kind, "newest": 1})
        return 1
    if count:
        refuse_other_kind(there, kind)
    if count >= MAX_VERSIONS:
        raise Conflict(
            f"{name} has too many versions",
            got=count + 1,
            expected=f"at most {MAX_VERSIONS}",
            hint=f"`stanch content prune {name} --dry-run` shows which of them nobody needs.",
        )
    connection.execute(update(content).where(content.c.name == name).values(kind=kind, newest=there.newest + 1))
    return int(there.newest) + 1


def refuse_other_kind(there: Row[Any], kind: str) -> None:
    """Conflict if content that has versions is to become another kind."""
    if there.kind != kind:
        raise Conflict(
            f"{there.name} is content of another kind",
            got=kind,
            expected=there.kind,
            hint="Import it under another name.",
        )


def _refuse_too_many(connection: Connection) -> None:
    count = connection.execute(select(func.count()).select_from(content).where(_PRESENT)).scalar_one()
    if count >= MAX_PACKS:
        raise Conflict(
            "There is too much content",
            got=f"{count + 1} names",
            expected=f"at most {MAX_PACKS}, since an endpoint takes no more",
            hint="Import it as a version of another one, or delete all versions of one that nobody needs.",
        )


def remove(connection: Connection, name: str, number: int, *, by: str, at: datetime) -> None:
    """Remove a version; Conflict while it is current for a group.

    Steps that it was published in count no longer, so that nobody goes back to it.
    """
    where = _groups_of(connection, name).get(number, ())
    if where:
        raise Conflict(
            f"Version {number} of {name} is the current one",
            got=f"current for {', '.join(where)}",
            expected="a version that is not",
            hint=f"Publish another one first, or `stanch content unpublish {name}`.",
        )
    this = (content_publications.c.content == name) & (content_publications.c.version == number)
    still = content_publications.c.undone.is_(None)
    connection.execute(update(content_publications).where(this, still).values(undone=at, undone_by=by))
    one = (content_versions.c.content == name) & (content_versions.c.version == number)
    connection.execute(delete(content_versions).where(one))


def groups_with(connection: Connection, name: str, number: int) -> Sequence[str]:
    """The groups for which a version was published, in steps that are not undone."""
    query = (
        select(content_publications.c.group_name)
        .where(
            content_publications.c.content == name,
            content_publications.c.version == number,
            content_publications.c.undone.is_(None),
        )
        .distinct()
    )
    return sorted(connection.execute(query).scalars())


def used(connection: Connection) -> set[str]:
    """The hashes of all packs that belong to a version."""
    return set(connection.execute(select(content_versions.c.sha256).distinct()).scalars())


def _with_kind(columns: Sequence[Any]) -> Any:
    by = content_versions.c.created_by.label("by")
    return select(*columns, by, content.c.kind).join(content, content.c.name == content_versions.c.content)


def _groups_of(connection: Connection, name: str) -> dict[int, tuple[str, ...]]:
    """Version to the groups for which it is current."""
    found: dict[int, tuple[str, ...]] = {}
    for one in publications(connection, name):
        found[one.version] = (*found.get(one.version, ()), one.group)
    return found


def _plain(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
