"""Content as people and programs see and change it: import, publish, go back, remove.

The bytes of a version are on the disk under their hash before the database knows of them; what the database does not
know is removed at the next start. Each change is one unit of work with its audit entry.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Protocol

import structlog
from sqlalchemy import Connection

from stanch.core.content import MAX_PACK_BYTES, RESERVED
from stanch.core.errors import Conflict, Invalid, NotFound, Unavailable
from stanch.core.policy import Permission, Principal
from stanch.core.rest_content import (
    ContentDetail,
    ContentRoom,
    ContentView,
    ForGroups,
    Imported,
    KeptVersion,
    Lint,
    Prune,
    Pruned,
    Publish,
    VersionDetail,
    VersionView,
)
from stanch.server import audit, content_retention, content_rows, groups
from stanch.server.clock import Clock
from stanch.server.content_lint import Linter
from stanch.server.content_packs import Arrived, Packs, too_large
from stanch.server.content_views import detail_of, views_of
from stanch.server.group_desk import within
from stanch.server.ids import new_id
from stanch.server.store.database import Database
from stanch.server.upload_files import refuse_full_disk

MAX_AT_ONCE = 4
"""Imports that may be under way at the same time."""

MAX_TOLD = 5
"""Problems that an error names."""

log = structlog.get_logger(__name__)


class Listeners(Protocol):
    """Those who must hear that endpoints may have to have something else."""

    def wake_all(self) -> None:
        """Any endpoint may have to have other content now."""
        ...


class ContentDesk:
    """The content of this server."""

    def __init__(
        self,
        *,
        packs: Packs,
        database: Database,
        listeners: Listeners,
        linter: Linter | None = None,
        now: Clock,
        most: int = content_retention.MAX_BYTES,
    ) -> None:
        self.packs = packs
        self._database = database
        self._listeners = listeners
        self._linter = linter or Linter()
        self._now = now
        self._most = most
        self._under_way = 0
        # Between the look whether a pack is needed and its coming or going, nobody else may decide the same.
        self._files = asyncio.Lock()

    # --- looking -----------------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[ContentView]:
        """All content, by name."""
        return await self._database.read(views_of)

    async def get(self, name: str) -> ContentDetail:
        """One content, with its versions and what was published; NotFound."""
        return await self._database.read(lambda connection: detail_of(connection, name))

    async def version(self, name: str, number: int) -> VersionDetail:
        """One version, and what is in it; NotFound."""
        return await self._database.read(lambda connection: content_rows.version(connection, name, number))

    async def room(self) -> ContentRoom:
        """How much content there is, and may be."""
        return await self._database.read(lambda connection: content_retention.room(connection, self._most))

    async def read(
        self, principal: Principal, name: str, number: int, *, detail: Mapping[str, Any]
    ) -> tuple[VersionDetail, BinaryIO]:
        """A version, and its pack, which the caller closes; it stands in the audit. Denied, NotFound."""
        principal.require(Permission.CONTENT)
        found = await self.version(name, number)
        try:
            pack = await asyncio.to_thread(self.packs.path(found.sha256).open, "rb")
        except OSError as error:
            raise NotFound(
                "The pack of this version cannot be read on the server",
                got=error.strerror,
                hint="Import the files again.",
            ) from error
        told = {"version": number, "sha256": found.sha256, **detail}
        await self._database.write(lambda connection: self._note(connection, principal, "content-download", name, told))
        return found, pack

    # --- importing ---------------------------------------------------------------------------------------------------

    async def take(
        self,
        principal: Principal,
        name: str,
        chunks: AsyncIterable[bytes],
        *,
        announced: int | None = None,
        sha256: str | None = None,
        note: str = "",
        strict: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> Imported:
        """Keep a pack as the newest version; the same bytes again are the version that they are.

        Denied, TooLarge, Invalid if it is no pack (or, if that is strict, anything in it does not count), Conflict if
        the content is of another kind, Unavailable, TooManyRequests.
        """
        principal.require(Permission.CONTENT)
        _refuse_reserved(name)
        async with self._arriving(chunks, announced=announced, sha256=sha256) as arrived:
            return await self._import(principal, name, arrived, note=note, strict=strict, detail=detail or {})

    async def check(self, principal: Principal, chunks: AsyncIterable[bytes], *, announced: int | None = None) -> Lint:
        """What is in a pack, of which nothing is kept; errors as of `take`."""
        principal.require(Permission.CONTENT)
        async with self._arriving(chunks, announced=announced, sha256=None) as arrived:
            return await self._linter.look(arrived)

    @asynccontextmanager
    async def _arriving(
        self, chunks: AsyncIterable[bytes], *, announced: int | None, sha256: str | None
    ) -> AsyncIterator[Arrived]:
        """A pack under a name of ours, for as long as it is looked at."""
        if announced is not None and announced > MAX_PACK_BYTES:
            raise too_large(f"{announced} bytes")
        refuse_full_disk(self.packs.folder, announced or 0)
        if self._under_way >= MAX_AT_ONCE:
            raise Unavailable("Too many imports at once", got=self._under_way + 1, expected=f"at most {MAX_AT_ONCE}")
        self._under_way += 1
        try:
            arrived = await self.packs.take(new_id("pck", self._now()), chunks, sha256=sha256)
            try:
                yield arrived
            finally:
                await self.packs.drop(arrived.path)
        finally:
            self._under_way -= 1

    async def _import(
        self, principal: Principal, name: str, arrived: Arrived, *, note: str, strict: bool, detail: Mapping[str, Any]
    ) -> Imported:
        digest = arrived.received.sha256
        there = await self._database.read(lambda connection: _same(connection, name, arrived))
        if there is not None and there.lint.complete:
            if strict:
                _refuse_problems(there.lint)
            return Imported(new=False, version=there)
        lint = await self._linter.look(arrived)
        if strict:
            _refuse_problems(lint)
        row = _row(name, arrived, lint, note) | {"created": self._now(), "created_by": principal.name}

        def unit(connection: Connection) -> Imported:
            meanwhile = content_rows.same(connection, name, digest)
            if meanwhile is not None:
                if content_rows.look_again(connection, name, meanwhile, row):
                    about = {"version": meanwhile, "rules": row["rules"], "problems": row["problems"]}
                    self._note(connection, principal, "content-looked-again", name, {**about, **detail})
                return Imported(new=False, version=content_rows.version(connection, name, meanwhile))
            content_retention.refuse_too_much(connection, digest, int(row["size"]), self._most)
            number = content_rows.add(connection, row, arrived.index.kind)
            about = {key: row[key] for key in ("sha256", "size", "files", "rules", "problems", "note")}
            told = {"version": number, "kind": arrived.index.kind, **about, **detail}
            self._note(connection, principal, "content-import", name, told)
            return Imported(new=True, version=content_rows.version(connection, name, number))

        async with self._files:
            await self.packs.keep(arrived)
            try:
                return await self._database.write(unit)
            except Exception:
                # Not when it is only cancelled: then it may be committed all the same, and the next start knows.
                await self._drop_unused([digest])
                raise

    # --- publishing --------------------------------------------------------------------------------------------------

    async def publish(self, principal: Principal, name: str, wanted: Publish) -> ContentDetail:
        """Make a version the current one for the endpoints of some groups, which are told at once.

        NotFound, Denied, Conflict if no rule of it counts.
        """
        principal.require(Permission.CONTENT)
        now = self._now()

        def unit(connection: Connection) -> ContentDetail:
            version = content_rows.version(connection, name, wanted.version)
            _refuse_useless(version)
            for group in _reached(connection, principal, wanted.groups):
                if content_rows.publish(connection, name, group, wanted.version, by=principal.name, at=now):
                    told = {"group": group, "version": wanted.version, "sha256": version.sha256}
                    self._note(connection, principal, "content-publish", name, told)
            return detail_of(connection, name)

        return await self._tell(unit)

    async def unpublish(self, principal: Principal, name: str, wanted: ForGroups) -> ContentDetail:
        """Let no version be current for the endpoints of some groups; NotFound, Denied, Conflict if none is."""
        principal.require(Permission.CONTENT)
        now = self._now()

        def unit(connection: Connection) -> ContentDetail:
            content_rows.find(connection, name)
            current = {one.group: one.version for one in content_rows.publications(connection, name)}
            _refuse_unpublished(name, current, wanted.groups)
            for group in _reached(connection, principal, wanted.groups or tuple(current)):
                content_rows.publish(connection, name, group, None, by=principal.name, at=now)
                self._note(
                    connection, principal, "content-unpublish", name, {"group": group, "version": current[group]}
                )
            return detail_of(connection, name)

        return await self._tell(unit)

    async def roll_back(self, principal: Principal, name: str, wanted: ForGroups) -> ContentDetail:
        """Let the version be current again that was so before; NotFound, Denied, Conflict if there is none.

        Without groups, for the one group for which something is published; Invalid if there are several.
        """
        principal.require(Permission.CONTENT)
        now = self._now()

        def unit(connection: Connection) -> ContentDetail:
            content_rows.find(connection, name)
            some = wanted.groups or _only_group(connection, name)
            for group in _reached(connection, principal, some):
                before, after = content_rows.roll_back(connection, name, group, by=principal.name, at=now)
                told = {"group": group, "before": before, "after": after}
                self._note(connection, principal, "content-rollback", name, told)
            return detail_of(connection, name)

        return await self._tell(unit)

    async def _tell(self, unit: Callable[[Connection], ContentDetail]) -> ContentDetail:
        """Do it, and let every endpoint be told that is concerned."""
        detail = await self._database.write(unit)
        self._listeners.wake_all()
        return detail

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete(self, principal: Principal, name: str, number: int) -> None:
        """Remove a version for good; NotFound, Denied, Conflict while it is the current one of a group."""
        principal.require(Permission.CONTENT)
        now = self._now()

        def unit(connection: Connection) -> str:
            version = content_rows.version(connection, name, number)
            _refuse_ordered(connection, version)
            # Whoever could go back to it loses that: their groups must be in reach.
            _reached(connection, principal, content_rows.groups_with(connection, name, number))
            content_rows.remove(connection, name, number, by=principal.name, at=now)
            told = {"version": number, "sha256": version.sha256, "size": version.size, "by": version.by}
            self._note(connection, principal, "content-delete", name, told)
            return version.sha256

        async with self._files:
            digest = await self._database.write(unit)
            await self._drop_unused([digest])

    async def prune(self, principal: Principal, name: str, wanted: Prune) -> Pruned:
        """Remove the versions of a content that nobody needs; NotFound, Denied."""
        principal.require(Permission.CONTENT)
        now = self._now()

        def unit(connection: Connection) -> tuple[Pruned, Sequence[str]]:
            content_rows.find(connection, name)
            kept = content_retention.reasons(connection, name, wanted.keep)
            going = [one for one in content_rows.versions(connection, name) if one.version not in kept]
            before = content_rows.used(connection)
            for one in going:
                _reached(connection, principal, content_rows.groups_with(connection, name, one.version))
                if not wanted.dry_run:
                    content_rows.remove(connection, name, one.version, by=principal.name, at=now)
            gone = before - content_rows.used(connection)
            if going and not wanted.dry_run:
                told = {"versions": [one.version for one in going], "keep": wanted.keep}
                self._note(connection, principal, "content-prune", name, told)
            freed = sum({one.sha256: one.size for one in going if wanted.dry_run or one.sha256 in gone}.values())
            return _pruned(name, wanted, going, kept, freed), sorted(gone)

        async with self._files:
            pruned, digests = await self._database.write(unit)
            await self._drop_unused(digests)
        return pruned

    async def recover(self) -> None:
        """At start: remove the files that a crash left without a version."""
        kept = await self._database.read(content_rows.used)
        removed = await self.packs.remove_all_but(kept)
        if removed:
            log.info("packs of no version removed", files=removed)

    async def _drop_unused(self, digests: Iterable[str]) -> None:
        kept = await self._database.read(content_rows.used)
        for one in set(digests) - kept:
            await self.packs.drop(self.packs.path(one))

    def _note(
        self, connection: Connection, principal: Principal, what: str, name: str, detail: Mapping[str, Any]
    ) -> None:
        told = {**detail, "origin": principal.origin}
        audit.append(connection, audit.Entry(at=self._now(), who=principal.name, what=what, subject=name, detail=told))


# --- units of work ---------------------------------------------------------------------------------------------------


def _same(connection: Connection, name: str, arrived: Arrived) -> VersionDetail | None:
    """The version that has these bytes already; Conflict at once if it would be one of another kind."""
    there = next((one for one in content_rows.names(connection) if one.name == name), None)
    if there is not None:
        content_rows.refuse_other_kind(there, arrived.index.kind)
    number = content_rows.same(connection, name, arrived.received.sha256)
    return None if number is None else content_rows.version(connection, name, number)


def _row(name: str, arrived: Arrived, lint: Lint, note: str) -> dict[str, Any]:
    received = arrived.received
    return {
        "content": name,
        "sha256": received.sha256,
        "size": received.size,
        "files": len(lint.files),
        "rules": min(sum(one.rules for one in lint.files), 2**31 - 1),
        "problems": min(sum(one.problems for one in lint.files) + (not lint.complete), 2**31 - 1),
        "note": note,
        "lint": lint.model_dump(mode="json", exclude_defaults=True),
    }


def _pruned(name: str, wanted: Prune, going: Sequence[VersionView], kept: Mapping[int, str], freed: int) -> Pruned:
    return Pruned(
        content=name,
        dry_run=wanted.dry_run,
        removed=tuple(going),
        kept=tuple(KeptVersion(version=one, why=why) for one, why in kept.items()),
        freed=freed,
    )


def _reached(connection: Connection, principal: Principal, some: Sequence[str]) -> Sequence[str]:
    """The groups, once each; NotFound, or Denied for one whose endpoints the principal's labels do not reach."""
    found = [groups.find(connection, one) for one in dict.fromkeys(some)]
    within(principal, *(one.labels for one in found))
    return [one.name for one in found]


def _only_group(connection: Connection, name: str) -> Sequence[str]:
    steps = Counter(one.group for one in content_rows.history(connection, name) if one.undone is None)
    if len(steps) > 1:
        raise Invalid(
            f"{name} is published for several groups",
            got="no group",
            expected=f"one or more of {', '.join(sorted(steps))}",
            hint="Say for which to go back: --to-group GROUP.",
        )
    return tuple(steps) or (groups.EVERY,)


# --- what is refused -------------------------------------------------------------------------------------------------


def _refuse_reserved(name: str) -> None:
    if name.startswith(RESERVED):
        raise Invalid(
            "The name is kept for what comes with the agent",
            got=name,
            expected=f"a name that does not begin with {RESERVED}",
        )


def _refuse_problems(lint: Lint) -> None:
    if lint.complete and not any(one.problems for one in lint.files):
        return
    told = [f"{one.file}:{one.line}: {one.text}" for one in lint.problems[:MAX_TOLD]]
    count = sum(one.problems for one in lint.files)
    raise Invalid(
        "Something in this content does not count",
        got="; ".join([*told, *([] if lint.complete else [lint.why_incomplete])]) or f"{count} problems",
        expected="no problem, since the import is to be strict",
        hint="`stanch content check PATH` lists all of them. Without --strict, the rest is imported.",
    )


def _refuse_useless(version: VersionDetail) -> None:
    if not version.rules:
        raise Conflict(
            f"Nothing in version {version.version} of {version.content} counts",
            got=f"no rules, {version.problems} problems",
            expected="at least one rule, indicator or hash",
            hint=f"`stanch content show {version.content} --version {version.version}` says what is wrong with it.",
        )


def _refuse_ordered(connection: Connection, version: VersionDetail) -> None:
    order = content_retention.in_orders(connection, version.content).get(version.version)
    if order is not None:
        raise Conflict(
            f"An order that is under way may use version {version.version} of {version.content}",
            got=order,
            expected="a version that no open order refers to",
            hint=f"Wait until it is over (`stanch order show {order} --wait`), or cancel it.",
        )


def _refuse_unpublished(name: str, current: Mapping[str, int], some: Sequence[str] | None) -> None:
    missing = [one for one in some or () if one not in current] or ([] if current else ["any group"])
    if missing:
        raise Conflict(
            f"No version of {name} is current for {', '.join(missing[:5])}",
            got=f"current for {', '.join(current)}" if current else "current for no group",
            expected="a group for which one is",
            hint=f"`stanch content show {name}` says for which.",
        )
