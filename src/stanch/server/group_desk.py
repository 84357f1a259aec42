"""Make, change and delete groups, and change their policies: each change is one unit of work with its audit entry."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, delete, func, insert, select, update

from stanch.core.errors import Conflict, Denied, Invalid, TooLarge
from stanch.core.policy import Permission, Principal
from stanch.core.rest import EffectivePolicy, GroupChange, GroupCreate, GroupView, PolicyChange, PolicyView
from stanch.core.settings import GroupSettings
from stanch.server import audit, groups
from stanch.server.clock import Clock
from stanch.server.fleet import Fleet
from stanch.server.groups import EVERY, MAX_GROUPS, Group, Sections
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints
from stanch.server.store.tables import groups as table
from stanch.server.targets import carrying, labels_of

MAX_SECTION_BYTES = 700_000 // len(GroupSettings.model_fields)
"""In JSON: an envelope of 1 MiB holds all sections together, whichever groups they come from."""


class Listeners(Protocol):
    """Those who must hear that policies may have changed."""

    def wake_all(self) -> None:
        """Any endpoint may have other settings now."""
        ...


class GroupDesk:
    """The groups, as people and programs see and change them."""

    def __init__(self, *, database: Database, fleet: Fleet, listeners: Listeners, now: Clock) -> None:
        self._database = database
        self._fleet = fleet
        self._listeners = listeners
        self._now = now

    # --- looking -----------------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[GroupView]:
        """All groups, the one that decides first at the top."""
        return await self._database.read(lambda connection: list(_views(connection, groups.with_policies(connection))))

    async def get(self, name: str) -> GroupView:
        """One group; NotFound."""
        return await self._database.read(lambda connection: _view(connection, groups.find(connection, name)))

    async def policy(self, name: str) -> PolicyView:
        """The policy of a group; NotFound."""
        return await self._database.read(lambda connection: _policy_view(groups.find(connection, name)))

    async def effective(self, name: str) -> EffectivePolicy:
        """The settings of an endpoint (id or host name), and which group decided each section."""
        found = await self._fleet.get(name)

        def look(connection: Connection) -> EffectivePolicy:
            labels = labels_of(connection, [found.id])[found.id]
            mine = groups.belonging(groups.with_policies(connection), labels)
            decided = groups.effective(mine)
            return EffectivePolicy(
                endpoint=found.id,
                hostname=found.hostname,
                groups=tuple(one.name for one in mine),
                settings=GroupSettings.model_validate({name: one.value for name, one in decided.items()}),
                decided_by={name: one.group for name, one in decided.items()},
            )

        return await self._database.read(look)

    # --- changing ----------------------------------------------------------------------------------------------------

    async def create(self, principal: Principal, wanted: GroupCreate) -> GroupView:
        """A new group, without a policy; Conflict if the name is taken."""
        principal.require(Permission.CONFIGURE)
        _refuse_contradiction(wanted.labels)
        row = {
            "name": wanted.name,
            "labels": sorted(set(wanted.labels)),
            "rank": wanted.rank,
            "description": wanted.description,
            "settings": {},
            "version": 0,
            "changed_by": "",
        }

        def unit(connection: Connection) -> GroupView:
            within(principal, frozenset(wanted.labels))
            _refuse_taken(connection, wanted.name)
            connection.execute(insert(table), row)
            self._note(connection, principal, "group-create", wanted.name, wanted.model_dump(mode="json"))
            return _view(connection, groups.find(connection, wanted.name))

        return await self._database.write(unit)

    async def change(self, principal: Principal, name: str, wanted: GroupChange) -> GroupView:
        """Change labels, rank or description; NotFound, or Conflict for what `all` must keep."""
        principal.require(Permission.CONFIGURE)
        _refuse_contradiction(wanted.labels or ())

        def unit(connection: Connection) -> GroupView:
            before = groups.find(connection, name)
            after = _changed(before, wanted)
            within(principal, before.labels, frozenset(after["labels"]))
            differing = {key: value for key, value in after.items() if value != _plain(before)[key]}
            if differing:
                connection.execute(update(table).where(table.c.name == name).values(**differing))
                old = {key: _plain(before)[key] for key in differing}
                self._note(connection, principal, "group-change", name, {"before": old, "after": differing})
            return _view(connection, groups.find(connection, name))

        view = await self._database.write(unit)
        self._listeners.wake_all()
        return view

    async def delete(self, principal: Principal, name: str) -> None:
        """Delete a group and its policy; NotFound, or Conflict for `all`."""
        principal.require(Permission.CONFIGURE)

        def unit(connection: Connection) -> None:
            before = groups.find(connection, name)
            within(principal, before.labels)
            if name == EVERY:
                raise _always_there("deleted")
            connection.execute(delete(table).where(table.c.name == name))
            policy = {section: _differences(value, {}) for section, value in before.settings.items()}
            detail = {**_plain(before), "policy": {section: one[0] for section, one in policy.items()}}
            self._note(connection, principal, "group-delete", name, detail)

        await self._database.write(unit)
        self._listeners.wake_all()

    async def change_policy(self, principal: Principal, name: str, wanted: PolicyChange) -> PolicyView:
        """Replace the policy of a group; Conflict if it is no longer the version that the change is based on."""
        principal.require(Permission.CONFIGURE)
        after = groups.plain_sections(wanted.settings)
        _refuse_large(after)
        now = self._now()

        def unit(connection: Connection) -> PolicyView:
            before = groups.find(connection, name)
            within(principal, before.labels)
            _refuse_outdated(before, wanted.based_on)
            if after != before.settings:
                row = {"settings": after, "version": before.version + 1, "changed": now, "changed_by": principal.name}
                connection.execute(update(table).where(table.c.name == name).values(**row))
                detail = {"version": before.version + 1, **_audited(before.settings, after)}
                self._note(connection, principal, "policy", name, detail)
            return _policy_view(groups.find(connection, name))

        view = await self._database.write(unit)
        self._listeners.wake_all()
        return view

    def _note(
        self, connection: Connection, principal: Principal, what: str, group: str, detail: Mapping[str, Any]
    ) -> None:
        entry = audit.Entry(at=self._now(), who=principal.name, what=what, subject=group, detail=detail)
        audit.append(connection, entry)


# --- views -----------------------------------------------------------------------------------------------------------


def _views(connection: Connection, some: Iterable[Group]) -> Iterator[GroupView]:
    """The views of many groups: who carries a label is asked once for all of them."""
    present = select(endpoints.c.id).where(endpoints.c.revoked.is_(False))
    everybody = frozenset(connection.execute(present).scalars())
    carriers: dict[str, frozenset[str]] = {}
    for one in some:
        for label in one.labels - carriers.keys():
            carriers[label] = everybody.intersection(connection.execute(carrying(label)).scalars())
        members = [carriers[label] for label in one.labels]
        yield _shown(one, len(frozenset.intersection(*members)) if members else len(everybody))


def _view(connection: Connection, group: Group) -> GroupView:
    return next(_views(connection, [group]))


def _shown(group: Group, count: int) -> GroupView:
    return GroupView(**_plain(group), endpoints=count, sections=tuple(sorted(group.settings)))


def _plain(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "labels": sorted(group.labels),
        "rank": group.rank,
        "description": group.description,
    }


def _policy_view(group: Group) -> PolicyView:
    return PolicyView(
        group=group.name,
        version=group.version,
        settings=GroupSettings.model_validate(group.settings),
        changed=group.changed,
        changed_by=group.changed_by,
    )


# --- what is refused -------------------------------------------------------------------------------------------------


def within(principal: Principal, *selectors: frozenset[str]) -> None:
    """Raise Denied if a group holds, or would hold, endpoints that the principal's labels do not let it act on."""
    mine = set(principal.labels)
    for labels in selectors:
        if not mine <= labels:
            raise Denied(
                f"{principal.name} may not change this group",
                got=f"labels {', '.join(sorted(labels)) or 'none'}",
                expected=f"a group whose labels include {', '.join(principal.labels)}",
            )


def _refuse_contradiction(labels: Sequence[str]) -> None:
    keys = [label.partition("=")[0] for label in sorted(set(labels))]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        values = [label for label in sorted(set(labels)) if label.partition("=")[0] == twice]
        raise Invalid(
            "No endpoint can belong to this group",
            got=" and ".join(values[:5]),
            expected=f"one value of {twice}, since an endpoint has only one",
        )


def _refuse_taken(connection: Connection, name: str) -> None:
    if connection.execute(select(table.c.name).where(table.c.name == name)).first() is not None:
        raise Conflict(f"There is a group {name} already", hint=f"`stanch groups change {name}` changes it.")
    count = connection.execute(select(func.count()).select_from(table)).scalar_one()
    if count >= MAX_GROUPS:
        raise Conflict("There are too many groups", got=count, expected=f"at most {MAX_GROUPS}")


def _changed(before: Group, wanted: GroupChange) -> dict[str, Any]:
    """The group's columns after the change; Conflict for what `all` must keep."""
    after = _plain(before)
    if wanted.labels is not None:
        after["labels"] = sorted(set(wanted.labels))
    if wanted.rank is not None:
        after["rank"] = wanted.rank
    if wanted.description is not None:
        after["description"] = wanted.description
    if before.name == EVERY and (after["labels"] or after["rank"] != before.rank):
        raise _always_there("given labels or another rank")
    return after


def _always_there(what: str) -> Conflict:
    return Conflict(
        f"The group `{EVERY}` cannot be {what}: it is every endpoint, and decides last",
        hint="`stanch groups create NAME --label KEY=VALUE` makes another group.",
    )


def _refuse_outdated(group: Group, based_on: int | None) -> None:
    if based_on is not None and based_on != group.version:
        raise Conflict(
            f"Somebody else has changed the policy of {group.name} meanwhile",
            got=f"version {group.version} by {group.changed_by or 'nobody'}",
            expected=f"version {based_on}, which this change is based on",
            hint=f"Look at it with `stanch policy show {group.name}`, and make the change again.",
        )


def _refuse_large(sections: Sections) -> None:
    for name, value in sections.items():
        size = len(json.dumps(value))
        if size > MAX_SECTION_BYTES:
            raise TooLarge(
                f"The section {name} is too large for an endpoint",
                got=f"{size} bytes",
                expected=f"at most {MAX_SECTION_BYTES}",
                hint="Networks say more in fewer words: 10.0.0.0/8 instead of its addresses.",
            )


# --- the audit -------------------------------------------------------------------------------------------------------


def _audited(before: Sections, after: Sections) -> dict[str, Any]:
    """What differs, before and after, by section; null for a section that is not set."""
    told: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
    for section in sorted({*before, *after}):
        old, new = before.get(section), after.get(section)
        if old != new:
            pair = _differences(old, new)
            told["before"][section], told["after"][section] = pair
    return told


def _differences(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The fields that differ, on each side; one that is missing has its default."""
    before, after = old or {}, new or {}
    names = [name for name in sorted({*before, *after}) if before.get(name, ...) != after.get(name, ...)]
    sides = [{name: audit.brief(side[name]) for name in names if name in side} for side in (before, after)]
    return (None if old is None else sides[0]), (None if new is None else sides[1])
