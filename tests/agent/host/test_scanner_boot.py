"""The first sectors of disks: copied, sealed, and only from the device that the kernel means."""

import os
from pathlib import Path

import pytest

from stanch.agent.host import scanner_boot
from stanch.agent.host.scanner_boot import disks, first_sectors
from stanch.core.scanning import SkipReason


def make(sys: Path, name: str, number: str, *, real: bool = True) -> None:
    folder = sys / "block" / name
    folder.mkdir(parents=True)
    (folder / "dev").write_text(f"{number}\n")
    if real:
        (folder / "device").mkdir()


def test_only_disks_of_the_machine_count(tmp_path):
    """No loops, no memory, no layers above other disks."""
    for name in ("sda", "nvme0n1", "vda"):
        make(tmp_path, name, "8:0")
    for name in ("loop0", "ram0", "dm-0", "sr0", "zram0"):
        make(tmp_path, name, "7:0")
    make(tmp_path, "virtual", "9:9", real=False)
    assert [name for name, _ in disks(tmp_path)] == ["nvme0n1", "sda", "vda"]


@pytest.mark.parametrize("what", ["missing", "file", "link", "other"])
def test_what_is_no_such_device_is_skipped_and_told(tmp_path, what):
    """A name in /dev may lead anywhere: only the device with the kernel's number is read."""
    make(tmp_path / "sys", "sda", "8:0")
    dev = tmp_path / "dev"
    dev.mkdir()
    match what:
        case "file":
            (dev / "sda").write_text("no disk")
        case "link":
            (dev / "sda").symlink_to("/dev/null")
        case "other":
            (dev / "sda").mkdir()
    opened, skips = first_sectors(tmp_path / "sys", dev)
    assert opened == []
    (skip,) = skips
    assert skip.reason is (SkipReason.GONE if what == "missing" else SkipReason.UNREADABLE)


def test_the_copy_cannot_be_changed(monkeypatch):
    """The worker that gets it cannot write into what another worker will read."""
    copy = scanner_boot._sealed(b"\x55\xaa" * 300)
    try:
        assert os.pread(copy, 2, 510) == b"\x55\xaa"
        with pytest.raises(PermissionError):
            os.pwrite(copy, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(copy, 0)
    finally:
        os.close(copy)
