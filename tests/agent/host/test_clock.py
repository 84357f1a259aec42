"""Is time since boot the kernel's, and is the boot named?"""

import uuid
from pathlib import Path

from stanch.agent.host import clock as module
from stanch.agent.host.clock import boot_id, boot_seconds


def test_boot_time_only_rises():
    """It is at least as far as the uptime that was read before it."""
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    first = boot_seconds()
    assert uptime - 0.01 <= first <= boot_seconds()


def test_the_boot_has_a_name():
    """A UUID, the same each time."""
    assert uuid.UUID(boot_id())
    assert boot_id() == boot_id()


def test_without_the_file_the_boot_has_no_name(tmp_path, monkeypatch):
    """A kernel that does not tell is no error."""
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "missing")
    assert boot_id() == ""
