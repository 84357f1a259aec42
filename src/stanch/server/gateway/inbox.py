"""Reports and notices of all links: committed together, acknowledged after the commit.

Each link puts what it received into one queue. One task takes whatever is waiting, commits it as one unit of work and
acknowledges it link by link; while the disk is busy, or in a rush, the next batch gathers. A full queue makes links
wait, which TCP turns into waiting agents.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import structlog

from stanch.core.errors import StanchError
from stanch.core.frames import Ack, Notice, Report
from stanch.server.fleet import Fleet
from stanch.server.gateway.agent_link import AgentLink
from stanch.server.orders import Orders

MAX_BATCH = 500
MAX_BATCH_BYTES = 16 * 1_048_576
MAX_WAITING_BYTES = 64 * 1_048_576
RUSH = 8
RUSH_SECONDS = 0.02
"""So many frames in so short a time mean that many agents answer at once: then it pays to let a batch gather."""
GATHER_SECONDS = 0.01

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A frame that must be acknowledged."""

    link: AgentLink
    frame: Report | Notice
    size: int


class Inbox:
    """The one queue between links and store."""

    def __init__(self, *, orders: Orders, fleet: Fleet) -> None:
        self._orders = orders
        self._fleet = fleet
        self._waiting: deque[Received] = deque()
        self._arrivals: deque[float] = deque(maxlen=RUSH)
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Condition()

    async def put(self, received: Received) -> None:
        """Queue it; waits while too much is waiting."""
        if self._bytes >= MAX_WAITING_BYTES:
            async with self._room:
                await self._room.wait_for(lambda: self._bytes < MAX_WAITING_BYTES)
        self._waiting.append(received)
        self._arrivals.append(asyncio.get_running_loop().time())
        self._bytes += received.size
        self._filled.set()

    async def run(self) -> None:
        """Commit and acknowledge until cancelled."""
        while True:
            await self._filled.wait()
            if self._rushing():
                await asyncio.sleep(GATHER_SECONDS)
            batch = await self._take()
            for link, ones in await self._commit(batch):
                await acknowledge(link, ones)

    def _rushing(self) -> bool:
        """Do frames come thick and fast? A single one is never kept waiting."""
        arrivals = self._arrivals
        return len(arrivals) == RUSH and arrivals[-1] - arrivals[0] < RUSH_SECONDS

    async def _take(self) -> Sequence[Received]:
        """What waits, within bounds, in the order in which it came."""
        batch: list[Received] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            one = self._waiting.popleft()
            batch.append(one)
            size += one.size
        self._bytes -= size
        if not self._waiting:
            self._filled.clear()
        async with self._room:
            self._room.notify_all()
        return batch

    async def _commit(self, batch: Sequence[Received]) -> Sequence[tuple[AgentLink, Sequence[Received]]]:
        """Everything in one unit of work; if that fails, each link by itself. What is committed, by link."""
        by_link = _by_link(batch)
        reports = [(one.link.endpoint, one.frame) for one in batch if isinstance(one.frame, Report)]
        try:
            if reports:
                await self._orders.report_many(reports)
        except Exception:
            log.exception("a batch of reports was not committed; trying each link by itself", reports=len(reports))
            return [one for one in by_link if await self._commit_alone(*one, with_reports=True)]
        return [one for one in by_link if await self._commit_alone(*one, with_reports=False)]

    async def _commit_alone(self, link: AgentLink, ones: Sequence[Received], *, with_reports: bool) -> bool:
        """One link's share; if even that fails the link is closed, and its agent keeps what it said."""
        reports = [one.frame for one in ones if isinstance(one.frame, Report)]
        notices = [one.frame for one in ones if isinstance(one.frame, Notice)]
        try:
            if reports and with_reports:
                await self._orders.report(link.endpoint, reports)
            if notices:
                await self._fleet.notice(link.endpoint, notices)
        except Exception as error:
            log.exception("what an endpoint said was not committed", endpoint=link.endpoint, error=_code(error))
            link.close()
            return False
        return True


async def acknowledge(link: AgentLink, ones: Sequence[Received]) -> None:
    """Tell the agent that these are on the disk. If it has gone away, it will say them again."""
    try:
        await link.send(Ack(seqs=tuple(one.frame.seq for one in ones)))
    except (ConnectionError, RuntimeError) as error:
        log.info("link went away before the acknowledgement", endpoint=link.endpoint, error=str(error))


def _by_link(batch: Sequence[Received]) -> list[tuple[AgentLink, list[Received]]]:
    order = sorted(batch, key=lambda one: id(one.link))
    return [(link, list(ones)) for link, ones in groupby(order, key=attrgetter("link"))]


def _code(error: Exception) -> str:
    return error.code if isinstance(error, StanchError) else type(error).__name__
