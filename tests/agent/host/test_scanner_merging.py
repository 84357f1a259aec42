"""What scans have learned becomes one file: sorted, bounded, and never half written."""

import os

import pytest

from stanch.agent.host.scanner_merging import main
from stanch.worker.scan.remembered import RECORD, Known, Memory, Stamp


def learned(path, *inodes: int) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    memory = Memory(None, file)
    for one in inodes:
        memory.add(Stamp(b"12345678", one, 1, 2, 3), Known({}, b"r" * 16))
    memory.flush()
    os.close(file)


def test_both_are_in_it_once(tmp_path):
    """A file that both know has one record."""
    learned(tmp_path / "a", 1, 2)
    main(tmp_path, "all", "a")
    learned(tmp_path / "b", 2, 3)
    main(tmp_path, "all", "b")
    assert (tmp_path / "all").stat().st_size == 3 * RECORD
    assert (tmp_path / "all").stat().st_mode & 0o777 == 0o600


def test_damage_is_left_out(tmp_path):
    """An empty file, and one of noise, are as good as none."""
    (tmp_path / "all").write_bytes(b"")
    learned(tmp_path / "a", 1)
    main(tmp_path, "all", "a")
    (tmp_path / "all").write_bytes(os.urandom(5 * RECORD + 3))
    main(tmp_path, "all", "a")
    assert (tmp_path / "all").stat().st_size == RECORD


def test_a_link_is_not_followed(tmp_path):
    """Neither read nor replaced."""
    (tmp_path / "other").write_bytes(b"x" * RECORD)
    (tmp_path / "all").symlink_to(tmp_path / "other")
    learned(tmp_path / "a", 1)
    with pytest.raises(OSError):
        main(tmp_path, "all", "a")
    assert (tmp_path / "other").read_bytes() == b"x" * RECORD
