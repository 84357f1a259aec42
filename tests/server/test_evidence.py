"""Evidence on a real database and disk: resumable, verified, and each endpoint's own."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stanch.core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import EvidenceFinish, EvidenceStart, Report
from stanch.core.rest import OrderCommon
from stanch.core.task import State
from stanch.server import evidence as module
from stanch.server.evidence import Evidence
from tests.fakes.server_parts import Parts, principal

PART = 1000


@pytest.fixture
def evidence(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """An empty store, with small parts."""
    monkeypatch.setattr("stanch.server.evidence_files.PART_BYTES", PART)
    monkeypatch.setattr("stanch.server.evidence.PART_BYTES", PART)
    (tmp_path / "evidence").mkdir()
    return Evidence(folder=tmp_path / "evidence", database=parts.database, now=parts.clock)


@pytest.fixture
async def task(parts: Parts) -> str:
    """A task that was sent to end_web-01; end_web-02 is somebody else."""
    await parts.add_endpoints("web-01", "web-02")
    order = await parts.orders.submit(principal(), "list_processes", {}, OrderCommon(endpoints=("web-01",)))
    await report(parts, order.tasks[0].id, State.RUNNING)
    return order.tasks[0].id


async def report(parts: Parts, task: str, state: State) -> None:
    send = module.update(module.tasks).where(module.tasks.c.state == State.QUEUED).values(state=State.SENT)
    await parts.database.write(lambda connection: connection.execute(send))
    await parts.orders.report("end_web-01", [Report(seq=1, task=task, state=state, at=1)])


ME, OTHER = "end_web-01", "end_web-02"
DATA = bytes(range(250)) * 10


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def piece(n: int) -> bytes:
    return DATA[n * PART : (n + 1) * PART]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def beginning(task: str, **changes: object) -> EvidenceStart:
    return EvidenceStart.model_validate({"task": task, "name": "/etc/passwd", "size": len(DATA), **changes})


WHOLE = EvidenceFinish(sha256=digest(DATA), size=len(DATA))


async def send(evidence: Evidence, task: str, *numbers: int) -> str:
    """Begin, and send these parts."""
    progress = await evidence.start(ME, beginning(task))
    for n in numbers:
        await evidence.put_part(ME, progress.evidence, n, sha256=digest(piece(n)), chunks=chunks(piece(n)))
    return progress.evidence


async def read(evidence: Evidence, number: str, start: int, length: int) -> bytes:
    blocks = await evidence.read(await evidence.get(number), start=start, length=length)
    return b"".join([block async for block in blocks])


async def test_what_was_sent_can_be_read(evidence: Evidence, task: str) -> None:
    """Begin, three parts in any order, finish, read."""
    number = await send(evidence, task, 2, 0, 1)
    ref = await evidence.finish(ME, number, WHOLE)
    assert (ref.size, ref.sha256, ref.name) == (len(DATA), digest(DATA), "/etc/passwd")
    assert await read(evidence, number, 0, len(DATA)) == DATA
    assert await read(evidence, number, 990, 20) == DATA[990:1010]
    view = await evidence.get(number)
    assert (view.complete, view.received, view.task) == (True, len(DATA), task)


async def test_it_goes_on_from_the_first_missing_part(evidence: Evidence, task: str) -> None:
    """Beginning again tells what is there, and keeps its number."""
    number = await send(evidence, task, 0, 2)
    progress = await evidence.start(ME, beginning(task))
    assert progress.evidence == number
    assert [one.n for one in progress.parts] == [0, 2]
    assert not progress.complete


async def test_a_part_that_comes_twice_changes_nothing(evidence: Evidence, task: str) -> None:
    """Nor does a second finish."""
    number = await send(evidence, task, 0, 0, 1, 2, 2)
    assert (await evidence.get(number)).received == len(DATA)
    assert await evidence.finish(ME, number, WHOLE) == await evidence.finish(ME, number, WHOLE)


async def test_another_part_under_the_same_number_is_a_conflict(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """What is kept stays as it is."""
    number = await send(evidence, task, 0)
    other = b"y" * PART
    with pytest.raises(Conflict):
        await evidence.put_part(ME, number, 0, sha256=digest(other), chunks=chunks(other))
    assert len(names_in(tmp_path / "evidence" / number)) == 1


async def test_two_parts_at_once_leave_one(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """The one that lost the race in the store is removed from the disk."""
    number = await send(evidence, task)
    other = b"y" * PART

    async def overtaken() -> AsyncIterator[bytes]:
        await evidence.put_part(ME, number, 0, sha256=digest(piece(0)), chunks=chunks(piece(0)))
        yield other

    with pytest.raises(Conflict):
        await evidence.put_part(ME, number, 0, sha256=digest(other), chunks=overtaken())
    assert [path.read_bytes() for path in (tmp_path / "evidence" / number).iterdir()] == [piece(0)]


@pytest.mark.parametrize("n", [3, 1_048_575])
async def test_there_is_no_part_beyond_the_end(evidence: Evidence, task: str, n: int) -> None:
    """The announced size decides."""
    number = await send(evidence, task)
    with pytest.raises(Invalid):
        await evidence.put_part(ME, number, n, sha256=digest(b""), chunks=chunks(b""))


async def test_anothers_evidence_does_not_exist(evidence: Evidence, task: str) -> None:
    """Neither to begin, nor to write to, nor to finish."""
    number = await send(evidence, task, 0)
    with pytest.raises(NotFound):
        await evidence.start(OTHER, beginning(task))
    with pytest.raises(NotFound):
        await evidence.put_part(OTHER, number, 1, sha256=digest(piece(1)), chunks=chunks(piece(1)))
    with pytest.raises(NotFound):
        await evidence.finish(OTHER, number, WHOLE)
    with pytest.raises(NotFound):
        await evidence.start(ME, beginning("tsk_nowhere"))


async def test_a_final_task_takes_no_evidence(evidence: Evidence, parts: Parts, task: str) -> None:
    """Nobody adds to what is over."""
    await report(parts, task, State.FAILED)
    with pytest.raises(Conflict):
        await evidence.start(ME, beginning(task))


async def test_missing_parts_are_named(evidence: Evidence, task: str) -> None:
    """Finishing too early is a conflict."""
    number = await send(evidence, task, 0, 2)
    with pytest.raises(Conflict, match="part 1"):
        await evidence.finish(ME, number, WHOLE)
    with pytest.raises(Conflict, match="not complete"):
        await read(evidence, number, 0, 1)


async def test_a_whole_that_is_something_else_is_not_taken(evidence: Evidence, task: str) -> None:
    """The hash of the whole, and its size, are checked."""
    number = await send(evidence, task, 0, 1, 2)
    with pytest.raises(VerificationFailed):
        await evidence.finish(ME, number, EvidenceFinish(sha256="0" * 64, size=len(DATA)))
    with pytest.raises(Conflict):
        await evidence.finish(ME, number, EvidenceFinish(sha256=digest(DATA), size=1))
    assert not (await evidence.get(number)).complete


async def test_a_source_that_changed_its_size_begins_anew(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """Under the same number, without the old parts; unless it is complete."""
    number = await send(evidence, task, 0)
    progress = await evidence.start(ME, beginning(task, size=5))
    assert (progress.evidence, progress.parts) == (number, ())
    assert names_in(tmp_path / "evidence" / number) == []
    await evidence.put_part(ME, number, 0, sha256=digest(b"12345"), chunks=chunks(b"12345"))
    await evidence.finish(ME, number, EvidenceFinish(sha256=digest(b"12345"), size=5))
    with pytest.raises(Conflict):
        await evidence.start(ME, beginning(task, size=6))
    assert await read(evidence, number, 0, 5) == b"12345"


async def test_an_empty_file_is_evidence_too(evidence: Evidence, task: str) -> None:
    """It has no parts."""
    progress = await evidence.start(ME, beginning(task, size=0))
    await evidence.finish(ME, progress.evidence, EvidenceFinish(sha256=digest(b""), size=0))
    assert await read(evidence, progress.evidence, 0, 0) == b""


async def test_names_do_not_reach_the_disk(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """Whatever an endpoint calls it, the path is made of our own identifiers."""
    progress = await evidence.start(ME, beginning(task, name="../../../../tmp/x\0y"))
    assert names_in(tmp_path / "evidence") == [progress.evidence]


async def test_bounds(evidence: Evidence, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room on the disk, and a number for each task."""
    with pytest.raises(Unavailable, match="no room"):
        await evidence.start(ME, beginning(task, size=2**42))
    monkeypatch.setattr(module, "MAX_PER_TASK", 1)
    await evidence.start(ME, beginning(task))
    with pytest.raises(TooLarge):
        await evidence.start(ME, beginning(task, name="another"))


async def test_lists(evidence: Evidence, parts: Parts, task: str) -> None:
    """By order and by task, newest first, page by page."""
    order = (await parts.orders.task(task)).order
    numbers = [(await evidence.start(ME, beginning(task, name=name))).evidence for name in "abc"]
    everything = sorted(numbers, reverse=True)
    first, following = await evidence.list(order=order, limit=2)
    rest, end = await evidence.list(task=task, after=following, limit=2)
    assert [one.id for one in (*first, *rest)] == everything
    assert end is None
    assert await evidence.list(task="tsk_other") == ([], None)
    with pytest.raises(NotFound):
        await evidence.get("evd_nowhere")


async def test_a_full_disk_takes_no_part(evidence: Evidence, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room that was there for each of many at the start may be gone when their parts come."""
    progress = await evidence.start(ME, beginning(task))
    monkeypatch.setattr(module, "KEEP_FREE", 2**62)
    with pytest.raises(Unavailable, match="no room"):
        await evidence.put_part(ME, progress.evidence, 0, sha256=digest(piece(0)), chunks=chunks(piece(0)))


async def test_what_is_complete_is_not_hashed_again(
    evidence: Evidence, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for the end again and again must not keep the server's disk and threads busy."""
    number = await send(evidence, task, 0, 1, 2)
    first = await evidence.finish(ME, number, WHOLE)
    monkeypatch.delattr(module, "hash_files")
    assert await evidence.finish(ME, number, WHOLE) == first
    with pytest.raises(VerificationFailed):
        await evidence.finish(ME, number, EvidenceFinish(sha256="0" * 64, size=len(DATA)))


async def test_a_part_that_is_on_its_way_survives_a_second_start(evidence: Evidence, task: str) -> None:
    """An agent that begins again while its last request still arrives does not lose what that brings."""
    number = await send(evidence, task)

    async def starts_meanwhile() -> AsyncIterator[bytes]:
        yield piece(0)
        assert (await evidence.start(ME, beginning(task))).parts == ()

    await evidence.put_part(ME, number, 0, sha256=digest(piece(0)), chunks=starts_meanwhile())
    await send(evidence, task, 1, 2)
    assert (await evidence.finish(ME, number, WHOLE)).sha256 == WHOLE.sha256
