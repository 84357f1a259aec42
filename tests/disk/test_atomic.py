"""Does a file hold the old content or the new, whatever happens on the way?"""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.disk.atomic import Disk, atomic_write

OLD, NEW = b"old" * 1000, b"new" * 2000
STEPS = ("create", "chmod", "write", "sync", "replace", "sync_folder")


class RecordingDisk(Disk):
    """Notes each call, and calls `on_step` before it."""

    def __init__(self, on_step=lambda name: None):
        self.steps = []
        self.on_step = on_step

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        return self._noted(name, found) if name in {*STEPS, "remove"} else found

    def _noted(self, name, call):
        def noted(*arguments):
            self.steps.append(name)
            self.on_step(name)
            return call(*arguments)

        return noted


def test_creates_a_file_with_the_mode_asked_for(tmp_path):
    """A new file has the content and exactly the permission bits, whatever the umask."""
    before = os.umask(0o077)
    try:
        atomic_write(tmp_path / "new", NEW, mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_bytes() == NEW
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o644


def test_is_private_by_default(tmp_path):
    """Without a mode, only the owner may read, even if everybody could read the old file."""
    path = tmp_path / "key"
    path.write_bytes(OLD)
    path.chmod(0o666)
    atomic_write(path, NEW)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (NEW, 0o600)


def test_a_reader_that_holds_the_old_file_keeps_it(tmp_path):
    """The old file is replaced, not overwritten."""
    path = tmp_path / "f"
    path.write_bytes(OLD)
    with path.open("rb") as held:
        atomic_write(path, NEW)
        assert held.read() == OLD
    assert path.read_bytes() == NEW


def test_takes_a_path_relative_to_the_working_folder(tmp_path, monkeypatch):
    """A bare name means the working folder."""
    monkeypatch.chdir(tmp_path)
    atomic_write(Path("bare"), NEW)
    assert (tmp_path / "bare").read_bytes() == NEW


def test_order_is_write_sync_rename_sync_of_the_folder(tmp_path):
    """Content reaches the disk before the name does, and the name before we say that it is done."""
    disk = RecordingDisk()
    atomic_write(tmp_path / "f", NEW, disk=disk)
    assert tuple(disk.steps) == STEPS


def test_writes_all_of_it_though_the_kernel_takes_a_little_at_a_time(tmp_path):
    """Short writes are continued, and only then is the file synced."""

    class Slow(RecordingDisk):
        def write(self, file, data):
            return super().write(file, data[:7])

    disk = Slow()
    atomic_write(tmp_path / "f", b"x" * 40, disk=disk)
    assert (tmp_path / "f").read_bytes() == b"x" * 40
    assert disk.steps == ["create", "chmod", *["write"] * 6, "sync", "replace", "sync_folder"]


@pytest.mark.parametrize("step", STEPS[1:5])
def test_a_failing_step_leaves_the_old_file_and_nothing_else(tmp_path, step):
    """The error comes out as it is, the temporary file goes, the target stays."""
    path = tmp_path / "f"
    path.write_bytes(OLD)

    def fail(name):
        if name == step:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, NEW, disk=RecordingDisk(fail))
    assert path.read_bytes() == OLD
    assert [*tmp_path.iterdir()] == [tmp_path / "f"]


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_a_step_leaves_old_or_new(tmp_path, step):
    """After kill -9 just before each step the file is the old one up to the rename and the new one after it."""
    path = tmp_path / "f"
    path.write_bytes(OLD)
    program = (
        "import os, signal, sys; from pathlib import Path; from stanch.disk.atomic import Disk, atomic_write\n"
        "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic_write(Path(sys.argv[1]), b'new' * 2000, disk=type('Dying', (Disk,), {sys.argv[2]: die})())"
    )
    ended = subprocess.run([sys.executable, "-c", program, path, step], check=False, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == (NEW if step == "sync_folder" else OLD)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/hostname")])
def test_refuses_a_target_that_is_no_regular_file(tmp_path, make):
    """A folder, FIFO or link is left alone, and so is what the link points at."""
    make(tmp_path / "odd")
    with pytest.raises(OSError, match="expected a regular file or nothing"):
        atomic_write(tmp_path / "odd", NEW)
    assert [*tmp_path.iterdir()] == [tmp_path / "odd"]


@pytest.mark.parametrize("path", [".", "..", "/", "a/.."])
def test_refuses_a_path_that_names_a_folder(path):
    """A path without a file name is a mistake of the caller."""
    with pytest.raises(IsADirectoryError):
        atomic_write(Path(path), NEW)


def test_says_that_the_folder_is_missing(tmp_path):
    """Folders are not made on the way."""
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "nowhere" / "f", NEW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4))
def test_the_last_write_wins(tmp_path, contents):
    """However often it is written, the file holds exactly the last content, and the folder only the file."""
    for content in contents:
        atomic_write(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == contents[-1]
    assert [*tmp_path.iterdir()] == [tmp_path / "f"]
