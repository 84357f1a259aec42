"""Inode flags: read and changed through any descriptor, and never by opening what acts when it is opened."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.agent.host.inode_flags import (
    APPEND_ONLY,
    FLAG_NAMES,
    IMMUTABLE,
    RESTORED,
    change_flags,
    flags_held,
    flags_of,
    reopened,
)
from stanch.core.files import Kind


@contextmanager
def held(path):
    """Hold something with O_PATH."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def memory():
    """A folder on a file system in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.root
@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
def test_flags_do_what_their_names_say(memory, flag):
    """The numbers are the kernel's: with the flag nothing can be written over or removed, without it everything."""
    file = memory / "file"
    file.write_bytes(b"x")
    with held(file) as descriptor:
        change_flags(descriptor, flag)
        assert flags_held(descriptor, Kind.FILE) == flag
        for change in (file.unlink, lambda: file.write_bytes(b"y")):
            with pytest.raises(PermissionError):
                change()
        change_flags(descriptor, 0)
    file.unlink()


@pytest.mark.root
def test_folders_have_flags_too(memory):
    """A folder that is held with O_PATH is asked and changed like a file."""
    (memory / "folder").mkdir()
    with held(memory / "folder") as descriptor:
        change_flags(descriptor, 0x40)
        assert flags_held(descriptor, Kind.FOLDER) == 0x40


def test_nothing_that_acts_is_opened(tmp_path):
    """Of a FIFO, a link or a device no flags are asked: opening would wait or act."""
    os.mkfifo(tmp_path / "fifo")
    with held(tmp_path / "fifo") as descriptor:
        for kind in set(Kind) - {Kind.FILE, Kind.FOLDER}:
            assert flags_held(descriptor, kind) is None


def test_a_file_system_without_flags_has_none():
    """Its answer to the question is not an error."""
    with held("/proc/self/comm") as descriptor:
        assert flags_held(descriptor, Kind.FILE) is None
    reader, writer = os.pipe()
    assert flags_of(reader) is None
    os.close(reader)
    os.close(writer)


def test_asking_leaves_the_access_time_and_nothing_open(tmp_path):
    """What is reopened is the same file, and nobody sees that it was."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    os.utime(file, ns=(7, 8))
    with held(file) as descriptor:
        before = sorted(one.name for one in Path("/proc/self/fd").iterdir())
        flags_held(descriptor, Kind.FILE)
        assert sorted(one.name for one in Path("/proc/self/fd").iterdir()) == before
        opened = reopened(descriptor)
        assert os.path.sameopenfile(opened, descriptor)
        assert os.read(opened, 5) == b"x"
        os.close(opened)
    assert file.stat().st_atime_ns == 7


def test_without_the_right_to_leave_the_access_time_it_is_read_all_the_same(tmp_path, monkeypatch):
    """Only owner and root may; on some network file systems root is nobody."""
    (tmp_path / "file").write_bytes(b"x")
    real = os.open

    def as_nobody(path, flags, *more):
        if flags & os.O_NOATIME:
            raise PermissionError(1, "Operation not permitted")
        return real(path, flags, *more)

    with held(tmp_path / "file") as descriptor:
        monkeypatch.setattr(os, "open", as_nobody)
        opened = reopened(descriptor)
        monkeypatch.undo()
    assert os.read(opened, 5) == b"x"
    os.close(opened)


def test_what_can_be_restored_has_a_name_except_that_two_cannot():
    """Each flag that is restored can be told by name when it is lost; verity and casefolding are told, not restored."""
    named = sum(FLAG_NAMES)
    assert RESTORED & ~named == 0
    assert named & ~RESTORED == 0x10_0000 | 0x4000_0000
