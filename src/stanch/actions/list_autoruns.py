"""List what starts by itself on an endpoint, with what deserves a look: the way to an attacker's persistence."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Params, Plan, Result, Risk, Step, action
from stanch.core.autoruns import CHANGED_PROGRAM, UNPACKAGED_PROGRAM, Autorun, Method, Place, Unread
from stanch.core.disabling import ways_in_force
from stanch.core.evidence import Lines
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.taking import told
from stanch.core.types import EvidenceRef, minutes

INLINE = 5000
"""Autoruns that are told in the answer itself, at most."""

INLINE_BYTES = 2 * 2**20
"""Bytes that they take there, at most."""

CHUNK_BYTES = 8 * 2**20
"""What is collected in memory before it is sent."""

MAX_CHUNKS = 1000
MAX_UNREAD = 500
UNREAD_BYTES = 2**19


class ListAutoruns(Params):
    """Where, and which."""

    place: Annotated[tuple[Place, ...], Field(max_length=len(Place))] = ()
    """Where to look; everywhere if nothing is named."""

    match: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Only what has this text in its name, path, command, program or notes; upper and lower case are the same."""

    unpackaged: bool = False
    """Only what no package brought, or is not as its package brought it; what it starts counts, too."""

    user: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Only what starts as this user."""


class PlaceCount(Model):
    """How many there are of one place."""

    place: Place
    """Which place."""

    count: Annotated[int, Field(ge=1, le=10_000_000)]
    """How many."""


class AutorunsListed(Result):
    """What starts by itself."""

    total: Annotated[int, Field(ge=0, le=10_000_000)]
    """How many were found."""

    autoruns: Annotated[tuple[Autorun, ...], Field(max_length=INLINE)]
    """The first of them, as many as fit into an answer. `disable-autorun` takes their ids."""

    cut: bool
    """Are there more than these? Then all of them come as evidence."""

    evidence: Annotated[tuple[EvidenceRef, ...], Field(max_length=MAX_CHUNKS)] = ()
    """All of them, if they are cut here: one JSON object in each line, in the order of the names of these pieces."""

    complete: bool = True
    """False if even the evidence could not take all of them."""

    by_place: Annotated[tuple[PlaceCount, ...], Field(max_length=len(Place))] = ()
    """How many, by place."""

    unread_total: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Places that are there and could not be looked at, or not at all of them."""

    unread: Annotated[tuple[Unread, ...], Field(max_length=MAX_UNREAD)] = ()
    """The first of them."""


def _fits(params: ListAutoruns, one: Autorun) -> bool:
    if params.user is not None and one.user != params.user:
        return False
    if params.unpackaged and not _is_unpackaged(one):
        return False
    texts = (one.id, one.name, one.path, one.command, one.program or "", *one.notes)
    return params.match is None or any(params.match.casefold() in text.casefold() for text in texts)


def _is_unpackaged(one: Autorun) -> bool:
    """Does anything of it come from nobody's package?"""
    return not one.package or one.differs is True or not {UNPACKAGED_PROGRAM, CHANGED_PROGRAM}.isdisjoint(one.notes)


async def _found(host: Host, params: ListAutoruns) -> AsyncGenerator[Autorun | Unread, None]:
    masks = {way.id: way.task for way in ways_in_force(host) if way.method is Method.MASK}
    async for batch in host.autoruns.list(params.place or tuple(Place)):
        for one in batch:
            if isinstance(one, Autorun) and not one.enabled and one.id in masks:
                yield one.model_copy(update={"disabled_by": masks[one.id]})
            else:
                yield one


@dataclass
class _Listing:
    """One list on its way: no more of it in memory than the first ones and one piece."""

    host: Host
    params: ListAutoruns
    counts: Counter[Place] = field(default_factory=Counter)
    first: list[Autorun] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    unread_total: int = 0
    lines: bytearray = field(default_factory=bytearray)
    evidence: list[EvidenceRef] = field(default_factory=list)
    place: Place | None = None
    looked_at: int = 0
    complete: bool = True

    async def make(self) -> None:
        """Until the end, or until there is too much."""
        async with aclosing(_found(self.host, self.params)) as found:
            async for one in found:
                if isinstance(one, Unread):
                    self._miss(one)
                elif len(self.evidence) >= MAX_CHUNKS - 1:
                    self.complete = False
                    break
                else:
                    await self._look_at(one)
        if self.lines and (self.evidence or len(self._inline()) < self.counts.total()):
            await self._send()

    def _miss(self, one: Unread) -> None:
        self.unread_total += 1
        if len(self.unread) < MAX_UNREAD:
            self.unread.append(one)

    async def _look_at(self, one: Autorun) -> None:
        self.looked_at += 1
        if one.place is not self.place:
            self.place = one.place
            self.host.progress(self.looked_at, None, "autoruns", one.place)
        if not _fits(self.params, one):
            return
        self.counts[one.place] += 1
        if len(self.first) < INLINE:
            self.first.append(one)
        self.lines += one.model_dump_json(exclude_none=True).encode() + b"\n"
        if len(self.lines) >= CHUNK_BYTES:
            await self._send()

    async def _send(self) -> None:
        piece = Lines("autoruns", len(self.evidence) + 1, bytes(self.lines))
        self.lines.clear()
        self.evidence.append(await self.host.evidence.send(piece))

    def _inline(self) -> tuple[Autorun, ...]:
        return told(self.first, most=INLINE_BYTES)

    def result(self) -> AutorunsListed:
        """What was found."""
        inline, total = self._inline(), self.counts.total()
        return AutorunsListed(
            total=total,
            autoruns=inline,
            cut=len(inline) < total,
            evidence=tuple(self.evidence),
            complete=self.complete,
            by_place=tuple(PlaceCount(place=one, count=self.counts[one]) for one in Place if self.counts[one]),
            unread_total=self.unread_total,
            unread=told(self.unread, most=UNREAD_BYTES),
        )


async def _plan(_host: Host, params: ListAutoruns) -> Plan:
    """Where it would look."""
    steps = tuple(Step(what="Look for what starts by itself", target=one) for one in params.place or tuple(Place))
    return Plan(changes=False, steps=steps)


@action(
    "list_autoruns",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=minutes(60),
    plan=_plan,
    examples=(
        "web-01 --wait",
        "web-01 --unpackaged --wait",
        "web-01 --place cron --place systemd-timer --match /tmp --wait",
        "web-01 --place ssh-key --user root --wait",
    ),
)
async def list_autoruns(host: Host, params: ListAutoruns) -> AutorunsListed:
    """List what starts by itself: units, timers, cron, shells, SSH keys, sudo rules, modules, and the rest.

    Each with its file, hash, owner, package, whether it differs from what the package brought, and notes on what
    deserves a look. The id of each is what `disable-autorun` takes. If there are too many for an answer, all of them
    come as evidence, as lines of JSON, in pieces of about 8 MiB.
    """
    listing = _Listing(host, params)
    await listing.make()
    return listing.result()
