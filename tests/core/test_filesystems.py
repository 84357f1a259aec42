"""Tests of stanch.core.filesystems."""

import pytest

from stanch.core.filesystems import MADE_UP, NETWORK, is_network


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse", "fuse.sshfs", "9p"])
def test_what_may_never_answer_is_of_the_network(kind: str) -> None:
    """File systems of the network, and those that a process answers for."""
    assert is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "fuseblk", "proc"])
def test_what_is_here_is_not(kind: str) -> None:
    """Disks of the machine, memory, and what the kernel makes up."""
    assert not is_network(kind)


def test_no_kind_is_both() -> None:
    """Each kind has one reason to be left out."""
    assert not MADE_UP & NETWORK
