"""The way of a policy to its endpoints: the settings of all their groups together, in a signed envelope.

Whoever may have other settings is put in a set; one loop empties it in chunks. What an endpoint was told on its present
link is remembered, so that only those are told whose settings have changed. Everything else is repaired at the hello:
each new link is told anew, unless there is nothing to tell and never was.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy import Connection, bindparam, select, update

from stanch.core.envelope import PolicyBody
from stanch.core.frames import Deliver
from stanch.server import groups
from stanch.server.dispatch import Link
from stanch.server.groups import NOTHING, Group, Sections
from stanch.server.signer import Signer
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints
from stanch.server.targets import labels_of

CHUNK = 100
"""Endpoints that are looked up, signed for and told at a time."""

log = structlog.get_logger(__name__)

_TOLD = select(endpoints.c.id, endpoints.c.policy_told).where(endpoints.c.id.in_(bindparam("ids", expanding=True)))


class Links(Protocol):
    """The open links, by endpoint."""

    def link_of(self, endpoint: str) -> Link | None:
        """Its link, if it is up."""
        ...

    @property
    def linked(self) -> Collection[str]:
        """Whose link is up."""
        ...


@dataclass(frozen=True, slots=True)
class _Settings:
    """What an endpoint should follow."""

    sections: Sections
    digest: str
    told_before: bool
    """Was it ever told any?"""


class Policies:
    """Tells endpoints their settings."""

    def __init__(self, *, database: Database, signer: Signer, links: Links) -> None:
        self._database = database
        self._signer = signer
        self._links = links
        self._waiting: set[str] = set()
        self._woken = asyncio.Event()
        self._told: WeakKeyDictionary[Link, str] = WeakKeyDictionary()

    def wake(self, endpoint: str) -> None:
        """It may have other settings, or a new link."""
        self._waiting.add(endpoint)
        self._woken.set()

    def wake_all(self) -> None:
        """So may everybody."""
        self._waiting.update(self._links.linked)
        self._woken.set()

    async def run(self) -> None:
        """Tell whoever waits, until cancelled."""
        while True:
            await self._woken.wait()
            while self._waiting:
                chunk = [self._waiting.pop() for _ in range(min(CHUNK, len(self._waiting)))]
                try:
                    await self._tell(chunk)
                except BaseException:
                    # Whoever starts this loop again finds them still waiting.
                    self._waiting.update(chunk)
                    raise
            self._woken.clear()

    async def _tell(self, chunk: Sequence[str]) -> None:
        links = {one: link for one in chunk if (link := self._links.link_of(one)) is not None}
        if not links:
            return
        wanted = await self._database.read(lambda connection: _settings_of(connection, sorted(links)))
        due = {one: its for one, its in wanted.items() if self._before(links[one], its) != its.digest}
        for one in wanted.keys() - due.keys():
            self._told[links[one]] = wanted[one].digest
        await self._mark([one for one, its in due.items() if not its.told_before])
        bodies = [(one, PolicyBody(settings=its.sections)) for one, its in due.items()]
        for one, envelope in zip(due, await self._signer.envelopes(bodies), strict=True):
            await self._send(links[one], envelope, due[one].digest)

    def _before(self, link: Link, its: _Settings) -> str | None:
        """What was told on this link, or needs no telling; None if the endpoint must be told in any case."""
        return self._told.get(link, None if its.told_before else NOTHING)

    async def _mark(self, fresh: Sequence[str]) -> None:
        """Write it down before it is on the wire: from now on they must be told, even if there is nothing left."""
        if fresh:
            query = update(endpoints).where(endpoints.c.id.in_(fresh)).values(policy_told=True)
            await self._database.write(lambda connection: connection.execute(query))

    async def _send(self, link: Link, envelope: str, digest: str) -> None:
        try:
            await link.send(Deliver(envelope=envelope))
        except (ConnectionError, RuntimeError) as error:
            # It is told at its next hello.
            log.info("link went away during a policy", endpoint=link.endpoint, error=str(error))
            link.close()
        else:
            self._told[link] = digest


def _settings_of(connection: Connection, ids: Sequence[str]) -> dict[str, _Settings]:
    """What each of these endpoints should follow now."""
    every = groups.with_policies(connection)
    carried = labels_of(connection, ids)
    known: dict[tuple[str, ...], tuple[Sections, str]] = {}
    return {
        row.id: _Settings(*_together(groups.belonging(every, carried[row.id]), known), told_before=row.policy_told)
        for row in connection.execute(_TOLD, {"ids": list(ids)})
    }


def _together(
    mine: Sequence[Group], known: dict[tuple[str, ...], tuple[Sections, str]]
) -> tuple[Mapping[str, Mapping[str, object]], str]:
    """The settings of these groups and their digest: most endpoints share them with many others."""
    key = tuple(one.name for one in mine)
    if key not in known:
        sections = {name: one.value for name, one in groups.effective(mine).items()}
        known[key] = (sections, groups.digest(sections))
    return known[key]
