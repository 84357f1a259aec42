"""Terminals on a real database and disk: who may join, when they end, and what becomes of the recordings."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from stanch.core.errors import Conflict, Denied, NotFound, TooManyRequests
from stanch.core.frames import EvidenceStart
from stanch.core.policy import Role
from stanch.core.rest import OrderCommon
from stanch.core.task import State
from stanch.core.terminal import Closed
from stanch.core.terminal import Why as Reason
from stanch.core.terminal_wire import Gone, HangUp, Over
from stanch.server import evidence as evidence_module
from stanch.server import terminals as module
from stanch.server.evidence import RECORDING as NAME
from stanch.server.evidence import Evidence
from stanch.server.store.tables import audit, tasks
from stanch.server.terminals import Terminals
from tests.fakes.custody import custody
from tests.fakes.server_parts import Parts, principal

ME, OTHER = "end_web-01", "end_web-02"
CUSTODY = custody()
OVER = Over(closed=Closed(why=Reason.EXIT, code=0, pid=4711, sent=0, received=0))


class Now:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def evidence(parts: Parts, tmp_path: Path) -> Evidence:
    (tmp_path / "evidence").mkdir()
    return Evidence(folder=tmp_path / "evidence", database=parts.database, custody=CUSTODY, now=parts.clock)


@pytest.fixture
def terminals(parts: Parts, tmp_path: Path, evidence: Evidence, now: Now) -> Terminals:
    """No terminal yet."""
    return Terminals(
        folder=tmp_path / "recordings",
        registry=parts.registry,
        database=parts.database,
        evidence=evidence,
        now=parts.clock,
        seconds=now,
    )


@pytest.fixture
async def task(parts: Parts) -> str:
    """A terminal that ada has ordered at web-01, and that runs."""
    await parts.add_endpoints("web-01", "web-02")
    return await ordered(parts)


async def ordered(parts: Parts, action: str = "shell", state: State = State.RUNNING, **common: bool) -> str:
    order = await parts.orders.submit(principal(), action, {}, OrderCommon(endpoints=("web-01",), **common))
    await move(parts, order.tasks[0].id, state)
    return order.tasks[0].id


async def move(parts: Parts, task: str, state: State) -> None:
    change = update(tasks).where(tasks.c.id == task).values(state=state)
    await parts.database.write(lambda connection: connection.execute(change))


async def look(terminals: Terminals, *, until: int = 3) -> None:
    """Let the terminals be looked at some times, as the server does each second."""
    for _ in range(until):
        for session in list(terminals._sessions.values()):
            await terminals._look(session)


async def recorded(evidence: Evidence, task: str) -> bytes:
    """The recording, as it is kept."""
    (view,), _ = await evidence.list(task=task)
    assert (view.name, view.complete) == (NAME, True)
    return b"".join([block async for block in await evidence.read(view, start=0, length=view.size)])


async def audited(parts: Parts, what: str) -> list[dict[str, object]]:
    query = select(audit.c.detail).where(audit.c.what == what)
    return await parts.database.read(lambda connection: list(connection.execute(query).scalars()))


# --- who joins -------------------------------------------------------------------------------------------------------


async def test_both_meet_at_one_terminal(terminals: Terminals, task: str) -> None:
    """Whoever comes first, the other one comes to the same."""
    assert await terminals.for_agent(ME, task) is await terminals.for_person(principal(), task)


async def test_another_endpoint_has_no_such_terminal(terminals: Terminals, task: str) -> None:
    """An endpoint cannot listen to another's terminal, nor learn that there is one."""
    with pytest.raises(NotFound):
        await terminals.for_agent(OTHER, task)


async def test_only_who_ordered_it_may_join(terminals: Terminals, task: str) -> None:
    """Another administrator may not look over somebody's shoulder, or type."""
    with pytest.raises(Denied):
        await terminals.for_person(principal(name="eve"), task)


async def test_who_lost_the_right_may_not_join(terminals: Terminals, task: str) -> None:
    """Rights are asked again at each joining."""
    with pytest.raises(Denied):
        await terminals.for_person(principal(Role.RESPONDER), task)


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.REFUSED, State.CANCELLED, State.EXPIRED])
async def test_a_task_that_is_over_has_no_terminal(terminals: Terminals, parts: Parts, task: str, state: State) -> None:
    """Neither side can join one that has ended."""
    await move(parts, task, state)
    with pytest.raises(Conflict):
        await terminals.for_agent(ME, task)
    with pytest.raises(Conflict):
        await terminals.for_person(principal(), task)


@pytest.mark.parametrize(("action", "common"), [("list_processes", {}), ("shell", {"dry_run": True})])
async def test_a_task_without_a_terminal(
    terminals: Terminals, parts: Parts, task: str, action: str, common: dict[str, bool]
) -> None:
    """A task of another kind, or a dry run, has none."""
    assert task
    other = await ordered(parts, action, **common)
    with pytest.raises(NotFound):
        await terminals.for_agent(ME, other)


async def test_there_are_not_too_many(
    terminals: Terminals, parts: Parts, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than the server bears is refused, and those that are open stay."""
    monkeypatch.setattr(module, "MAX_SESSIONS", 1)
    first = await terminals.for_agent(ME, task)
    with pytest.raises(TooManyRequests):
        await terminals.for_agent(ME, await ordered(parts))
    assert await terminals.for_agent(ME, task) is first


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_the_recording_becomes_evidence(
    terminals: Terminals, parts: Parts, evidence: Evidence, task: str, tmp_path: Path
) -> None:
    """Sealed, complete, audited; and the file is gone only then."""
    session = await terminals.for_agent(ME, task)
    session.recording.output(b"secret output")
    session.end(OVER)
    await look(terminals)
    assert b"secret output" in await recorded(evidence, task)
    (entry,) = await audited(parts, "terminal-recorded")
    assert (entry["endpoint"], entry["closed"]) == (ME, "exit")
    assert list((tmp_path / "recordings").iterdir()) == []
    assert not [
        path for path in (tmp_path / "evidence").rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ]


async def test_who_comes_and_goes_is_noted(terminals: Terminals, parts: Parts, evidence: Evidence, task: str) -> None:
    """In the audit, and in the recording."""
    session = await terminals.for_person(principal(), task)
    await terminals.note(session, "joined", "ada")
    session.end(OVER)
    await look(terminals)
    assert await audited(parts, "terminal-joined") == [{"endpoint": ME}]
    assert b'"m","ada joined"' in await recorded(evidence, task)


async def test_a_terminal_that_was_never_opened(terminals: Terminals, parts: Parts, task: str) -> None:
    """A person who waits for an endpoint that refuses is told what became of the task."""
    session = await terminals.for_person(principal(), task)
    await look(terminals)
    assert not session.over
    await move(parts, task, State.REFUSED)
    await look(terminals)
    assert isinstance(session.last, Gone)
    assert "refused" in str(session.last.error.got)


async def test_an_agent_that_stays_away(terminals: Terminals, task: str, now: Now) -> None:
    """The terminal is lost when its agent does not come back in time, and not before."""
    session = await terminals.for_agent(ME, task)
    session.agent.ever, session.agent.since = True, 0.0
    now.seconds = module.AGENT_AWAY
    await look(terminals)
    assert not session.over
    now.seconds += 1
    await look(terminals)
    assert isinstance(session.last, Gone)


@pytest.mark.parametrize(("came", "limit"), [("never", module.NOBODY_CAME), ("once", module.PERSON_AWAY)])
async def test_a_person_who_stays_away(terminals: Terminals, task: str, now: Now, came: str, limit: float) -> None:
    """The agent is told to hang up, once, when nobody sits at the terminal for too long."""
    session = await terminals.for_agent(ME, task)
    session.agent.there = session.agent.ever = True
    session.person.ever = came == "once"
    now.seconds = limit
    await look(terminals)
    assert not session.agent.words
    now.seconds += 1
    await look(terminals)
    assert list(session.agent.words) == [HangUp()]


async def test_one_that_is_over_is_forgotten(terminals: Terminals, task: str, now: Now) -> None:
    """After a while, in which the person could still learn how it ended."""
    session = await terminals.for_agent(ME, task)
    session.end(OVER)
    await look(terminals)
    assert await terminals.for_agent(ME, task) is session
    now.seconds = module.TOLD + 1
    await look(terminals)
    with pytest.raises(Conflict):
        await terminals.for_agent(ME, task)


# --- start and stop --------------------------------------------------------------------------------------------------


async def test_a_crash_keeps_what_was_recorded(
    terminals: Terminals, parts: Parts, evidence: Evidence, task: str, tmp_path: Path
) -> None:
    """The next start takes the recording in, torn line aside, and the terminal cannot be gone on with."""
    session = await terminals.for_agent(ME, task)
    session.recording.output(b"before the crash")
    with session.recording.path.open("a") as file:
        file.write('[1.0,"o","to')
    again = Terminals(
        folder=tmp_path / "recordings",
        registry=parts.registry,
        database=parts.database,
        evidence=evidence,
        now=parts.clock,
        seconds=lambda: 0.0,
    )
    assert await again.recover() == 1
    lines = (await recorded(evidence, task)).splitlines()
    assert json.loads(lines[-1])[2] == "before the crash"
    with pytest.raises(Conflict):
        await again.for_agent(ME, task)
    assert await again.recover() == 0


async def test_recovering_twice_keeps_one(terminals: Terminals, evidence: Evidence, task: str, tmp_path: Path) -> None:
    """A second crash between keeping and removing changes nothing."""
    session = await terminals.for_agent(ME, task)
    session.recording.close()
    copy = session.recording.path.read_bytes()
    await terminals.recover()
    session.recording.path.write_bytes(copy)
    await terminals.recover()
    views, _ = await evidence.list(task=task)
    assert len(views) == 1
    assert list((tmp_path / "recordings").iterdir()) == []


async def test_a_recording_of_nobody_is_left(terminals: Terminals, task: str, tmp_path: Path) -> None:
    """A database from a backup may not know its task: nothing is lost for that."""
    assert task
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "tsk_unknown.cast").write_text("{}\n")
    await terminals.recover()
    assert (tmp_path / "recordings" / "tsk_unknown.cast").exists()


async def test_stopping_ends_all_of_them(terminals: Terminals, task: str) -> None:
    """Both sides are told that the server stops."""
    session = await terminals.for_agent(ME, task)
    await terminals.close()
    assert isinstance(session.last, Gone)
    assert isinstance(session.agent.words[-1], Gone)


async def test_an_endpoint_cannot_forge_the_recording(terminals: Terminals, evidence: Evidence, task: str) -> None:
    """Nothing that it sends takes the name of the server's own, so that it can be neither replaced nor kept out."""
    with pytest.raises(Denied):
        await evidence.start(ME, EvidenceStart(task=task, name=NAME, size=3))
    session = await terminals.for_agent(ME, task)
    session.recording.output(b"true")
    session.end(OVER)
    await look(terminals)
    assert b"true" in await recorded(evidence, task)


async def test_a_full_disk_does_not_keep_the_server_from_starting(
    terminals: Terminals, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording waits for the next start, and its terminal cannot be gone on with."""
    session = await terminals.for_agent(ME, task)
    session.recording.output(b"precious")
    terminals._sessions.clear()
    monkeypatch.setattr(evidence_module, "KEEP_FREE", 2**62)
    assert await terminals.recover() == 1
    assert b"precious" in session.recording.path.read_bytes()
    with pytest.raises(Conflict):
        await terminals.for_agent(ME, task)


async def test_who_left_before_it_was_opened_opens_nothing_later(terminals: Terminals, task: str, now: Now) -> None:
    """An endpoint that comes online in the night finds nobody, and starts no shell."""
    session = await terminals.for_person(principal(), task)
    session.person.ever = True
    now.seconds = module.PERSON_AWAY + 1
    await look(terminals, until=1)
    with pytest.raises(Conflict):
        await terminals.for_agent(ME, task)


async def test_stopping_after_the_end_changes_nothing(terminals: Terminals, task: str) -> None:
    """A server that stops just after a terminal was closed keeps how it ended."""
    session = await terminals.for_agent(ME, task)
    session.end(OVER)
    await terminals.close()
    assert session.last == OVER


async def test_one_that_was_opened_and_lost_does_not_claim_otherwise(
    terminals: Terminals, parts: Parts, task: str
) -> None:
    """Whoever sat at it is not told that it was never opened."""
    session = await terminals.for_agent(ME, task)
    session.agent.ever = True
    await move(parts, task, State.UNKNOWN)
    await look(terminals)
    assert isinstance(session.last, Gone)
    assert session.last.error.message == "The terminal was lost"


async def test_that_the_endpoint_came_is_audited_once(terminals: Terminals, parts: Parts, task: str) -> None:
    """However often it comes back."""
    session = await terminals.for_agent(ME, task)
    await terminals.opened(session)
    await terminals.opened(session)
    assert await audited(parts, "terminal-opened") == [{}]
