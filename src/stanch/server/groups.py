"""Groups: names for label selectors, and which of an endpoint's groups decides what. Pure, but for the reading."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from stanch.core.errors import NotFound
from stanch.core.settings import GroupSettings
from stanch.server.store.tables import groups as table

EVERY = "all"
"""The group of every endpoint: always there, and the last to decide."""

MAX_GROUPS = 1000
MAX_NAMED = 20
"""Groups that an error names."""

Sections = Mapping[str, Mapping[str, Any]]
"""Settings in plain JSON: only the sections that are set, and of those only what is not the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A name for the endpoints that carry all of its labels; and its policy, as far as that was read."""

    name: str
    labels: frozenset[str]
    rank: int
    description: str = ""
    settings: Sections = field(default_factory=dict)
    version: int = 0
    changed: datetime | None = None
    changed_by: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """A section that is set, and the group that sets it."""

    group: str
    value: Mapping[str, Any]


# --- which decides ---------------------------------------------------------------------------------------------------


def belonging(groups: Iterable[Group], labels: frozenset[str]) -> tuple[Group, ...]:
    """The groups of an endpoint that carries these labels, the one that decides first: by rank, then by name."""
    return tuple(sorted((one for one in groups if one.labels <= labels), key=lambda one: (one.rank, one.name)))


def effective(mine: Iterable[Group]) -> dict[str, Decided]:
    """Of groups in the order in which they decide: for each section the first one that sets it."""
    found: dict[str, Decided] = {}
    for one in mine:
        for section, value in one.settings.items():
            found.setdefault(section, Decided(one.name, value))
    return found


def plain_sections(settings: GroupSettings) -> dict[str, dict[str, Any]]:
    """Settings as they are stored and sent: without defaults, so that an old agent meets no field it does not know."""
    sections: dict[str, dict[str, Any]] = settings.model_dump(mode="json", exclude_defaults=True)
    return sections


def digest(sections: Sections) -> str:
    """The same for the same settings, whatever their order."""
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


NOTHING = digest({})
"""Of settings in which no section is set."""


# --- reading ---------------------------------------------------------------------------------------------------------

_SELECTORS = (table.c.name, table.c.labels, table.c.rank, table.c.description)


def selectors(connection: Connection) -> tuple[Group, ...]:
    """All groups without their policies, which may be large; by rank and name."""
    found = connection.execute(select(*_SELECTORS).order_by(table.c.rank, table.c.name))
    return tuple(_group(row) for row in found)


def with_policies(connection: Connection) -> tuple[Group, ...]:
    """All groups as a whole; by rank and name."""
    found = connection.execute(select(table).order_by(table.c.rank, table.c.name))
    return tuple(_group(row) for row in found)


def find(connection: Connection, name: str) -> Group:
    """One group as a whole; NotFound says which there are."""
    row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
    if row is None:
        known = connection.execute(select(table.c.name).order_by(table.c.rank, table.c.name).limit(MAX_NAMED + 1))
        names = list(known.scalars())
        more = ", ..." if len(names) > MAX_NAMED else ""
        raise NotFound(
            "There is no such group",
            got=name[:100],
            expected="one of " + ", ".join(names[:MAX_NAMED]) + more,
            hint="`stanch groups` lists them.",
        )
    return _group(row)


def _group(row: Any) -> Group:
    columns = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    return Group(**{**columns, "labels": frozenset(columns["labels"])})
