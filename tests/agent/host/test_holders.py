"""Who holds a file is found by the file, whatever it is called by now."""

import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.agent.host.holders import holders
from stanch.core.files import FileId
from stanch.core.processes import Held


def id_of(path: Path) -> FileId:
    status = path.stat()
    return FileId(device=status.st_dev, inode=status.st_ino)


def mine(path: FileId) -> list[Held]:
    """How this process holds it."""
    return sorted(one.how for one in holders([path]) if one.process.pid == os.getpid())


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A program of our own that runs; its file and pid."""
    path = tmp_path / "sleeper"
    shutil.copy("/bin/sleep", path)
    running = subprocess.Popen([path, "60"])
    try:
        yield path, running.pid
    finally:
        running.kill()
        running.wait()


def test_who_runs_it(program: tuple[Path, int]):
    """Once, with its start time; also after its file was renamed and deleted."""
    path, pid = program
    file = id_of(path)
    (found,) = holders([file])
    assert (found.process.pid, found.how, found.name, found.file) == (pid, Held.RUNS, "sleeper", file)
    path.rename(path.with_name("other"))
    path.with_name("other").unlink()
    assert [(one.process, one.how) for one in holders([file])] == [(found.process, Held.RUNS)]


def test_who_has_it_open(tmp_path: Path):
    """For reading or for writing."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    file = id_of(path)
    assert mine(file) == []
    with path.open("rb") as first, path.open("rb"):
        assert first.read(1)
        assert mine(file) == [Held.READS]
    with path.open("r+b"):
        assert mine(file) == [Held.WRITES]


def test_who_has_it_mapped(tmp_path: Path):
    """Its descriptor may be long closed."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    try:
        assert Held.MAPS in mine(id_of(path))
    finally:
        mapped.close()


def test_nobody():
    """Nothing asked for, or nothing held, finds nothing."""
    assert holders([]) == []
    assert holders([FileId(device=1, inode=2**60)]) == []
