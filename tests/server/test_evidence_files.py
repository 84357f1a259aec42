"""Part files: written whole or not at all, and read back in ranges."""

import asyncio
import hashlib
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import Invalid, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import PART_BYTES, Encoding, PartInfo
from stanch.server import evidence_files
from stanch.server.custody import Custody
from stanch.server.evidence_files import (
    Incoming,
    Kept,
    inflated,
    pieces,
    prepare_folder,
    receive,
    remove_unfinished,
    size_of_part,
    stream,
)
from tests.fakes.custody import custody

CUSTODY = custody()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def in_chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def part_of(data: bytes, encoding: Encoding = Encoding.AGE, **changes: object) -> Incoming:
    """Announced with this body; what is in it does not matter here."""
    sha256 = hashlib.sha256(data).hexdigest()
    info = PartInfo.model_validate({"n": 0, "size": len(data), "sha256": sha256, **changes})
    return Incoming(info, encoding, info.sha256)


async def take(folder: Path, part: Incoming, chunks: AsyncIterator[bytes]) -> Kept:
    return await receive(folder, part, chunks, recipient=CUSTODY.recipient)


async def test_a_sealed_part_is_written_as_it_is(tmp_path: Path) -> None:
    """With its bytes, and nothing beside it."""
    data = bytes(range(256)) * 10_000
    kept = await take(tmp_path, part_of(data), in_chunks(data))
    assert (tmp_path / kept.file).read_bytes() == data
    assert names_in(tmp_path) == [kept.file]
    assert (kept.size, kept.sha256) == (len(data), hashlib.sha256(data).hexdigest())


async def test_a_plain_part_is_sealed(tmp_path: Path) -> None:
    """Its file is named by what it holds, and while it comes no name leads to its bytes."""
    data, names = bytes(range(256)) * 10_000, []

    async def watched() -> AsyncIterator[bytes]:
        async for chunk in in_chunks(data):
            names.extend(names_in(tmp_path))
            yield chunk

    kept = await take(tmp_path, part_of(data, Encoding.PLAIN), watched())
    stored = (tmp_path / kept.file).read_bytes()
    assert (kept.encoding, kept.size) == (Encoding.AGE, len(stored))
    assert kept.sha256 == hashlib.sha256(stored).hexdigest()
    assert await CUSTODY.open(stored) == data
    assert (names, names_in(tmp_path)) == ([], [kept.file])


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"size": 5}, TooLarge), ({"size": 5000}, Invalid), ({"sha256": "0" * 64}, VerificationFailed)],
)
async def test_a_wrong_part_leaves_nothing(tmp_path: Path, changes: dict, error: type[Exception]) -> None:
    """Too long, too short, or damaged on the way."""
    data = b"x" * 2000
    with pytest.raises(error):
        await take(tmp_path, part_of(data, Encoding.PLAIN, **changes), in_chunks(data))
    assert names_in(tmp_path) == []


async def test_a_cut_connection_leaves_nothing(tmp_path: Path) -> None:
    """The error of the connection goes through."""

    async def cut() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, Unavailable)):
        await take(tmp_path, part_of(b"x" * 200), cut())
    assert names_in(tmp_path) == []


async def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """As unavailable: the endpoint may try again."""
    with pytest.raises(Unavailable):
        await take(tmp_path / "missing", part_of(b"x"), in_chunks(b"x"))


async def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In these words."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evidence_files, "_write_block", full)
    with pytest.raises(Unavailable, match="disk is full"):
        await take(tmp_path, part_of(b"x"), in_chunks(b"x"))


async def test_what_is_kept_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content is synced, then the rename, then the folder."""
    done: list[str] = []
    sync, sync_folder, rename = evidence_files.os.fdatasync, evidence_files.os.fsync, Path.rename
    monkeypatch.setattr(evidence_files.os, "fdatasync", lambda fd: (done.append("sync"), sync(fd)))
    monkeypatch.setattr(evidence_files.os, "fsync", lambda fd: (done.append("sync folder"), sync_folder(fd)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to)))
    await take(tmp_path, part_of(b"x"), in_chunks(b"x"))
    await take(tmp_path, part_of(b"x", Encoding.PLAIN), in_chunks(b"x"))
    assert done == ["sync", "rename", "sync folder"] * 2


async def test_the_file_stays_open_while_a_thread_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops waiting: a descriptor that is closed may be another file's a moment later."""
    writing, go_on, closed = threading.Event(), threading.Event(), []

    def slow(file: BinaryIO, _block: bytes, _digest: object) -> None:
        writing.set()
        go_on.wait(10)
        closed.append(file.closed)

    monkeypatch.setattr(evidence_files, "_write_block", slow)
    task = asyncio.create_task(take(tmp_path, part_of(b"x" * 100), in_chunks(b"x" * 100)))
    await asyncio.to_thread(writing.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [False]
    assert names_in(tmp_path) == []


@given(size=st.integers(0, 10 * PART_BYTES), n=st.integers(-1, 11))
def test_parts_add_up(size: int, n: int) -> None:
    """Every part but the last is full; there is no other."""
    count = -(-size // PART_BYTES)
    if not 0 <= n < count:
        with pytest.raises(Invalid):
            size_of_part(size, n)
    else:
        assert 0 < size_of_part(size, n) <= PART_BYTES
        assert sum(size_of_part(size, one) for one in range(count)) == size


@given(start=st.integers(0, 50), length=st.integers(0, 60), holes=st.sets(st.integers(0, 3)))
async def test_any_range_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, holes: set[int]
) -> None:
    """Across the borders of parts, and through holes."""
    folder, whole, size = tmp_path_factory.mktemp("parts"), bytearray(range(60)), 16
    parts = {}
    for n in range(4):
        data = bytes(whole[n * size : (n + 1) * size])
        if n in holes:
            whole[n * size : n * size + len(data)] = bytes(len(data))
        else:
            parts[n] = plain(folder, n, data)
    length = min(length, len(whole) - start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_files, "PART_BYTES", size)
        patch.setattr(evidence_files, "BLOCK", 5)
        got = [block async for block in stream(folder, pieces(parts, start, length), CUSTODY)]
    assert b"".join(got) == whole[start : start + length]


def plain(folder: Path, n: int, data: bytes) -> Kept:
    """A part of before there was a key."""
    info = PartInfo(n=n, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    kept = Kept(info, Encoding.PLAIN, info.size, info.sha256)
    (folder / kept.file).write_bytes(data)
    return kept


@pytest.mark.parametrize("now", [b"ab", b"abcd", b"abd", b""])
async def test_a_changed_file_is_noticed(tmp_path: Path, now: bytes) -> None:
    """Somebody changed the server's disk."""
    part = plain(tmp_path, 0, b"abc")
    (tmp_path / part.file).write_bytes(now)
    with pytest.raises(VerificationFailed, match="Part 0"):
        _ = [block async for block in stream(tmp_path, pieces({0: part}, 0, 3), CUSTODY)]


def test_a_decompression_bomb_takes_no_memory() -> None:
    """No more is inflated than the part may have."""
    info = PartInfo(n=0, size=1000, sha256="0" * 64)
    bomb = zstd.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(VerificationFailed):
            inflated(bomb, Kept(info, Encoding.ZSTD_AGE, len(bomb), "0" * 64))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


async def test_one_part_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is opened when it is needed, not before."""
    parts, opened = {n: plain(tmp_path, n, bytes([n] * 4)) for n in range(3)}, []
    real = evidence_files.open_part

    async def counted(folder: Path, part: Kept, custody: Custody) -> bytes:
        opened.append(part.info.n)
        return await real(folder, part, custody)

    monkeypatch.setattr(evidence_files, "PART_BYTES", 4)
    monkeypatch.setattr(evidence_files, "open_part", counted)
    reading = stream(tmp_path, pieces(parts, 0, 12), CUSTODY)
    assert await anext(reading) == bytes(4)
    assert opened == [0]
    assert [block async for block in reading] == [bytes([1] * 4), bytes([2] * 4)]


def test_leftovers_are_removed_at_start(tmp_path: Path) -> None:
    """Only the unfinished ones."""
    prepare_folder(tmp_path / "evd_1")
    (tmp_path / "evd_1" / ".part-1").write_bytes(b"half")
    (tmp_path / "evd_1" / "0000000-aa").write_bytes(b"whole")
    assert remove_unfinished(tmp_path) == 1
    assert names_in(tmp_path / "evd_1") == ["0000000-aa"]
    prepare_folder(tmp_path / "evd_1", without=["0000000-aa"])
    assert names_in(tmp_path / "evd_1") == []
