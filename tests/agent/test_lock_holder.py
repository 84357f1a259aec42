"""Who holds a state folder: seen without touching the lock."""

import os
from pathlib import Path

from stanch.agent.lock_holder import agent_pid
from stanch.agent.supervisor import LOCK_FILE, locked


def test_the_holder_is_told(tmp_path):
    """By its pid, as long as it holds the folder."""
    assert agent_pid(tmp_path) is None
    with locked(tmp_path):
        assert agent_pid(tmp_path) == os.getpid()
    assert (tmp_path / LOCK_FILE).exists()
    assert agent_pid(tmp_path) is None


def test_nothing_is_made(tmp_path):
    """Neither the folder nor the lock, which a supervisor that starts would find taken."""
    assert agent_pid(tmp_path / "state") is None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_another_file_of_that_number_is_not_meant(tmp_path):
    """Inode numbers are of one file system, so the holder must have this file open."""
    lock = tmp_path / LOCK_FILE
    lock.touch()
    proc = made_up_proc(tmp_path, lock.stat().st_ino)
    (proc / "4711/fd/3").symlink_to("/dev/null")
    assert agent_pid(tmp_path, proc=proc) is None
    (proc / "4711/fd/4").symlink_to(lock)
    assert agent_pid(tmp_path, proc=proc) == 4711


def made_up_proc(tmp_path: Path, inode: int) -> Path:
    proc = tmp_path / "proc"
    (proc / "4711/fd").mkdir(parents=True)
    lines = (
        "garbage",
        f"1: -> FLOCK ADVISORY WRITE 9 00:01:{inode} 0 EOF",
        f"2: POSIX ADVISORY WRITE 8 00:01:{inode} 0 EOF",
    )
    (proc / "locks").write_text("\n".join([*lines, f"3: FLOCK  ADVISORY  WRITE 4711 00:01:{inode} 0 EOF"]) + "\n")
    return proc
