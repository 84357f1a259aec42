"""Files of uploads: written whole or not at all."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import TooLarge, Unavailable, VerificationFailed
from stanch.server import upload_files
from stanch.server.upload_files import Received, receive, refuse_full_disk, remove_all_but

DATA = bytes(range(256)) * 9000


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def in_chunks(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_it_is_written_whole_and_hashed(tmp_path: Path) -> None:
    """Under its name, and nothing beside it."""
    received = await receive(tmp_path / "upl_1", in_chunks(DATA), most=len(DATA), sha256=digest(DATA))
    assert received == Received(len(DATA), digest(DATA))
    assert (tmp_path / "upl_1").read_bytes() == DATA
    assert names_in(tmp_path) == ["upl_1"]


@given(data=st.binary(max_size=200), size=st.integers(1, 50))
async def test_the_chunks_do_not_matter(tmp_path_factory, data: bytes, size: int) -> None:
    """Whatever pieces it comes in, it is the same file; an empty one too."""
    folder = tmp_path_factory.mktemp("uploads")
    assert await receive(folder / "x", in_chunks(data, size), most=200) == Received(len(data), digest(data))
    assert (folder / "x").read_bytes() == data


@pytest.mark.parametrize(
    ("how", "error"),
    [({"most": len(DATA) - 1}, TooLarge), ({"most": len(DATA), "sha256": "0" * 64}, VerificationFailed)],
)
async def test_what_is_wrong_leaves_nothing(tmp_path: Path, how: dict, error: type[Exception]) -> None:
    """Too large, or another content than was announced."""
    with pytest.raises(error):
        await receive(tmp_path / "x", in_chunks(DATA), **how)
    assert names_in(tmp_path) == []


async def test_a_cut_connection_leaves_nothing(tmp_path: Path) -> None:
    """The error of the connection goes through."""

    async def cut() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionResetError

    with pytest.raises(Unavailable):
        await receive(tmp_path / "x", cut(), most=2 * len(DATA))
    assert names_in(tmp_path) == []


async def test_silence_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who sends nothing holds no place for long."""
    monkeypatch.setattr(upload_files, "SILENT_SECONDS", 0.01)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    with pytest.raises(Unavailable, match="too slowly"):
        await receive(tmp_path / "x", silent(), most=10)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("number", [28, 5])
async def test_a_disk_that_fails_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Full or broken: nothing is left behind."""

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(upload_files.os, "fsync", fail)
    with pytest.raises(Unavailable):
        await receive(tmp_path / "x", in_chunks(DATA), most=len(DATA))
    assert names_in(tmp_path) == []


async def test_a_disk_that_gets_full_meanwhile_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some room is always left for the database."""
    monkeypatch.setattr(upload_files, "KEEP_FREE", 2**62)
    with pytest.raises(Unavailable, match="no room"):
        await receive(tmp_path / "x", in_chunks(DATA), most=len(DATA))
    with pytest.raises(Unavailable, match="no room"):
        refuse_full_disk(tmp_path, 0)
    assert names_in(tmp_path) == []


def test_what_no_upload_is_called_is_removed(tmp_path: Path) -> None:
    """Half-written files, and those whose upload was never recorded; the folder is made if it is missing."""
    folder = tmp_path / "uploads"
    assert remove_all_but(folder, {"upl_1"}) == 0
    for name in ("upl_1", "upl_2", ".half-1"):
        (folder / name).touch()
    assert remove_all_but(folder, {"upl_1"}) == 2
    assert names_in(folder) == ["upl_1"]
