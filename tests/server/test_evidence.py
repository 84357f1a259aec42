"""Evidence on a real database and disk: resumable, verified, and each endpoint's own."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pyrage
import pytest
from backports import zstd
from pyrage import x25519
from sqlalchemy import insert

from stanch.core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import Encoding, EvidenceFinish, EvidenceHoles, EvidenceStart, PartRun, Report
from stanch.core.rest import OrderCommon
from stanch.core.task import State
from stanch.server import evidence as module
from stanch.server.evidence import Evidence
from stanch.server.store.tables import evidence_parts
from tests.fakes.custody import custody
from tests.fakes.server_parts import Parts, principal

PART = 1000
CUSTODY = custody()


@pytest.fixture
def evidence(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """An empty store, with small parts."""
    monkeypatch.setattr("stanch.server.evidence_files.PART_BYTES", PART)
    monkeypatch.setattr("stanch.server.evidence.PART_BYTES", PART)
    monkeypatch.setattr("stanch.server.evidence_parts.PART_BYTES", PART)
    (tmp_path / "evidence").mkdir()
    return Evidence(folder=tmp_path / "evidence", database=parts.database, custody=CUSTODY, now=parts.clock)


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
    (path,) = (tmp_path / "evidence" / number).iterdir()
    assert await CUSTODY.open(path.read_bytes()) == piece(0)


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
    """Its size is checked, and its hash where the server knows it: if there is one part, or none."""
    number = (await evidence.start(ME, beginning(task, size=5, name="small"))).evidence
    await evidence.put_part(ME, number, 0, sha256=digest(b"12345"), chunks=chunks(b"12345"))
    with pytest.raises(VerificationFailed):
        await evidence.finish(ME, number, EvidenceFinish(sha256="0" * 64, size=5))
    assert not (await evidence.get(number)).complete
    number = await send(evidence, task, 0, 1, 2)
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


async def test_what_is_complete_keeps_its_hash(evidence: Evidence, task: str) -> None:
    """Finishing it again with another one changes nothing."""
    number = await send(evidence, task, 0, 1, 2)
    first = await evidence.finish(ME, number, WHOLE)
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


# --- sealed ----------------------------------------------------------------------------------------------------------


def sealed(data: bytes, *, squeeze: bool = False) -> bytes:
    """As an agent of today would send it."""
    data = zstd.compress(data) if squeeze else data
    return pyrage.encrypt(data, [x25519.Recipient.from_str(CUSTODY.recipient)])


async def put(evidence: Evidence, number: str, n: int, body: bytes, **how: object) -> None:
    said = {"plain_sha256": digest(piece(n)), "encoding": Encoding.AGE, **how}
    await evidence.put_part(ME, number, n, sha256=digest(body), chunks=chunks(body), **said)


async def finished(evidence: Evidence, task: str, *bodies: bytes, **how: object) -> str:
    """Complete evidence, made of these bodies."""
    number = await send(evidence, task)
    for n, body in enumerate(bodies):
        await put(evidence, number, n, body, **how)
    await evidence.finish(ME, number, WHOLE)
    return number


@pytest.mark.parametrize("squeeze", [False, True])
async def test_sealed_parts_are_stored_as_they_came(
    evidence: Evidence, task: str, tmp_path: Path, *, squeeze: bool
) -> None:
    """And opened when they are read."""
    bodies = [sealed(piece(n), squeeze=squeeze) for n in range(3)]
    encoding = Encoding.ZSTD_AGE if squeeze else Encoding.AGE
    number = await finished(evidence, task, *bodies, encoding=encoding)
    files = sorted((tmp_path / "evidence" / number).iterdir())
    assert [path.read_bytes() for path in files] == bodies
    assert await read(evidence, number, 0, len(DATA)) == DATA
    assert await read(evidence, number, 990, 1020) == DATA[990:2010]
    assert (await evidence.get(number)).received == len(DATA)


async def test_what_an_old_agent_sends_is_sealed_here(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """No part lies on the disk as it is."""
    number = await send(evidence, task, 0, 1, 2)
    files = sorted((tmp_path / "evidence" / number).iterdir())
    assert [await CUSTODY.open(path.read_bytes()) for path in files] == [piece(n) for n in range(3)]
    assert not any(DATA[:50] in path.read_bytes() for path in files)
    assert len(names_in(tmp_path / "evidence" / number)) == 3


async def test_plain_parts_of_before_stay_readable(evidence: Evidence, parts: Parts, task: str, tmp_path: Path) -> None:
    """What was recorded before there was a key is plain, and still compared with its hash."""
    number = await send(evidence, task)
    for n in range(3):
        (tmp_path / "evidence" / number / f"{n:07}-{digest(piece(n))}").write_bytes(piece(n))
        old = {"evidence": number, "n": n, "size": len(piece(n)), "sha256": digest(piece(n))}
        await parts.database.write(lambda connection, row=old: connection.execute(insert(evidence_parts), row))
    await evidence.finish(ME, number, WHOLE)
    assert await read(evidence, number, 0, len(DATA)) == DATA
    (tmp_path / "evidence" / number / f"{1:07}-{digest(piece(1))}").write_bytes(b"x" * PART)
    with pytest.raises(VerificationFailed, match="Part 1"):
        await read(evidence, number, 0, len(DATA))


async def test_the_same_part_sealed_twice_is_one_part(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """Sealing differs each time: what makes it the same is its content."""
    number = await send(evidence, task)
    first, second = sealed(piece(0)), sealed(piece(0))

    async def overtaken() -> AsyncIterator[bytes]:
        await put(evidence, number, 0, first)
        yield second

    how = {"plain_sha256": digest(piece(0)), "encoding": Encoding.AGE}
    await evidence.put_part(ME, number, 0, sha256=digest(second), chunks=overtaken(), **how)
    await put(evidence, number, 0, sealed(piece(0)))
    assert [path.read_bytes() for path in (tmp_path / "evidence" / number).iterdir()] == [first]
    assert (await evidence.get(number)).received == PART


async def test_the_same_body_twice_at_once_keeps_its_file(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """An agent that sends again before its first request has ended loses nothing."""
    number, body = await send(evidence, task), sealed(piece(0))

    async def overtaken() -> AsyncIterator[bytes]:
        await put(evidence, number, 0, body)
        yield body

    how = {"plain_sha256": digest(piece(0)), "encoding": Encoding.AGE}
    await evidence.put_part(ME, number, 0, sha256=digest(body), chunks=overtaken(), **how)
    assert [path.read_bytes() for path in (tmp_path / "evidence" / number).iterdir()] == [body]


async def test_a_sealed_part_has_a_bound(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """What sealing adds, and no more; and nothing is left."""
    number = await send(evidence, task)
    with pytest.raises(TooLarge):
        await put(evidence, number, 0, b"x" * (PART + 5000))
    with pytest.raises(Invalid):
        await put(evidence, number, 0, b"")
    assert names_in(tmp_path / "evidence" / number) == []


BAD = {
    "sealed for another key": lambda: (pyrage.encrypt(piece(1), [x25519.Identity.generate().to_public()]), "age"),
    "no age file": lambda: (b"x" * 500, "age"),
    "another content": lambda: (sealed(b"y" * PART), "age"),
    "less content": lambda: (sealed(b"y"), "age"),
    "a decompression bomb": lambda: (sealed(bytes(50_000_000), squeeze=True), "zstd+age"),
    "no zstd frame": lambda: (sealed(piece(1)), "zstd+age"),
    "two zstd frames": lambda: (sealed(zstd.compress(piece(1)) * 2), "zstd+age"),
    "half a zstd frame": lambda: (sealed(zstd.compress(piece(1))[:-5]), "zstd+age"),
    "a zstd frame that wants much memory": lambda: (sealed(with_window(piece(1), 27)), "zstd+age"),
}


def with_window(data: bytes, log: int) -> bytes:
    """A frame whose header asks for a window of so many bits."""
    options = {zstd.CompressionParameter.window_log: log, zstd.CompressionParameter.content_size_flag: 0}
    frame = zstd.ZstdCompressor(options=options)
    return frame.compress(data[:500]) + frame.compress(data[500:]) + frame.flush()


@pytest.mark.parametrize("case", BAD)
async def test_what_is_not_what_it_should_be_is_found_when_it_is_read(evidence: Evidence, task: str, case: str) -> None:
    """By the hash of the part, at the latest; what lies before it can be read."""
    number = await send(evidence, task, 0, 2)
    body, encoding = BAD[case]()
    await put(evidence, number, 1, body, encoding=Encoding(encoding))
    await evidence.finish(ME, number, WHOLE)
    assert await read(evidence, number, 0, PART) == piece(0)
    with pytest.raises(VerificationFailed):
        await read(evidence, number, 0, len(DATA))


@pytest.mark.parametrize("at", [0, 50, 150, 300, 1100, -1])
async def test_a_damaged_file_is_found(evidence: Evidence, task: str, tmp_path: Path, at: int) -> None:
    """Each region of it: header, nonce, content, seal."""
    number = await finished(evidence, task, *(sealed(piece(n)) for n in range(3)))
    path = min((tmp_path / "evidence" / number).iterdir())
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(VerificationFailed):
        await read(evidence, number, 0, 10)


async def test_a_file_that_is_cut_or_gone_is_found(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """It is said which part, or that the disk does not give it."""
    number = await finished(evidence, task, *(sealed(piece(n)) for n in range(3)))
    first, second, _ = sorted((tmp_path / "evidence" / number).iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    with pytest.raises(VerificationFailed, match="Part 0"):
        await read(evidence, number, 0, 10)
    with pytest.raises(Unavailable):
        await read(evidence, number, PART, 10)


# --- holes -----------------------------------------------------------------------------------------------------------


def holes(*runs: tuple[int, int]) -> EvidenceHoles:
    return EvidenceHoles(runs=tuple(PartRun(first=first, count=count) for first, count in runs))


SPARSE = bytes(3 * PART) + b"x" * PART + bytes(3 * PART + 17)
SPARSE_WHOLE = EvidenceFinish(sha256=digest(SPARSE), size=len(SPARSE))


async def begin_sparse(evidence: Evidence, task: str) -> str:
    return (await evidence.start(ME, beginning(task, size=len(SPARSE), data=PART))).evidence


async def test_holes_are_told_and_read_as_zeros(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """They take no room, and count as received; telling them twice changes nothing."""
    number = await begin_sparse(evidence, task)
    for _ in range(2):
        await evidence.put_holes(ME, number, holes((0, 3), (4, 4)))
    with pytest.raises(Conflict, match="part 3"):
        await evidence.finish(ME, number, SPARSE_WHOLE)
    await evidence.put_part(ME, number, 3, sha256=digest(b"x" * PART), chunks=chunks(b"x" * PART))
    await evidence.finish(ME, number, SPARSE_WHOLE)
    assert await read(evidence, number, 0, len(SPARSE)) == SPARSE
    assert await read(evidence, number, 2 * PART + 5, PART) == SPARSE[2 * PART + 5 : 3 * PART + 5]
    assert (await evidence.get(number)).received == len(SPARSE)
    assert len(names_in(tmp_path / "evidence" / number)) == 1


async def test_a_file_that_is_one_hole(evidence: Evidence, task: str) -> None:
    """Has no parts at all."""
    number = (await evidence.start(ME, beginning(task, size=5 * PART + 1, data=0))).evidence
    await evidence.put_holes(ME, number, holes((0, 6)))
    await evidence.finish(ME, number, EvidenceFinish(sha256=digest(bytes(5 * PART + 1)), size=5 * PART + 1))
    assert await read(evidence, number, 0, 5 * PART + 1) == bytes(5 * PART + 1)


async def test_holes_may_be_found_differently_the_next_time(evidence: Evidence, task: str) -> None:
    """A part of zeros is the same part, whether it was sent or told."""
    number = await begin_sparse(evidence, task)
    await evidence.put_part(ME, number, 1, sha256=digest(bytes(PART)), chunks=chunks(bytes(PART)))
    await evidence.put_holes(ME, number, holes((0, 2)))
    await evidence.put_holes(ME, number, holes((0, 3), (5, 1)))
    await evidence.put_holes(ME, number, holes((4, 4)))
    await evidence.put_part(ME, number, 5, sha256=digest(bytes(PART)), chunks=chunks(bytes(PART)))
    assert (await evidence.get(number)).received == len(SPARSE) - PART


async def test_a_hole_and_data_in_one_place_is_a_conflict(evidence: Evidence, task: str) -> None:
    """Whichever came first: then the source has changed."""
    number = await begin_sparse(evidence, task)
    await evidence.put_part(ME, number, 3, sha256=digest(b"x" * PART), chunks=chunks(b"x" * PART))
    with pytest.raises(Conflict, match="Part 3"):
        await evidence.put_holes(ME, number, holes((2, 2)))
    await evidence.put_holes(ME, number, holes((0, 3)))
    with pytest.raises(Conflict, match="Another part 1"):
        await evidence.put_part(ME, number, 1, sha256=digest(b"y" * PART), chunks=chunks(b"y" * PART))
    assert (await evidence.get(number)).received == 4 * PART


@pytest.mark.parametrize("runs", [[(0, 9)], [(8, 1)], [(2, 2), (3, 1)], [(4, 1), (0, 1)]])
async def test_runs_out_of_order_are_refused(evidence: Evidence, task: str, runs: list[tuple[int, int]]) -> None:
    """Beyond the end, over each other, backwards."""
    number = await begin_sparse(evidence, task)
    with pytest.raises(Invalid):
        await evidence.put_holes(ME, number, holes(*runs))
    with pytest.raises(NotFound):
        await evidence.put_holes(OTHER, number, holes((0, 1)))


async def test_holes_have_a_bound(evidence: Evidence, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they are told."""
    monkeypatch.setattr("stanch.server.evidence_parts.MAX_RUNS", 2)
    number = await begin_sparse(evidence, task)
    await evidence.put_holes(ME, number, holes((0, 1), (2, 1)))
    with pytest.raises(TooLarge):
        await evidence.put_holes(ME, number, holes((5, 1)))


async def test_a_source_that_changed_its_size_forgets_its_holes(evidence: Evidence, task: str) -> None:
    """They are told again."""
    number = await begin_sparse(evidence, task)
    await evidence.put_holes(ME, number, holes((0, 3), (4, 4)))
    await evidence.start(ME, beginning(task, size=PART))
    assert (await evidence.get(number)).received == 0
    with pytest.raises(Conflict, match="part 0"):
        await evidence.finish(ME, number, EvidenceFinish(sha256=digest(bytes(PART)), size=PART))


async def test_a_sparse_file_needs_room_for_its_data_only(evidence: Evidence, task: str) -> None:
    """Terabytes of holes are not refused; and the agent hears what it may send."""
    progress = await evidence.start(ME, beginning(task, size=2**42, data=PART))
    assert progress.holes
    assert progress.encodings == ("age", "zstd+age")
    with pytest.raises(Unavailable, match="no room"):
        await evidence.start(ME, beginning(task, size=2**42, data=2**42))


async def test_a_crash_leaves_no_part_behind(evidence: Evidence, task: str, tmp_path: Path) -> None:
    """A part file that was never recorded is removed at the next start: the part comes again under another name."""
    number = await send(evidence, task, 0)
    folder = tmp_path / "evidence" / number
    kept = names_in(folder)
    (folder / f"0000001-{'a' * 64}").write_bytes(b"sealed")
    stranger = tmp_path / "evidence" / "evd_of_a_newer_database"
    stranger.mkdir()
    (stranger / f"0000000-{'a' * 64}").touch()
    assert await evidence.recover() == 1
    assert names_in(folder) == kept
    assert len(names_in(stranger)) == 1


async def test_a_part_that_cannot_be_recorded_leaves_no_file(
    evidence: Evidence, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a disk that is full would be filled further with each attempt."""
    number = await send(evidence, task)

    def full(*_: object) -> bool:
        raise OSError("database or disk is full")

    monkeypatch.setattr("stanch.server.evidence.record_part", full)
    with pytest.raises(OSError, match="full"):
        await evidence.put_part(ME, number, 0, sha256=digest(piece(0)), chunks=chunks(piece(0)))
    assert names_in(tmp_path / "evidence" / number) == []


async def test_a_part_on_its_way_while_it_begins_anew_is_not_lost(
    evidence: Evidence, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is on the disk, whatever the order: here the part is recorded before the folder is cleared."""
    number = await send(evidence, task, 0)
    arrived, prepare, loop = threading.Event(), module.prepare_folder, asyncio.get_running_loop()

    def later(path: Path, **how: object) -> None:
        coming = evidence.put_part(ME, number, 0, sha256=digest(piece(1)), chunks=chunks(piece(1)))
        asyncio.run_coroutine_threadsafe(coming, loop).result()
        arrived.set()
        prepare(path, **how)

    monkeypatch.setattr(module, "prepare_folder", later)
    assert (await evidence.start(ME, beginning(task, size=PART))).parts == ()
    assert arrived.is_set()
    whole = EvidenceFinish(sha256=digest(piece(1)), size=PART)
    await evidence.finish(ME, number, whole)
    assert await read(evidence, number, 0, PART) == piece(1)
    assert len(names_in(tmp_path / "evidence" / number)) == 1


# --- from this server itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 7])
async def test_a_file_of_the_servers_own_is_kept(
    evidence: Evidence, parts: Parts, task: str, tmp_path: Path, size: int
) -> None:
    """Whatever has become of its task, sealed and complete; keeping it twice is the same evidence."""
    data = (DATA * 2)[:size]
    (tmp_path / "own").write_bytes(data)
    await report(parts, task, State.FAILED)
    kept = await evidence.keep(task=task, endpoint=ME, name="own.cast", file=tmp_path / "own")
    again = await evidence.keep(task=task, endpoint=ME, name="own.cast", file=tmp_path / "own")
    assert kept == again
    assert (kept.size, kept.sha256) == (size, hashlib.sha256(data).hexdigest())
    view = await evidence.get(kept.id)
    assert b"".join([block async for block in await evidence.read(view, start=0, length=size)]) == data
