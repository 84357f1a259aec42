"""Keeping evidence: verified, deleted with a tombstone, expired; a crash in the middle is made good."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from stanch.core.errors import Conflict, Denied, Invalid, NotFound, TooManyRequests
from stanch.core.frames import EvidenceFinish, EvidenceStart, Report
from stanch.core.policy import Role
from stanch.core.rest import OrderCommon
from stanch.core.rest_evidence import EvidenceVerdict, EvidenceView
from stanch.core.task import State
from stanch.server import evidence_keeping as module
from stanch.server.evidence import Evidence
from stanch.server.evidence_keeping import EvidenceKeeping
from stanch.server.store.tables import audit, tasks
from stanch.server.store.tables import evidence as table
from tests.fakes.custody import custody
from tests.fakes.server_parts import Parts, principal
from tests.fakes.waiting import eventually

ME = "end_web-01"
DATA = bytes(range(250)) * 10
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where evidence is."""
    (tmp_path / "evidence").mkdir()
    return tmp_path / "evidence"


@pytest.fixture
def evidence(parts: Parts, folder: Path) -> Evidence:
    """An empty store."""
    return Evidence(folder=folder, database=parts.database, custody=custody(), now=parts.clock)


@pytest.fixture
def keeping(parts: Parts, folder: Path, evidence: Evidence) -> EvidenceKeeping:
    """What keeps it, for thirty days."""
    return EvidenceKeeping(
        folder=folder, evidence=evidence, database=parts.database, now=parts.clock, lasts=timedelta(days=30)
    )


@pytest.fixture
async def task(parts: Parts) -> str:
    """A task that runs on web-01."""
    await parts.add_endpoints("web-01")
    order = await parts.orders.submit(principal(), "list_processes", {}, OrderCommon(endpoints=("web-01",)))
    send = update(tasks).values(state=State.SENT)
    await parts.database.write(lambda connection: connection.execute(send))
    await report(parts, order.tasks[0].id, State.RUNNING, 1)
    return order.tasks[0].id


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep follows on the other."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0)


async def report(parts: Parts, task: str, state: State, seq: int) -> None:
    await parts.orders.report(ME, [Report(seq=seq, task=task, state=state, at=1)])


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def taken(evidence: Evidence, task: str, *, name: str = "/x", finish: bool = True) -> str:
    """Evidence of the task, one part of it here."""
    request = EvidenceStart(task=task, name=name, size=len(DATA))
    number = (await evidence.start(ME, request)).evidence
    await evidence.put_part(ME, number, 0, sha256=DIGEST, chunks=chunks(DATA))
    if finish:
        await evidence.finish(ME, number, EvidenceFinish(sha256=DIGEST, size=len(DATA)))
    return number


async def entries(parts: Parts, what: str) -> list[tuple[str, str, dict]]:
    """Who did this to what, in the audit."""
    query = select(audit.c.who, audit.c.subject, audit.c.detail).where(audit.c.what == what).order_by(audit.c.n)
    return [tuple(row) for row in await parts.database.read(lambda connection: connection.execute(query).all())]


async def gone(parts: Parts, number: str) -> bool:
    """Is it noted that its bytes are no more?"""
    query = select(table.c.bytes_gone).where(table.c.id == number)
    return bool(await parts.database.read(lambda connection: connection.execute(query).scalar()))


def damage(folder: Path, number: str) -> None:
    """Change a byte of its part on the disk."""
    [part] = [path for path in (folder / number).iterdir() if path.is_file()]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))


# --- verified --------------------------------------------------------------------------------------------------------


async def test_what_is_whole_is_said_to_be(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str
) -> None:
    """The verdict, the moment in the list, and an entry of the audit."""
    number = await taken(evidence, task)
    verdict = await keeping.verify(principal(), number, address="::1")
    assert (verdict.intact, verdict.found, verdict.problem) == (True, DIGEST, None)
    view = await evidence.get(number)
    assert (view.verified, view.damage) == (parts.clock.now, None)
    [(who, subject, detail)] = await entries(parts, "verify")
    assert (who, subject, detail["intact"], detail["address"]) == ("ada", number, True, "::1")


async def test_damage_is_found_and_kept_in_mind(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """One bit on the disk is enough; the verdict says no, and the list too."""
    number = await taken(evidence, task)
    damage(folder, number)
    verdict = await keeping.verify(principal(), number, address="")
    assert not verdict.intact
    assert verdict.problem
    assert (await evidence.get(number)).damage == verdict.problem
    assert [detail["intact"] for _, _, detail in await entries(parts, "verify")] == [False]


async def test_a_missing_part_is_damage_too(
    keeping: EvidenceKeeping, evidence: Evidence, task: str, folder: Path
) -> None:
    """What cannot be read is not whole."""
    number = await taken(evidence, task)
    for path in (folder / number).iterdir():
        path.unlink()
    verdict = await keeping.verify(principal(), number, address="")
    assert (verdict.intact, verdict.found) == (False, None)


async def test_who_may_not_see_it_may_not_verify_it(keeping: EvidenceKeeping, evidence: Evidence, task: str) -> None:
    """Labels decide; what is not there, or not complete, is told as ever."""
    number = await taken(evidence, task, finish=False)
    limited = principal(Role.RESPONDER, labels=("env=test",))
    with pytest.raises(Denied):
        await keeping.verify(limited, number, address="")
    with pytest.raises(Conflict):
        await keeping.verify(principal(), number, address="")
    with pytest.raises(NotFound):
        await keeping.verify(principal(), "evd_none", address="")


async def test_few_are_verified_at_once(
    keeping: EvidenceKeeping, evidence: Evidence, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs the server a disk and a processor."""
    number = await taken(evidence, task)
    monkeypatch.setattr(module, "MAX_VERIFYING", 0)
    with pytest.raises(TooManyRequests):
        await keeping.verify(principal(), number, address="")


async def test_what_is_deleted_while_it_is_verified_is_not_called_damaged(
    keeping: EvidenceKeeping, evidence: Evidence, task: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone, and its tombstone says nothing else."""
    number, judge = await taken(evidence, task), keeping._judge

    async def too_late(view: EvidenceView) -> EvidenceVerdict:
        await keeping.delete(principal(), number, reason="test", address="")
        return await judge(view)

    monkeypatch.setattr(keeping, "_judge", too_late)
    with pytest.raises(NotFound, match="deleted"):
        await keeping.verify(principal(), number, address="")
    assert (await evidence.get(number)).damage is None
    assert await entries(parts, "verify") == []


# --- deleted ---------------------------------------------------------------------------------------------------------


async def test_deleted_evidence_leaves_a_tombstone(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """Who, when, why and its hash; no bytes, and nothing in the list but where one asks for it."""
    number = await taken(evidence, task)
    view = await keeping.delete(principal(), number, reason="case closed", address="::1")
    assert (view.deleted, view.deleted_by, view.deleted_why) == (parts.clock.now, "ada", "case closed")
    assert view.sha256 == DIGEST
    assert not (folder / number).exists()
    assert await gone(parts, number)
    assert (await evidence.list())[0] == []
    assert [one.id for one in (await evidence.list(deleted=True))[0]] == [number]
    [(who, subject, detail)] = await entries(parts, "evidence-deleted")
    assert (who, subject, detail["sha256"], detail["reason"]) == ("ada", number, DIGEST, "case closed")
    with pytest.raises(NotFound):
        await keeping.verify(principal(), number, address="")


async def test_deleting_twice_is_deleting_once(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str
) -> None:
    """The second one learns what the first one said."""
    number = await taken(evidence, task)
    first = await keeping.delete(principal(), number, reason="one", address="")
    parts.clock.pass_(timedelta(hours=1))
    assert await keeping.delete(principal(name="bob"), number, reason="two", address="") == first
    assert len(await entries(parts, "evidence-deleted")) == 1


async def test_what_arrives_is_not_deleted(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """Only when its task is over, what never became complete may go; and then nothing more is taken for it."""
    number = await taken(evidence, task, finish=False)
    with pytest.raises(Conflict, match="still arrives"):
        await keeping.delete(principal(), number, reason="x", address="")
    assert (folder / number).exists()
    await report(parts, task, State.FAILED, 2)
    assert (await keeping.delete(principal(), number, reason="x", address="")).deleted is not None
    assert not (folder / number).exists()


async def test_a_task_that_goes_on_learns_that_its_evidence_is_complete(
    keeping: EvidenceKeeping, evidence: Evidence, task: str, folder: Path
) -> None:
    """Deleted meanwhile or not: an agent that begins again does not send it anew, and no folder comes back."""
    number = await taken(evidence, task)
    await keeping.delete(principal(), number, reason="x", address="")
    progress = await evidence.start(ME, EvidenceStart(task=task, name="/x", size=len(DATA)))
    assert (progress.evidence, progress.complete) == (number, True)
    assert not (folder / number).exists()


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
async def test_deleting_needs_a_reason(keeping: EvidenceKeeping, evidence: Evidence, task: str, reason: str) -> None:
    """One that says something, and is not a book."""
    number = await taken(evidence, task)
    with pytest.raises(Invalid):
        await keeping.delete(principal(), number, reason=reason, address="")
    assert (await evidence.get(number)).deleted is None


async def test_labels_limit_what_is_deleted(keeping: EvidenceKeeping, evidence: Evidence, task: str) -> None:
    """Of endpoints that somebody may not act on, nothing goes."""
    number = await taken(evidence, task)
    with pytest.raises(Denied):
        await keeping.delete(principal(labels=("env=test",)), number, reason="x", address="")
    assert (await evidence.get(number)).deleted is None


# --- crashes ---------------------------------------------------------------------------------------------------------


async def test_a_crash_between_row_and_files_is_finished_by_the_sweep(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """The row says deleted, the files are there: nobody reads them any more, and the next start removes them."""
    number = await taken(evidence, task)

    def dies(_path: Path) -> None:
        raise OSError(5, "as if the machine had gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_remove_folder", dies)
        await keeping.delete(principal(), number, reason="x", address="")
    assert (folder / number).exists()
    assert not await gone(parts, number)
    await keeping.sweep()
    assert not (folder / number).exists()
    assert await gone(parts, number)


async def test_a_crash_between_the_files_and_their_note_is_finished_too(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """Files that are gone already are no error, half of them gone neither."""
    number = await taken(evidence, task)
    await keeping.delete(principal(), number, reason="x", address="")
    undone = update(table).where(table.c.id == number).values(bytes_gone=False)
    await parts.database.write(lambda connection: connection.execute(undone))
    await keeping.sweep()
    assert await gone(parts, number)


async def test_a_row_that_could_not_be_written_leaves_the_files(
    keeping: EvidenceKeeping, evidence: Evidence, task: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed before the database says so."""
    number = await taken(evidence, task)

    def fails(*_: object) -> None:
        raise RuntimeError("the disk of the database is full")

    monkeypatch.setattr(module.audit, "append", fails)
    with pytest.raises(RuntimeError):
        await keeping.delete(principal(), number, reason="x", address="")
    assert any((folder / number).iterdir())
    assert (await evidence.get(number)).deleted is None


# --- retention -------------------------------------------------------------------------------------------------------


async def test_what_is_too_old_expires(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """After so many days, not before; by the retention, in the audit."""
    number = await taken(evidence, task)
    parts.clock.pass_(timedelta(days=29))
    young = await taken(evidence, task, name="/y")
    await keeping.sweep()
    assert (folder / number).exists()
    parts.clock.pass_(timedelta(days=2))
    await keeping.sweep()
    assert not (folder / number).exists()
    assert (folder / young).exists()
    view = await evidence.get(number)
    assert (view.deleted_by, view.deleted_why) == ("retention", "kept for 30 days")
    [(who, subject, detail)] = await entries(parts, "evidence-expired")
    assert (who, subject, detail["sha256"]) == ("retention", number, DIGEST)


async def test_many_expire_batch_by_batch(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sweep takes all of them, a few in each commit."""
    monkeypatch.setattr(module, "BATCH", 2)
    for n in range(5):
        await taken(evidence, task, name=f"/{n}")
    parts.clock.pass_(timedelta(days=31))
    await keeping.sweep()
    assert (await evidence.list())[0] == []
    assert len((await evidence.list(deleted=True))[0]) == 5


async def test_what_still_arrives_does_not_expire(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str
) -> None:
    """However old it is; once its task is over, it does."""
    number = await taken(evidence, task, finish=False)
    parts.clock.pass_(timedelta(days=31))
    await keeping.sweep()
    assert (await evidence.get(number)).deleted is None
    await report(parts, task, State.FAILED, 2)
    await keeping.sweep()
    assert (await evidence.get(number)).deleted is not None


@pytest.mark.usefixtures("restless")
async def test_it_sweeps_again_and_again(
    keeping: EvidenceKeeping, evidence: Evidence, parts: Parts, task: str, folder: Path
) -> None:
    """What is young at one sweep and old at a later one goes then."""
    number = await taken(evidence, task)
    looked = parts.clock.now
    running = asyncio.ensure_future(keeping.run())
    await asyncio.sleep(0)
    parts.clock.now = looked + timedelta(days=31)
    await eventually(lambda: not (folder / number).exists())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_without_a_limit_nothing_expires(folder: Path, evidence: Evidence, parts: Parts, task: str) -> None:
    """That is how it is unless an administrator says otherwise."""
    number = await taken(evidence, task)
    parts.clock.pass_(timedelta(days=10_000))
    await EvidenceKeeping(folder=folder, evidence=evidence, database=parts.database, now=parts.clock).sweep()
    assert (await evidence.get(number)).deleted is None
