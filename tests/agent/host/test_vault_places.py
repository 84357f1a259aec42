"""File systems that the kernel makes up are recognised by what is opened, not by its path."""

import os
from pathlib import Path

import pytest

from stanch.agent.host.vault_places import file_system_of, refuse_made_up
from stanch.core.errors import Unsupported
from stanch.core.types import EndpointPath


@pytest.mark.parametrize(("path", "kind"), [("/proc/self/status", "proc"), ("/sys/kernel/uevent_seqnum", "sysfs")])
def test_what_the_kernel_makes_up_is_refused(path: str, kind: str) -> None:
    """By the mount that the descriptor is on, and it is said which."""
    descriptor = os.open(path, os.O_PATH)
    assert file_system_of(descriptor) == kind
    with pytest.raises(Unsupported, match=kind):
        refuse_made_up(EndpointPath("/harmless"), descriptor)
    os.close(descriptor)


def test_a_file_on_a_disk_is_not(tmp_path: Path) -> None:
    """Also not one that is called like one of the kernel's."""
    (tmp_path / "proc").write_bytes(b"")
    descriptor = os.open(tmp_path / "proc", os.O_PATH)
    refuse_made_up(EndpointPath("/proc/version"), descriptor)
    os.close(descriptor)
