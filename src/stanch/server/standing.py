"""The way of what an endpoint is to follow from now on: signed, told when it changes and at each hello.

Whoever may have to be told something else is put in a set; one loop empties it in chunks. What an endpoint was told on
its present link is remembered, so that only those are told for whom something changes. Everything else is repaired at
the hello: each new link is told anew, unless there is nothing to tell and never was.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy import Column, Connection, update

from stanch.core.envelope import Body
from stanch.core.frames import Deliver
from stanch.server.dispatch import Link
from stanch.server.signer import Signer
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints

CHUNK = 100
"""Endpoints that are looked up, signed for and told at a time."""

log = structlog.get_logger(__name__)


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
class Standing:
    """What an endpoint should follow."""

    body: Body
    digest: str
    """The same for the same."""
    told_before: bool
    """Was it ever told any?"""


Look = Callable[[Connection, Sequence[str]], Mapping[str, Standing]]
"""What each of these endpoints should follow now; those that are not there any more are left out."""


class StandingOrders:
    """Tells endpoints one kind of what they are to follow."""

    def __init__(
        self, *, database: Database, signer: Signer, links: Links, look: Look, told: Column[bool], nothing: str
    ) -> None:
        """`told`: the column of endpoints that says whether one was ever told; `nothing`: the digest of nothing."""
        self._database = database
        self._signer = signer
        self._links = links
        self._look = look
        self._column = told
        self._nothing = nothing
        self._waiting: set[str] = set()
        self._woken = asyncio.Event()
        self._told: WeakKeyDictionary[Link, str] = WeakKeyDictionary()

    def wake(self, endpoint: str) -> None:
        """It may have to follow something else, or has a new link."""
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
        wanted = await self._database.read(lambda connection: self._look(connection, sorted(links)))
        due = {one: its for one, its in wanted.items() if self._before(links[one], its) != its.digest}
        for one in wanted.keys() - due.keys():
            self._told[links[one]] = wanted[one].digest
        await self._mark([one for one, its in due.items() if not its.told_before])
        envelopes = await self._signer.envelopes([(one, its.body) for one, its in due.items()])
        for one, envelope in zip(due, envelopes, strict=True):
            await self._send(links[one], envelope, due[one].digest)

    def _before(self, link: Link, its: Standing) -> str | None:
        """What was told on this link, or needs no telling; None if the endpoint must be told in any case."""
        return self._told.get(link, None if its.told_before else self._nothing)

    async def _mark(self, fresh: Sequence[str]) -> None:
        """Write it down before it is on the wire: from now on they must be told, even if there is nothing left."""
        if fresh:
            query = update(endpoints).where(endpoints.c.id.in_(fresh)).values({self._column.name: True})
            await self._database.write(lambda connection: connection.execute(query))

    async def _send(self, link: Link, envelope: str, digest: str) -> None:
        try:
            await link.send(Deliver(envelope=envelope))
        except (ConnectionError, RuntimeError) as error:
            # It is told at its next hello.
            log.info("link went away while it was told what to follow", endpoint=link.endpoint, error=str(error))
            link.close()
        else:
            self._told[link] = digest


class Everything:
    """All kinds of what endpoints are to follow, woken as one."""

    def __init__(self, *kinds: StandingOrders) -> None:
        self.kinds = kinds

    def wake(self, endpoint: str) -> None:
        """It may have to follow something else, or has a new link."""
        for one in self.kinds:
            one.wake(endpoint)

    def wake_all(self) -> None:
        """So may everybody."""
        for one in self.kinds:
            one.wake_all()
