"""Hashes in one pass are the hashes of the content, holes included."""

import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.digests import digests_of
from stanch.agent.host.metadata import extents
from stanch.core.errors import ActionFailed, Cancelled
from stanch.core.files import Digests, Extent, HashKind

ALL = tuple(HashKind)


def digests(path: Path, *, kinds=ALL, size: int | None = None, **more) -> Digests:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        length = path.stat().st_size if size is None else size
        return digests_of(descriptor, size=length, extents=extents(descriptor, length), kinds=kinds, **more)
    finally:
        os.close(descriptor)


@given(
    pieces=st.lists(st.tuples(st.integers(0, 3_000_000), st.binary(min_size=1, max_size=5000)), max_size=4),
    tail=st.integers(0, 2_000_000),
)
def test_any_file_with_holes(tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]], tail: int):
    """All three kinds are those of the bytes that a reader gets."""
    path = tmp_path_factory.mktemp("sparse") / "file"
    with path.open("wb") as file:
        for gap, data in pieces:
            file.seek(gap, os.SEEK_CUR)
            file.write(data)
        file.truncate(file.tell() + tail)
    content = path.read_bytes()
    found = digests(path)
    assert found.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert found.sha1 == hashlib.sha1(content, usedforsecurity=False).hexdigest()
    assert found.sha256 == hashlib.sha256(content).hexdigest()


def test_only_what_is_asked_for(tmp_path: Path):
    """The other kinds are not there."""
    (tmp_path / "file").write_bytes(b"abc")
    found = digests(tmp_path / "file", kinds=(HashKind.SHA256, HashKind.SHA256))
    assert (found.md5, found.sha1) == (None, None)
    assert found.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_a_file_that_became_shorter(tmp_path: Path):
    """Half a file has no hash."""
    (tmp_path / "file").write_bytes(b"abc")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(ActionFailed, match="shorter"):
            digests_of(descriptor, size=9, extents=(Extent(0, 9),), kinds=ALL)
    finally:
        os.close(descriptor)


def test_it_can_be_stopped(tmp_path: Path):
    """Between two blocks."""
    (tmp_path / "file").write_bytes(b"abc")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        digests(tmp_path / "file", stop=stop)


def test_progress_ends_at_the_size(tmp_path: Path):
    """Holes count too."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(5_000_000)
    told: list[int] = []
    digests(tmp_path / "file", kinds=(HashKind.MD5,), told=told.append)
    assert told[-1] == 5_000_000
    assert told == sorted(told)
