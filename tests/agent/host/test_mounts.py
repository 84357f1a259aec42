"""Which mount something is on."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.mounts import Mount, mount_of, parse_mounts

LINE = b"36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 - ext4 /dev/root rw,data=journal\n"


@pytest.mark.parametrize(("place", "kind"), [("/proc", "proc"), ("/dev/shm", "tmpfs")])
def test_what_is_open_is_on_its_mount(place, kind):
    """Of a descriptor that was opened with O_PATH too."""
    for flags in (os.O_RDONLY, os.O_PATH):
        opened = os.open(Path(place), flags)
        try:
            assert mount_of(opened).kind == kind
        finally:
            os.close(opened)


def test_what_is_not_open_is_on_none():
    """No error: who asks must live without an answer anyway."""
    assert mount_of(-1) == Mount()


def test_a_line_tells_kind_source_and_options():
    """Options of the mount and of the file system count; so does read-only of either."""
    found = parse_mounts(LINE)
    options = frozenset({"ro", "noatime", "rw", "data=journal"})
    assert found == {36: Mount("ext4", "/dev/root", options, read_only=True)}


@given(st.binary(max_size=300))
def test_any_text_is_parsed(text):
    """A line that is none is left out, and the others stay."""
    assert 36 in parse_mounts(text + b"\n" + LINE)
