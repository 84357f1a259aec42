"""Tasks as the agent knows them: what is to be done, how far it got, how it ended; and their lines in the journal.

A task that was *accepted* has been promised, one that was *begun* may have changed something, and one that is
*finished* has its outcome and is remembered, so that a second delivery of it changes nothing.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic_core import to_json

from stanch.agent.clock import AgentClock
from stanch.agent.effects import TaskEffects
from stanch.agent.journal import Journal
from stanch.agent.spool import Spool, Spooled
from stanch.core.envelope import OrderBody
from stanch.core.errors import ErrorBody, Invalid, StanchError
from stanch.core.frames import ProgressFrame
from stanch.core.host import Record
from stanch.core.model import LooseModel, Model
from stanch.core.task import State
from stanch.core.types import Id

MAX_RECORD_BYTES = 8 * 1_048_576
"""A process tree of 50,000 fits."""

MAX_KEPT_RESULT_BYTES = 65_536
"""A larger result is kept only until the server has acknowledged it."""

KEPT_TASKS = 50_000
KEPT_SECONDS = 30 * 86_400
FORGOTTEN = "forgotten_iat"
"""Entry: an order signed no later than this might be one that was forgotten, and is refused."""

PROGRESS_EVERY = 0.1
"""Seconds between two progress frames of one task."""


class Phase(StrEnum):
    """How far a task is."""

    ACCEPTED = "accepted"
    BEGUN = "begun"
    FINISHED = "finished"


class Task(LooseModel):
    """What is to be done: an order for this endpoint, or the agent's own."""

    order: OrderBody
    """The order."""
    iat: int = 0
    """When it was signed."""
    exp: int | None = None
    """Until when it may begin."""
    own: bool = False
    """Made here, so that the server gets a notice instead of a report."""
    lifts: str | None = None
    """The effect whose deadline it answers."""

    @property
    def id(self) -> Id:
        """Its identity."""
        return self.order.task


class Outcome(LooseModel):
    """How a task ended."""

    state: State
    """A final state."""
    result: Mapping[str, Any] | None = None
    """What the action answered."""
    error: ErrorBody | None = None
    """Why not."""

    @classmethod
    def of(cls, state: State, error: StanchError, *, result: Mapping[str, Any] | None = None) -> "Outcome":
        """An end with an error."""
        return cls(state=state, error=error.body(), result=result)

    def beside(self, partial: Mapping[str, Any] | None, *, most: int) -> "Outcome":
        """A bad end that has no result, with what was found until then; without it if that has more bytes."""
        ended_badly = self.state in {State.FAILED, State.CANCELLED, State.UNKNOWN} and self.result is None
        if partial is None or not ended_badly or len(to_json(partial)) > most:
            return self
        return self.model_copy(update={"result": partial})

    def shortened(self) -> "Outcome":
        """What is remembered after the server has it: a large result is not."""
        size = 0 if self.result is None else len(json.dumps(self.result))
        return self if size <= MAX_KEPT_RESULT_BYTES else self.model_copy(update={"result": None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A task with its lines in the journal."""

    task: Task
    phase: Phase
    attempts: int = 0
    """How often it was begun."""
    cancelled: bool = False
    """Somebody asked to stop it."""
    record: Record | None = None
    """What its action wrote down last."""
    outcome: Outcome | None = None
    """How it ended."""


class Ledger:
    """The tasks in the journal."""

    def __init__(self, journal: Journal, clock: AgentClock, spool: Spool) -> None:
        self._journal = journal
        self._clock = clock
        self._spool = spool

    async def find(self, task: Id) -> Known | None:
        """What is known of a task, or None."""
        return await self._journal.read(lambda db: _find(db, task))

    async def unfinished(self) -> list[Known]:
        """Every task that has no end, in the order in which they came."""
        query = f"SELECT {_COLUMNS} FROM tasks WHERE phase <> 'finished' ORDER BY number"  # noqa: S608 - constants
        return await self._journal.read(lambda db: [_known(row) for row in db.execute(query)])

    async def accept(self, task: Task, phase: Phase) -> None:
        """A new task is on the disk when this returns; BEGUN if it begins at once."""
        await self._journal.write(f"task {phase}", lambda db: self._insert(db, task, phase))

    async def begin(self, task: Id) -> None:
        """From now on it may have changed something."""
        now = self._clock.stamp().timestamp()
        query = "UPDATE tasks SET phase = 'begun', attempts = attempts + 1, begun_at = ? WHERE id = ?"
        await self._journal.write("task begun", lambda db: _run(db, query, now, task))

    async def record(self, task: Id, record: Record) -> None:
        """What the action is about to change; Invalid if it is no JSON object, or too large."""
        text = _record_text(record)
        query = "UPDATE tasks SET record = ? WHERE id = ?"
        await self._journal.write("task record", lambda db: _run(db, query, text, task))

    async def cancel(self, task: Id) -> None:
        """Somebody asked to stop it: a restart must not run it again."""
        query = "UPDATE tasks SET cancelled = 1 WHERE id = ?"
        await self._journal.write("task cancelled", lambda db: _run(db, query, task))

    async def finish(self, task: Task, outcome: Outcome, frame: Spooled | None) -> None:
        """The end of a task, known before or not, and what the server is told of it, in one transaction."""

        def unit(db: sqlite3.Connection) -> None:
            self._insert(db, task, Phase.ACCEPTED)
            self._finish(db, task.id, outcome)
            if frame is not None:
                self._spool.insert(db, frame)

        await self._journal.write("task finished", unit)
        self._spool.changed.set()

    async def forgive(self) -> None:
        """A clean stop interrupts tasks through no fault of theirs: their attempts count anew."""
        await self._journal.write("clean stop", lambda db: _run(db, "UPDATE tasks SET attempts = 0"))

    async def prune(self) -> None:
        """Forget finished tasks beyond the newest KEPT_TASKS, and those over 30 days old that cannot come again."""
        now = self._clock.stamp().timestamp()
        newest = await self._journal.read(lambda db: _newest_replayable(db, now))
        if newest is not None and not self.is_forgotten(newest):
            # In the same transaction: what is no longer remembered is refused by its age.
            self._journal.stage(FORGOTTEN, newest)
        await self._journal.write("tasks pruned", lambda db: _prune(db, now))

    def is_forgotten(self, iat: int) -> bool:
        """May an order signed then be one that was done and forgotten?"""
        newest: int = self._journal.get(FORGOTTEN) or -1
        return iat <= newest

    def _insert(self, db: sqlite3.Connection, task: Task, phase: Phase) -> None:
        begun = phase is Phase.BEGUN
        at = self._clock.stamp().timestamp() if begun else None
        db.execute(
            """INSERT INTO tasks (id, task, iat, exp, phase, attempts, begun_at) VALUES (?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO NOTHING""",
            (task.id, task.model_dump_json(exclude_none=True), task.iat, task.exp, phase, int(begun), at),
        )

    def _finish(self, db: sqlite3.Connection, task: Id, outcome: Outcome) -> None:
        # Parameters and record may hold secrets, and are needed no more.
        query = """UPDATE tasks SET phase = 'finished', outcome = ?, finished_at = ?, record = NULL,
            task = json_set(task, '$.order.params', json('{}')) WHERE id = ?"""
        text = outcome.shortened().model_dump_json(exclude_none=True)
        _run(db, query, text, self._clock.stamp().timestamp(), task)


_COLUMNS = "task, phase, attempts, cancelled, record, outcome"
_OVER = "SELECT number FROM tasks WHERE phase = 'finished' ORDER BY number DESC LIMIT -1 OFFSET ?"


def _run(db: sqlite3.Connection, query: str, *values: object) -> None:
    db.execute(query, values)


def _find(db: sqlite3.Connection, task: Id) -> Known | None:
    query = f"SELECT {_COLUMNS} FROM tasks WHERE id = ?"  # noqa: S608 - constants
    row = db.execute(query, (task,)).fetchone()
    return None if row is None else _known(row)


def _known(row: tuple[Any, ...]) -> Known:
    task, phase, attempts, cancelled, record, outcome = row
    return Known(
        task=Task.model_validate_json(task),
        phase=Phase(phase),
        attempts=attempts,
        cancelled=bool(cancelled),
        record=None if record is None else json.loads(record),
        outcome=None if outcome is None else Outcome.model_validate_json(outcome),
    )


def _newest_replayable(db: sqlite3.Connection, now: float) -> int | None:
    query = f"SELECT max(iat) FROM tasks WHERE number IN ({_OVER}) AND (exp IS NULL OR exp >= ?)"  # noqa: S608 - constants
    newest: int | None = db.execute(query, (KEPT_TASKS, now)).fetchone()[0]
    return newest


def _prune(db: sqlite3.Connection, now: float) -> None:
    _run(db, f"DELETE FROM tasks WHERE number IN ({_OVER})", KEPT_TASKS)  # noqa: S608 - constants
    _run(db, "DELETE FROM tasks WHERE phase = 'finished' AND finished_at < ? AND exp < ?", now - KEPT_SECONDS, now)


def _record_text(record: Record) -> str:
    try:
        text = json.dumps(dict(record), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Invalid("What an action records must be a JSON object", got=error) from None
    if len(text) > MAX_RECORD_BYTES:
        raise Invalid("The record of an action is too large", got=len(text), expected=MAX_RECORD_BYTES)
    return text


# --- in the hands of an action ---------------------------------------------------------------------------------------


class TaskJournal:
    """One task's lines in the journal: `core.host.Journal`."""

    def __init__(self, ledger: Ledger, task: Id, earlier: Record | None, *, partial: Record | None = None) -> None:
        self._ledger = ledger
        self._task = task
        self._earlier = earlier
        self.latest = earlier
        """What was written down last, by whichever run."""
        self.partial = partial
        """What the action has found so far, in the form of its result."""

    async def record(self, record: Record) -> None:
        """Write down what is about to be changed; returns when it is on the disk."""
        await self._ledger.record(self._task, record)
        self.latest = json.loads(_record_text(record))

    def reopened(self) -> "TaskJournal":
        """As the next run sees it: what was written down last is its record."""
        return TaskJournal(self._ledger, self._task, self.latest, partial=self.partial)

    def keep(self, partial: Model) -> None:
        """Should it fail, tell this as its result beside the error."""
        self.partial = partial.model_dump(mode="json")

    def recorded(self) -> Record | None:
        """What an earlier run wrote down; what this run writes does not show here."""
        return self._earlier


class TaskProgress:
    """Tells how far one task is, ten times a second at most: `core.host.Progress`."""

    def __init__(self, task: Id, send: Callable[[ProgressFrame], None], seconds: Callable[[], float]) -> None:
        self._task = task
        self._send = send
        self._seconds = seconds
        self._told: tuple[float, str, str] | None = None

    def __call__(self, done: int, total: int | None, unit: str, text: str = "", *, paused: str = "") -> None:
        """`done` of `total` `unit`s; a line of text; why it waits, if it does."""
        now, complete, said = self._seconds(), done == total, (text, paused)
        if self._told and now - self._told[0] < PROGRESS_EVERY and said == self._told[1:] and not complete:
            return
        self._told = (now, *said)
        of = None if total is None else max(0, total)
        self._send(
            ProgressFrame(
                task=self._task, done=max(0, done), total=of, unit=unit[:40], text=text[:200], paused=paused[:200]
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What belongs to one task of the `Host` that its action is handed; whoever builds the host adds the machine."""

    task: Id
    order: OrderBody
    journal: TaskJournal
    effects: TaskEffects
    progress: TaskProgress
    own: bool = False
    """Made on this machine itself: the owner's limits do not bind it."""
