"""Hang up on people who are logged in: their processes are asked to end, then made to.

SIGHUP is what a lost line would send, so that shells save their history and editors their files; SIGTERM asks whoever
took no notice; SIGKILL ends the rest, again and again for what is started meanwhile. Whatever must not be ended is
spared, with the reason, and what would not end is told.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from stanch.core.accounts import MAX_SESSIONS, Session, SessionId
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.processes import ProcessId, Signal
from stanch.core.types import Instant, Name, Text, seconds

HANG_UP, TERMINATE = Signal.HUP, Signal.TERM
"""The two kind words, in their order."""

MAX_LEFT = 100
"""Processes that would not end, and are named."""

_ROUNDS = 10
_KILL_WITHIN = seconds(5)

Look = Callable[[], Awaitable[Sequence[ProcessId]]]


class SessionEnd(Model):
    """What became of a session that was to be ended."""

    id: SessionId
    """Which session."""

    user: Name
    """Account name."""

    terminal: Text = ""
    """Terminal, such as pts/0."""

    remote: Text = ""
    """From where, for one that came over the network."""

    since: Instant | None = None
    """When it began."""

    processes: Annotated[int, Field(ge=0, le=4_194_304)]
    """How many processes it had."""

    ended: bool
    """Has all of it ended?"""

    left: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_LEFT)] = ()
    """Its processes that have not, at most 100 of them."""

    why: Text = ""
    """Why not."""


SessionEnds = Annotated[tuple[SessionEnd, ...], Field(max_length=MAX_SESSIONS)]


@dataclass(frozen=True, slots=True)
class Left:
    """What still runs, and why, for each that was spared."""

    ones: tuple[ProcessId, ...]
    spared: dict[ProcessId, str]

    def why(self, ones: Iterable[ProcessId]) -> str:
        """In words, for some of them."""
        reasons = dict.fromkeys(self.spared.get(one, "it does not end even when it is killed") for one in ones)
        return "; ".join(reasons)[:4000]


async def hang_up(host: Host, sessions: Sequence[Session], *, grace: timedelta) -> tuple[SessionEnd, ...]:
    """End sessions, all at once; the one in which Stanch itself runs is left, with the reason."""
    doomed = [one for one in sessions if not one.own]

    async def look() -> list[ProcessId]:
        return [process for ones in await host.accounts.processes(doomed) for process in ones]

    left = await end_all(host, look, grace=grace)
    still = dict(zip(doomed, await host.accounts.processes(doomed), strict=True))
    return tuple(_ended(one, [some for some in still.get(one, ()) if some in left.ones], left) for one in sessions)


def _ended(session: Session, still: Sequence[ProcessId], left: Left) -> SessionEnd:
    return SessionEnd(
        id=session.id,
        user=session.user,
        terminal=session.terminal,
        remote=session.remote,
        since=session.since,
        processes=session.processes,
        ended=not (session.own or still),
        left=tuple(still[:MAX_LEFT]),
        why="Stanch itself runs in it" if session.own else left.why(still),
    )


async def end_all(host: Host, look: Look, *, grace: timedelta) -> Left:
    """End whatever `look` sees; it is asked again for what is started meanwhile. Half the grace for each kind word."""
    spared: dict[ProcessId, str] = {}
    for word in (HANG_UP, TERMINATE):
        ones = await _not_spared(host, look, spared)
        for one in ones:
            await host.processes.send(one, word)
        if ones:
            await host.processes.wait_gone(ones, within=grace / 2)
    for _ in range(_ROUNDS):
        ones = await _not_spared(host, look, spared)
        if not ones:
            break
        for one in ones:
            await host.processes.kill(one)
        if await host.processes.wait_gone(ones, within=_KILL_WITHIN):
            break
    return Left((*await _not_spared(host, look, spared), *spared), spared)


async def _not_spared(host: Host, look: Look, spared: dict[ProcessId, str]) -> list[ProcessId]:
    found = []
    for one in dict.fromkeys(await look()):
        why = spared.get(one) or await host.processes.why_protected(one)
        if why:
            spared[one] = why
        elif await host.processes.alive(one):
            found.append(one)
    return found


async def still_there(host: Host, ends: Iterable[SessionEnd]) -> list[str]:
    """The ids of those sessions of which something runs now, but for the one of Stanch itself."""
    there = {(one.id, one.user, one.since) for one in await host.accounts.sessions() if not one.own}
    return [one.id for one in ends if one.left or (one.id, one.user, one.since) in there]
