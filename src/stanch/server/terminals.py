"""Terminals: who may join one, when it is over, and what becomes of its recording.

A terminal is a task of an interactive action that runs. Its agent and the person who ordered it meet here. What was
recorded becomes evidence of the task, sealed like all evidence; a recording that a crash of the server cut short is
taken in at the next start, and the terminal itself is closed then, since nobody knows what was on the way.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, select

from stanch.core.action import Registry
from stanch.core.errors import Cancelled, Conflict, Denied, NotFound, StanchError, TooManyRequests, Unavailable
from stanch.core.policy import Principal, may
from stanch.core.task import State
from stanch.core.terminal_wire import Gone, Over
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.evidence import RECORDING, Evidence
from stanch.server.recordings import SUFFIX, Recording, mend
from stanch.server.store.database import Database
from stanch.server.store.tables import endpoints, orders, tasks
from stanch.server.store.tables import evidence as evidence_table
from stanch.server.targets import labels_of
from stanch.server.terminal_session import Session

MAX_SESSIONS = 200
LOOK_SECONDS = 1.0
AGENT_AWAY = 120.0
"""Seconds after which an agent that is gone will not come back: it has ended the shell itself by then."""
NOBODY_CAME = 120.0
"""Seconds that an agent waits for the person to come first."""
PERSON_AWAY = 300.0
"""Seconds after which a person who is gone will not come back."""
TOLD = 60.0
"""Seconds for which one can still be told how it ended."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What the store knows of a task."""

    id: str
    order: str
    endpoint: str
    action: str
    dry_run: bool
    state: State
    by: str
    recorded: bool
    revoked: bool
    """Is its endpoint?"""


class Terminals:
    """Every terminal that is open through this server."""

    def __init__(
        self,
        *,
        folder: Path,
        registry: Registry,
        database: Database,
        evidence: Evidence,
        now: Clock,
        seconds: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._database = database
        self._evidence = evidence
        self._now = now
        self._seconds = seconds
        self._sessions: dict[str, Session] = {}
        self._kept: set[str] = set()
        """Tasks whose recording is evidence by now."""
        self._opened: set[str] = set()
        """Tasks whose endpoint has come."""

    # --- who joins ---------------------------------------------------------------------------------------------------

    async def for_agent(self, endpoint: str, task: str) -> Session:
        """The terminal of a task of this endpoint; NotFound, or Conflict if the task is over or was served before."""
        known = await self._task(task)
        if known.endpoint != endpoint:
            raise NotFound("This endpoint has no such task", got=task)
        session = self._session(known)
        if isinstance(session.last, Gone) and not session.agent.ever:
            raise Conflict("Nobody waits at this terminal any more", got=session.last.error.message)
        return session

    async def for_person(self, principal: Principal, task: str) -> Session:
        """The same, for whoever ordered it, and still may; Denied otherwise."""
        known = await self._task(task)
        if known.by != principal.name:
            raise Denied("Only who ordered a terminal may join it", got=principal.name, expected=known.by)
        labels = await self._database.read(lambda connection: labels_of(connection, [known.endpoint]))
        may(principal, self._registry.find(known.action), labels)
        return self._session(known)

    def _session(self, known: _Task) -> Session:
        session = self._sessions.get(known.id)
        if session is not None:
            return session
        if known.revoked:
            raise Conflict("The endpoint was revoked", got=known.endpoint)
        if known.state.final:
            raise Conflict("The terminal is closed", got=f"task {known.id} is {known.state}")
        if known.recorded:
            raise Conflict("The terminal was cut off when the server stopped", got=known.id, hint="Order a new one.")
        if len(self._sessions) >= MAX_SESSIONS:
            raise TooManyRequests("Too many terminals are open", got=len(self._sessions), expected=MAX_SESSIONS)
        try:
            session = self._sessions[known.id] = self._begin(known)
        except FileExistsError:  # it could not become evidence yet
            raise Conflict("The terminal was cut off when the server stopped", got=known.id) from None
        return session

    def _begin(self, known: _Task) -> Session:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        recording = Recording(
            self._folder / f"{known.id}{SUFFIX}",
            columns=80,
            rows=24,
            began=self._now(),
            title=f"{known.endpoint} {known.id} {known.by}",
            seconds=self._seconds,
        )
        return Session(task=known.id, endpoint=known.endpoint, by=known.by, recording=recording, seconds=self._seconds)

    async def _task(self, task: str) -> _Task:
        known = await self._database.read(lambda connection: _read(connection, task))
        if known is None or known.dry_run or not self._is_interactive(known.action):
            raise NotFound("There is no terminal of this task", got=task[:100])
        return known

    def _is_interactive(self, action: str) -> bool:
        found = self._registry.get(action)
        return found is not None and found.interactive

    # --- beside the ports --------------------------------------------------------------------------------------------

    async def note(self, session: Session, what: str, who: str) -> None:
        """Put it into the recording and the audit that somebody came or went."""
        if not session.over:
            session.recording.note(f"{who} {what}")
        await self._audit(who=who, what=f"terminal-{what}", subject=session.task, detail={"endpoint": session.endpoint})

    async def opened(self, session: Session) -> None:
        """Put it into the audit that the endpoint is there; once, since it may come back any number of times."""
        if not session.over:
            session.recording.note("the endpoint joined")
        if session.task not in self._opened:
            self._opened.add(session.task)
            await self._audit(who=session.endpoint, what="terminal-opened", subject=session.task, detail={})

    async def run(self) -> None:
        """See to it that each terminal ends, and keep its recording."""
        while True:
            for session in list(self._sessions.values()):
                try:
                    await self._look(session)
                except (StanchError, OSError) as error:
                    log.warning("a recording is not kept yet", task=session.task, error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, session: Session) -> None:
        now, agent, person = self._seconds(), session.agent, session.person
        if not session.over:
            await self._end_if_over(session)
        if not session.over:
            if not agent.there:
                self._without_agent(session)
            elif not person.there and now - max(person.since, agent.since) > (
                PERSON_AWAY if person.ever else NOBODY_CAME
            ):
                person.since = now
                session.hang_up(f"{session.by} is away")
        if session.over and session.task not in self._kept:
            await self._keep(session.task, session.endpoint, session.recording.path, closed=_how(session))
            self._kept.add(session.task)
        if session.over and not person.there and now - person.since > TOLD:
            del self._sessions[session.task]
            self._kept.discard(session.task)
            self._opened.discard(session.task)

    async def _end_if_over(self, session: Session) -> None:
        """Its task tells whether anybody will come, or come back; an endpoint that was revoked has no say any more."""
        known = await self._task(session.task)
        if known.revoked:
            session.lose(Conflict("The endpoint was revoked", got=known.endpoint))
        elif known.state.final:
            what = "The terminal was lost" if session.agent.ever else "The terminal was not opened"
            session.lose(Conflict(what, got=f"task {known.id} is {known.state}", hint=f"Look at it: {_look_at(known)}"))

    def _without_agent(self, session: Session) -> None:
        """It has not come yet, or it is away: how long do we wait?"""
        now, agent, person = self._seconds(), session.agent, session.person
        if agent.ever and now - agent.since > AGENT_AWAY:
            session.lose(Unavailable("The endpoint is gone", got=f"for {AGENT_AWAY:g} s"))
        elif not agent.ever and person.ever and not person.there and now - person.since > PERSON_AWAY:
            session.lose(Cancelled(f"{session.by} left before the endpoint opened it"))

    async def _keep(self, task: str, endpoint: str, recording: Path, *, closed: str) -> None:
        """The recording becomes evidence, and is removed only then."""
        kept = await self._evidence.keep(task=task, endpoint=endpoint, name=RECORDING, file=recording)
        detail = {"endpoint": endpoint, "evidence": kept.id, "sha256": kept.sha256, "closed": closed}
        await self._audit(who="server", what="terminal-recorded", subject=task, detail=detail)
        await asyncio.to_thread(recording.unlink, missing_ok=True)

    async def _audit(self, *, who: str, what: str, subject: str, detail: dict[str, Any]) -> None:
        entry = audit.Entry(at=self._now(), who=who, what=what, subject=subject, detail=detail)
        await self._database.write(lambda connection: audit.append(connection, entry))

    # --- start and stop ----------------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """At start: recordings that a crash, or a stop, left become evidence; how many."""
        left = await asyncio.to_thread(lambda: sorted(self._folder.glob(f"*{SUFFIX}")))
        for path in left:
            task = path.name.removesuffix(SUFFIX)
            known = await self._database.read(partial(_read, task=task))
            if known is None:
                log.warning("a recording of no task is left alone", file=path.name)
                continue
            try:
                await asyncio.to_thread(mend, path)
                await self._keep(task, known.endpoint, path, closed="the server stopped")
            except (StanchError, OSError) as error:  # a full disk, say: the server is needed all the same
                log.warning("a recording is left for the next start", file=path.name, error=str(error))
        return len(left)

    async def close(self) -> None:
        """The server stops: end every terminal in order, and keep what was recorded."""
        stops = Unavailable("The server stops", hint="Order a new terminal when it is back.")
        for session in list(self._sessions.values()):
            session.lose(stops)


def _look_at(known: _Task) -> str:
    return f"`stanch order show {known.order}`"


def _how(session: Session) -> str:
    last = session.last
    return str(last.closed.why) if isinstance(last, Over) else f"lost: {last.error.message}" if last else "lost"


def _read(connection: Connection, task: str) -> _Task | None:
    query = (
        select(tasks.c.id, tasks.c.order_id, tasks.c.endpoint, tasks.c.state, endpoints.c.revoked)
        .add_columns(orders.c.action, orders.c.dry_run, orders.c.requested_by)
        .join(orders, orders.c.id == tasks.c.order_id)
        .join(endpoints, endpoints.c.id == tasks.c.endpoint)
        .where(tasks.c.id == task)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    mine = (evidence_table.c.task == task, evidence_table.c.name == RECORDING)
    recorded = connection.execute(select(evidence_table.c.id).where(*mine)).first() is not None
    return _Task(
        id=row.id,
        order=row.order_id,
        endpoint=row.endpoint,
        action=row.action,
        dry_run=row.dry_run,
        state=State(row.state),
        by=row.requested_by,
        recorded=recorded,
        revoked=row.revoked,
    )
