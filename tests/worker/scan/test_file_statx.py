"""What statx tells beyond stat: the same as stat(1) and chattr(1), and nothing where the kernel does not answer."""

import os
import struct
import subprocess
from pathlib import Path

from stanch.worker.scan.file_statx import asker, more, sparse


def test_the_kernel_tells_when_a_file_was_made(tmp_path: Path) -> None:
    """It is what stat(1) tells."""
    (tmp_path / "file").touch()
    said = subprocess.run(["stat", "-c", "%W", tmp_path / "file"], check=True, capture_output=True).stdout
    opened = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        found = more(asker(), opened)
    finally:
        os.close(opened)
    assert found is not None
    assert (found.created or 0) == int(said)


def answer(*, mask: int = 0x800, attributes: int = 0, known: int = 0, created: int = 0) -> bytes:
    """What the kernel would fill in."""
    head = struct.pack("=IIQ", mask, 4096, attributes).ljust(56, b"\0")
    return (head + struct.pack("=Q", known)).ljust(80, b"\0") + struct.pack("=q", created).ljust(176, b"\0")


def test_attributes_are_named() -> None:
    """Those that the file system knows of."""
    found = more(lambda _descriptor: answer(attributes=0x10_0034, known=0x10_0014, created=7), 0)
    assert found is not None
    assert found.attributes == {"Compressed", "Immutable", "Verity"}
    assert found.created == 7


def test_a_time_of_zero_or_that_was_not_given_is_none() -> None:
    """A file system that keeps none."""
    for raw in (answer(created=0), answer(mask=0, created=7)):
        found = more(lambda _descriptor, raw=raw: raw, 0)
        assert found is not None
        assert found.created is None


def test_without_an_answer_nothing_is_known() -> None:
    """A descriptor that is not open; a kernel that does not know the call."""
    assert more(asker(), -1) is None
    assert more(lambda _descriptor: None, 0) is None


def test_holes_make_a_file_sparse(tmp_path: Path) -> None:
    """A small file may stand in its inode."""
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 1_000_000)
    (tmp_path / "small").write_bytes(b"x")
    assert sparse((tmp_path / "holes").stat())
    assert not sparse((tmp_path / "small").stat())
