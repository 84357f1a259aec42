"""Part files: written whole or not at all, and read back in ranges."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import Invalid, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import PART_BYTES, PartInfo
from stanch.server import evidence_files
from stanch.server.evidence_files import (
    fresh_folder,
    hash_files,
    pieces,
    receive,
    remove_unfinished,
    size_of_part,
    stream,
)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def in_chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def part_of(data: bytes, **changes: object) -> PartInfo:
    said = {"n": 0, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **changes}
    return PartInfo.model_validate(said)


async def test_a_part_is_written_whole(tmp_path: Path) -> None:
    """With its bytes, and nothing beside it."""
    data = bytes(range(256)) * 10_000
    await receive(tmp_path / "0", part_of(data), in_chunks(data))
    assert (tmp_path / "0").read_bytes() == data
    assert names_in(tmp_path) == ["0"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"size": 5}, TooLarge), ({"size": 5000}, Invalid), ({"sha256": "0" * 64}, VerificationFailed)],
)
async def test_a_wrong_part_leaves_nothing(tmp_path: Path, changes: dict, error: type[Exception]) -> None:
    """Too long, too short, or damaged on the way."""
    data = b"x" * 2000
    with pytest.raises(error):
        await receive(tmp_path / "0", part_of(data, **changes), in_chunks(data))
    assert names_in(tmp_path) == []


async def test_a_cut_connection_leaves_nothing(tmp_path: Path) -> None:
    """The error of the connection goes through."""

    async def cut() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, Unavailable)):
        await receive(tmp_path / "0", part_of(b"x" * 200), cut())
    assert names_in(tmp_path) == []


async def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """As unavailable: the endpoint may try again."""
    with pytest.raises(Unavailable):
        await receive(tmp_path / "missing" / "0", part_of(b"x"), in_chunks(b"x"))


async def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In these words."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evidence_files, "_write_block", full)
    with pytest.raises(Unavailable, match="disk is full"):
        await receive(tmp_path / "0", part_of(b"x"), in_chunks(b"x"))


async def test_what_is_kept_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content is synced, then the rename, then the folder."""
    done: list[str] = []
    sync, rename = evidence_files.os.fsync, Path.rename
    monkeypatch.setattr(evidence_files.os, "fsync", lambda fd: (done.append("sync"), sync(fd)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to)))
    await receive(tmp_path / "0", part_of(b"x"), in_chunks(b"x"))
    assert done == ["sync", "rename", "sync"]


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


@given(start=st.integers(0, 50), length=st.integers(0, 60))
async def test_any_range_can_be_read(tmp_path_factory: pytest.TempPathFactory, start: int, length: int) -> None:
    """Across the borders of part files."""
    folder = tmp_path_factory.mktemp("parts")
    whole, size = bytes(range(60)), 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_files, "PART_BYTES", size)
        paths = [folder / str(n) for n in range(4)]
        for n, path in enumerate(paths):
            path.write_bytes(whole[n * size : (n + 1) * size])
        length = min(length, len(whole) - start)
        got = [block async for block in stream(list(pieces(paths, start, length)))]
    assert b"".join(got) == whole[start : start + length]


async def test_a_shortened_file_is_noticed(tmp_path: Path) -> None:
    """Somebody changed the server's disk."""
    (tmp_path / "0").write_bytes(b"abc")
    with pytest.raises(Unavailable, match="shorter"):
        _ = [block async for block in stream(list(pieces([tmp_path / "0"], 0, 10)))]


def test_the_hash_goes_over_all_files(tmp_path: Path) -> None:
    """In order; a missing one is said."""
    (tmp_path / "0").write_bytes(b"abc")
    (tmp_path / "1").write_bytes(b"def")
    assert hash_files([tmp_path / "0", tmp_path / "1"]) == hashlib.sha256(b"abcdef").hexdigest()
    with pytest.raises(Unavailable):
        hash_files([tmp_path / "2"])


def test_leftovers_are_removed_at_start(tmp_path: Path) -> None:
    """Only the unfinished ones."""
    fresh_folder(tmp_path / "evd_1")
    (tmp_path / "evd_1" / ".part-1").write_bytes(b"half")
    (tmp_path / "evd_1" / "0000000-aa").write_bytes(b"whole")
    assert remove_unfinished(tmp_path) == 1
    assert names_in(tmp_path / "evd_1") == ["0000000-aa"]
    fresh_folder(tmp_path / "evd_1")
    assert names_in(tmp_path / "evd_1") == []
