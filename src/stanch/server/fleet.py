"""The fleet: enrolment, what endpoints say about themselves, search and labels."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, insert, select, update

from stanch.core.errors import Conflict, Denied, NotFound, TooManyRequests
from stanch.core.frames import EnrolRequest, Heartbeat, Hello, Inventory, Notice
from stanch.core.policy import Permission, Principal, reach
from stanch.core.rest import EndpointView, LabelChange
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.detections import forget_old
from stanch.server.groups import Group, belonging, find, selectors
from stanch.server.ids import new_id
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoint_labels, endpoints, notices
from stanch.server.targets import carrying, labels_of
from stanch.server.tokens import spend
from stanch.server.told import kept_effects, kept_inventory, kept_isolation

MAX_HOSTNAME = 255
RENEWAL_PAUSE = timedelta(minutes=1)
IssueCertificate = Callable[[str, str], tuple[str, bytes]]
"""(CSR in PEM, endpoint id) -> (certificate in PEM, its DER); raises Invalid for a CSR that is not acceptable."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An endpoint that proved who it is."""

    endpoint: str
    hostname: str


@dataclass(frozen=True, slots=True)
class _Beat:
    """What the newest heartbeat told, until it is written down."""

    at: datetime
    effects: Sequence[Mapping[str, Any]]
    isolation: Mapping[str, Any] | None
    inventory: Inventory | None


class Fleet:
    """Every endpoint that ever enrolled."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now
        self._online: set[str] = set()
        self._seen: dict[str, _Beat] = {}

    # --- enrolment and identity --------------------------------------------------------------------------------------

    async def enrol(self, request: EnrolRequest, issue: IssueCertificate) -> tuple[str, str]:
        """A new endpoint for a valid token: its id and certificate. Token, endpoint, labels and audit are one unit."""
        now = self._now()
        endpoint = new_id("end", now)

        def unit(connection: Connection) -> str:
            token, labels = spend(connection, request.token, now)
            certificate, der = issue(request.csr, endpoint)
            row = {
                "id": endpoint,
                "certificate_sha256": hashlib.sha256(der).hexdigest(),
                "revoked": False,
                "enrolled": now,
                "agent_version": "",
                "actions": {},
                "capabilities": {},
                "effects": [],
                **_inventory_columns(request.inventory, endpoint),
            }
            connection.execute(insert(endpoints), row)
            _set_labels(connection, endpoint, labels)
            detail = {"token": token, "hostname": request.inventory.hostname[:MAX_HOSTNAME]}
            audit.append(connection, audit.Entry(at=now, who=token, what="enrol", subject=endpoint, detail=detail))
            return certificate

        return endpoint, await self._database.write(unit)

    async def identify(self, *, certificate_sha256: str, name: str) -> Identity:
        """Who presents this certificate; Denied if it is unknown, revoked, or carries another name.

        The first use of a renewed certificate ends the one before it.
        """
        query = _identity_of(certificate_sha256)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None or row.id != name:
            raise _unknown(name)
        if row.revoked:
            raise _revoked(row.id)
        if row.certificate_sha256 != certificate_sha256:
            await self._database.write(partial(self._promote, endpoint=row.id, certificate_sha256=certificate_sha256))
        return Identity(row.id, row.hostname)

    def _promote(self, connection: Connection, *, endpoint: str, certificate_sha256: str) -> None:
        """Let a renewed certificate take the place of the one before it, unless it has."""
        row = connection.execute(_identity_of(certificate_sha256)).one_or_none()
        if row is None:
            raise _unknown(endpoint)  # another renewal has replaced it meanwhile
        if row.certificate_sha256 == certificate_sha256:
            return
        values = {"certificate_sha256": certificate_sha256, "next_certificate_sha256": None}
        connection.execute(update(endpoints).where(endpoints.c.id == endpoint).values(**values))
        detail = {"certificate": certificate_sha256, "before": row.certificate_sha256}
        audit.append(
            connection, audit.Entry(at=self._now(), who=endpoint, what="renew", subject=endpoint, detail=detail)
        )

    async def renew(self, endpoint: str, csr: str, issue: IssueCertificate) -> str:
        """A new certificate for an endpoint that has proved who it is; one that waits unused is replaced.

        The one before is accepted until the new one was used. Denied if it was revoked; TooManyRequests; what `issue`
        raises.
        """
        now = self._now()

        def unit(connection: Connection) -> str:
            query = select(endpoints.c.revoked, endpoints.c.next_issued).where(endpoints.c.id == endpoint)
            row = connection.execute(query).one_or_none()
            if row is None or row.revoked:
                raise _revoked(endpoint)
            _check_pause(row.next_issued, now)
            certificate, der = issue(csr, endpoint)
            sha256 = hashlib.sha256(der).hexdigest()
            values = {"next_certificate_sha256": sha256, "next_issued": now}
            connection.execute(update(endpoints).where(endpoints.c.id == endpoint).values(**values))
            entry = audit.Entry(
                at=now, who=endpoint, what="certificate", subject=endpoint, detail={"certificate": sha256}
            )
            audit.append(connection, entry)
            return certificate

        return await self._database.write(unit)

    async def refuse_revoked(self, endpoint: str) -> None:
        """Denied if it was revoked since it was identified."""
        query = select(endpoints.c.revoked).where(endpoints.c.id == endpoint)
        if await self._database.read(lambda connection: connection.execute(query).scalar()):
            raise _revoked(endpoint)

    async def revoke(self, principal: Principal, endpoint: str) -> EndpointView:
        """No longer accept its certificate. The caller also closes its link."""
        principal.require(Permission.ENROL)
        found = await self.get(endpoint)
        now = self._now()

        def unit(connection: Connection) -> None:
            reach(principal, labels_of(connection, [found.id]))
            connection.execute(update(endpoints).where(endpoints.c.id == found.id).values(revoked=True))
            entry = audit.Entry(at=now, who=principal.name, what="revoke", subject=found.id, detail={})
            audit.append(connection, entry)

        await self._database.write(unit)
        return await self.get(found.id)

    # --- what endpoints say ------------------------------------------------------------------------------------------

    async def hello(self, endpoint: str, hello: Hello) -> None:
        """It is here, and this is what it says about itself."""
        self._online.add(endpoint)
        # Older than this, whatever was heard on its last link.
        self._seen.pop(endpoint, None)
        values = {
            **_inventory_columns(hello.inventory, endpoint),
            "agent_version": hello.agent_version,
            "actions": dict(hello.actions),
            "capabilities": dict(hello.capabilities),
            "effects": kept_effects(hello.effects),
            "isolation": kept_isolation(hello.isolation),
            "policy_digest": hello.policy_digest[:200],
            "last_seen": self._now(),
        }
        query = update(endpoints).where(endpoints.c.id == endpoint).values(**values)
        await self._database.write(lambda connection: connection.execute(query))

    def heartbeat(self, endpoint: str, beat: Heartbeat) -> None:
        """It is still here. Kept in memory until `flush`."""
        self._online.add(endpoint)
        before = self._seen.get(endpoint)
        fresh = None if beat.inventory is None else kept_inventory(beat.inventory)
        inventory = fresh or (before.inventory if before else None)
        self._seen[endpoint] = _Beat(self._now(), kept_effects(beat.effects), kept_isolation(beat.isolation), inventory)

    def gone(self, endpoint: str) -> None:
        """Its link is down."""
        self._online.discard(endpoint)

    @property
    def online(self) -> frozenset[str]:
        """Whose link is up."""
        return frozenset(self._online)

    async def flush(self) -> None:
        """Write down what heartbeats told since the last time."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        rows = [
            {"b_id": one, "b_seen": beat.at, "b_effects": beat.effects, "b_isolation": beat.isolation}
            for one, beat in seen.items()
        ]
        query = (
            update(endpoints)
            .where(endpoints.c.id == bindparam("b_id"))
            .values(last_seen=bindparam("b_seen"), effects=bindparam("b_effects"), isolation=bindparam("b_isolation"))
        )

        def unit(connection: Connection) -> None:
            connection.execute(query, rows)
            for one, beat in seen.items():
                if beat.inventory is not None:
                    columns = _inventory_columns(beat.inventory, one)
                    connection.execute(update(endpoints).where(endpoints.c.id == one).values(**columns))

        try:
            await self._database.write(unit)
        except BaseException:
            # An inventory is told once: it must not be lost. What was heard meanwhile is newer.
            for one, beat in seen.items():
                newer = self._seen.get(one, beat)
                self._seen[one] = replace(newer, inventory=newer.inventory or beat.inventory)
            raise

    async def notice(self, endpoint: str, told: Sequence[Notice]) -> None:
        """Keep what an endpoint tells unasked; one that is told twice is kept once."""
        now = self._now()

        def unit(connection: Connection) -> None:
            for one in told:
                at = datetime.fromtimestamp(min(one.at, 32503680000), now.tzinfo)
                known = select(notices.c.id).where(
                    notices.c.endpoint == endpoint, notices.c.seq == one.seq, notices.c.at == at
                )
                if connection.execute(known).first() is None:
                    row = {"endpoint": endpoint, "seq": one.seq, "kind": one.kind, "detail": dict(one.detail), "at": at}
                    connection.execute(insert(notices), {**row, "received": now})
            forget_old(connection, endpoint, (one.kind for one in told))

        await self._database.write(unit)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> EndpointView:
        """An endpoint by id or host name; NotFound, or Conflict if several have the name."""

        def look(connection: Connection) -> EndpointView:
            query = select(endpoints).where((endpoints.c.id == name) | (endpoints.c.hostname == name))
            rows = connection.execute(query.order_by(endpoints.c.id != name, endpoints.c.revoked).limit(20)).all()
            row = _the_one(name, rows)
            return self._view(row, labels_of(connection, [row.id])[row.id], selectors(connection))

        return await self._database.read(look)

    async def search(
        self,
        *,
        text: str = "",
        labels: Sequence[str] = (),
        group: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[list[EndpointView], str | None]:
        """Endpoints that contain every word, carry every label and belong to the group, by id; and where to go on.

        NotFound if there is no such group.
        """
        query = select(endpoints).order_by(endpoints.c.id).limit(limit + 1)
        for word in text.lower().split()[:10]:
            query = query.where(endpoints.c.search.contains(word, autoescape=True))
        for label in labels[:20]:
            query = query.where(endpoints.c.id.in_(carrying(label)))
        if after is not None:
            query = query.where(endpoints.c.id > after)

        def look(connection: Connection) -> tuple[list[EndpointView], str | None]:
            more = [endpoints.c.id.in_(carrying(label)) for label in (find(connection, group).labels if group else ())]
            rows = connection.execute(query.where(*more)).all()
            shown = rows[:limit]
            carried = labels_of(connection, [row.id for row in shown])
            every = selectors(connection)
            views = [self._view(row, carried[row.id], every) for row in shown]
            return views, shown[-1].id if len(rows) > limit else None

        return await self._database.read(look)

    async def label(self, principal: Principal, endpoint: str, change: LabelChange) -> EndpointView:
        """Set and remove labels."""
        principal.require(Permission.ENROL)
        found = await self.get(endpoint)
        now = self._now()

        def unit(connection: Connection) -> None:
            reach(principal, labels_of(connection, [found.id]))
            mine = endpoint_labels.c.endpoint == found.id
            connection.execute(delete(endpoint_labels).where(mine, endpoint_labels.c.key.in_(change.remove)))
            _set_labels(connection, found.id, change.add)
            detail = change.model_dump(mode="json")
            audit.append(
                connection, audit.Entry(at=now, who=principal.name, what="label", subject=found.id, detail=detail)
            )

        await self._database.write(unit)
        return await self.get(found.id)

    def _view(self, row: Row[Any], labels: frozenset[str], every: Sequence[Group]) -> EndpointView:
        fresh = self._seen.get(row.id)
        return EndpointView.model_validate(
            {
                **{name: row._mapping[name] for name in _PLAIN},  # noqa: SLF001 - SQLAlchemy's documented accessor
                "labels": tuple(sorted(labels)),
                "groups": tuple(one.name for one in belonging(every, labels)),
                "online": row.id in self._online,
                "last_seen": fresh.at if fresh else row.last_seen,
                "effects": fresh.effects if fresh else row.effects,
                "isolation": fresh.isolation if fresh else row.isolation,
            }
        )


_PLAIN = ("id", "hostname", "revoked", "agent_version", "inventory", "actions", "capabilities", "enrolled")


def _identity_of(certificate_sha256: str) -> Select[Any]:
    """Whose certificate this is, now or next."""
    columns = (endpoints.c.id, endpoints.c.hostname, endpoints.c.revoked, endpoints.c.certificate_sha256)
    mine = (endpoints.c.certificate_sha256 == certificate_sha256) | (
        endpoints.c.next_certificate_sha256 == certificate_sha256
    )
    return select(*columns).where(mine)


def _check_pause(last: datetime | None, now: datetime) -> None:
    """Each renewal is a signature, a commit and an audit entry: not as often as somebody likes."""
    if last is not None and timedelta(0) <= now - last < RENEWAL_PAUSE:
        wait = max(1, round((last + RENEWAL_PAUSE - now).total_seconds()))
        raise TooManyRequests("This endpoint was given a new certificate just now", hint=f"Wait {wait} seconds.")


def _unknown(name: str) -> Denied:
    return Denied("This certificate belongs to no endpoint", got=name[:100], hint="Enrol the endpoint again.")


def _revoked(endpoint: str) -> Denied:
    return Denied("This endpoint was revoked", got=endpoint, hint="Enrol it again, if it is to come back.")


def _the_one(name: str, rows: Sequence[Row[Any]]) -> Row[Any]:
    exact = [row for row in rows if row.id == name]
    living = [row for row in rows if not row.revoked] or list(rows)
    if not living:
        raise NotFound(f"There is no endpoint {name[:100]}", hint="`stanch endpoints --search TEXT` finds endpoints.")
    if len(living) > 1 and not exact:
        ids = ", ".join(row.id for row in living[:5])
        raise Conflict(f"Several endpoints are called {name[:100]}", got=ids, hint="Name the one you mean by its id.")
    return (exact or living)[0]


def _set_labels(connection: Connection, endpoint: str, labels: Sequence[str]) -> None:
    for label in labels:
        key, _, value = label.partition("=")
        mine = (endpoint_labels.c.endpoint == endpoint, endpoint_labels.c.key == key)
        connection.execute(delete(endpoint_labels).where(*mine))
        connection.execute(insert(endpoint_labels), {"endpoint": endpoint, "key": key, "value": value})


def _inventory_columns(told: Inventory, endpoint: str) -> dict[str, Any]:
    inventory = kept_inventory(told)
    words = [endpoint, inventory.hostname, inventory.os, inventory.kernel, inventory.architecture]
    for one in inventory.interfaces:
        words += [one.mac, *one.addresses]
    return {
        "hostname": inventory.hostname[:MAX_HOSTNAME],
        "inventory": inventory.model_dump(mode="json"),
        "search": " ".join([*words, *inventory.users]).lower()[:20_000],
    }
