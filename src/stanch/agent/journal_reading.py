"""The journal, read by somebody else than the agent: nothing is written to it, moved or repaired.

Nothing is left beside it either, unless a killed agent left its log there: the log gets its index again, which the next
agent uses.

Whoever looks at a machine needs it while the agent runs, and where it is broken. Parameters, results and records of
tasks are not read.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from stanch.agent.clock import ENTRY, Anchor
from stanch.agent.effects import Held, load
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.journal import DAMAGE, MIGRATIONS
from stanch.core.envelope import Kind
from stanch.core.errors import NotFound, Unavailable
from stanch.core.host import Effect
from stanch.core.model import Model
from stanch.core.types import Instant, Size, Text

MOST_TASKS = 2000
"""Newest tasks that are told."""

_HINT = "Start the agent: it moves a journal that is damaged aside, and begins a new one."


class TaskLine(Model):
    """What is told of a task: never what it was ordered to touch, nor what came of it."""

    id: Text
    """Its id."""
    action: Text
    """What was ordered."""
    phase: Text
    """How far it is: accepted, begun or finished."""
    attempts: Annotated[int, Field(ge=0)]
    """How often it was begun."""
    state: Text | None
    """How it ended; null if it has not."""
    error: Text | None
    """Code of its error; null for none."""
    begun: Instant | None
    """When it was begun last."""
    finished: Instant | None
    """When it ended."""


class SpoolLine(Model):
    """What waits for the server, of one rank."""

    rank: int
    """0 is sent first."""
    entries: Annotated[int, Field(ge=0)]
    """How many."""
    size: Size
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journalled:
    """What a journal says."""

    entries: Mapping[str, Any]
    effects: Mapping[str, Held]
    unread: tuple[str, ...]
    """Names of effects that cannot be read by this version, and are in force all the same."""
    tasks: tuple[TaskLine, ...]
    """Those without an end, then the others; the newest of each first."""
    spool: tuple[SpoolLine, ...]

    @property
    def damage(self) -> str | None:
        """Why an earlier journal was moved aside; None if that was told, or never happened."""
        said = self.entries.get(DAMAGE)
        return None if said is None else str(said)

    @property
    def evidence_key(self) -> str:
        """To which evidence is encrypted; empty if the server never told."""
        body = self.entries.get(Kind.ADDRESSES)
        key = body.get("evidence_key") if isinstance(body, dict) else None
        return key if isinstance(key, str) else ""

    @property
    def time(self) -> datetime | None:
        """The agent's time now; None before the first signed envelope."""
        try:
            anchor = Anchor.model_validate(self.entries.get(ENTRY))
        except ValidationError:
            return None
        since = anchor.boot_seconds if anchor.boot_id == boot_id() else 0.0
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(anchor.time + max(0.0, boot_seconds() - since), UTC)
        return None


def read_journal(path: Path) -> Journalled:
    """All of it; NotFound if there is none, Unavailable if it cannot be read."""
    if not path.is_file():
        raise NotFound("There is no journal", got=f"no file {path}", hint="The agent makes it when it first runs.")
    try:
        with closing(_opened(path)) as db:
            return _read(db)
    except (sqlite3.Error, ValueError, TypeError, OSError, OverflowError, RecursionError) as error:
        raise Unavailable("The agent's journal cannot be read", got=error, hint=_HINT) from error


def _opened(path: Path) -> sqlite3.Connection:
    # Without its log nobody has it open; `ro` would leave a new log and an index behind, belonging to nobody.
    way = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, timeout=5)


def _read(db: sqlite3.Connection) -> Journalled:
    db.execute("PRAGMA trusted_schema = OFF")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if not 1 <= version <= len(MIGRATIONS):
        raise ValueError(f"schema {version}, and this version knows 1 to {len(MIGRATIONS)}")
    unread: list[str] = []

    def instead(name: str, _error: ValueError) -> Effect | None:
        unread.append(name)
        return None

    return Journalled(
        entries={key: json.loads(value) for key, value in db.execute("SELECT key, value FROM entries")},
        effects=load(db, boot_id(), instead=instead),
        unread=tuple(unread),
        tasks=tuple(_tasks(db)),
        spool=tuple(
            SpoolLine(rank=rank, entries=count, size=Size(size))
            for rank, count, size in db.execute("SELECT rank, count(*), sum(size) FROM spool GROUP BY rank")
        ),
    )


def _tasks(db: sqlite3.Connection) -> Iterator[TaskLine]:
    query = (
        "SELECT id, json_extract(task, '$.order.action'), phase, attempts, json_extract(outcome, '$.state'), "
        "json_extract(outcome, '$.error.code'), begun_at, finished_at FROM tasks "
        "ORDER BY phase = 'finished', number DESC LIMIT ?"
    )
    for id_, action, phase, attempts, state, error, begun, finished in db.execute(query, (MOST_TASKS,)):
        yield TaskLine(
            id=id_,
            action=str(action),
            phase=phase,
            attempts=attempts,
            state=state,
            error=error,
            begun=_time(begun),
            finished=_time(finished),
        )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
