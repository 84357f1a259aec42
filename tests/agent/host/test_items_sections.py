"""Do indicators find the process that has a library mapped?"""

import hashlib
import os
import secrets
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.items_sections import Region, parse_region, read_regions
from tests.agent.host.items_world import found, pids

LOADS = "import ctypes, sys; kept = ctypes.CDLL(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
SECTION = "ProcessItem/SectionList/MemorySection"


@pytest.fixture
def library(tmp_path) -> Path:
    """A library of its own content, under a name of its own."""
    lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
    paths = {line.split()[-1] for line in lines if "/libc.so" in line or "/libc-" in line}
    made = tmp_path / f"libplanted-{secrets.token_hex(8)}.so"
    shutil.copy(paths.pop(), made)
    with made.open("ab") as file:
        file.write(secrets.token_bytes(16))
    return made


async def test_a_mapped_library_is_found_by_name(child, library):
    """Its path is found though it was deleted since, in the process that has loaded it and in no other."""
    planted = child(LOADS, library)
    assert await pids((f"{SECTION}/Name", "is", library)) == {planted.pid}
    library.unlink()
    assert await pids((f"{SECTION}/Name", "ends-with", library.name)) == {planted.pid}
    (item,) = await found((f"{SECTION}/Name", "is", library), (f"{SECTION}/Mapped", "is", "true"))
    assert item.about["pid"] == planted.pid


@pytest.mark.root
@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256"])
async def test_a_mapped_library_is_found_by_hash(child, library, kind):
    """Its content is hashed through the process, after it was deleted too."""
    digest = hashlib.new(kind, library.read_bytes(), usedforsecurity=False).hexdigest()
    planted = child(LOADS, library)
    library.unlink()
    assert await pids((f"{SECTION}/{kind.title()}sum", "is", digest)) == {planted.pid}


async def test_memory_that_can_be_written_and_run_is_found(child):
    """Its protection and its size are found, in one region of the process."""
    size = 4096 * (1000 + secrets.randbelow(9000))
    code = """
import mmap, sys
kept = mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
print("ready", flush=True); sys.stdin.read()
"""
    planted = child(code, str(size))
    (item,) = await found(
        (f"{SECTION}/Protection", "is", "rwxp"),
        (f"{SECTION}/RegionSize", "is", size),
        (f"{SECTION}/RegionStart", "greater-than", 0),
        ("ProcessItem/pid", "is", planted.pid),
    )
    assert item.about["pid"] == planted.pid


def test_a_line_is_read_as_the_kernel_writes_it():
    """A path may hold spaces and what looks like a remark; a newline in it is written as digits."""
    line = b"7f00-8f00 r-xp 00000000 fe:01 42                         /a b\\012c (deleted)"
    region = parse_region(line)
    assert region == Region(0x7F00, 0x8F00, "r-xp", 42, b"/a b\nc (deleted)")
    assert list(region.names) == ["/a b\nc", "/a b\nc (deleted)"]
    assert region.link == "map_files/7f00-8f00"
    assert list(parse_region(b"0-1 rw-p 0 00:00 0 [heap]").names) == []
    assert list(parse_region(b"0-1 rw-p 0 00:00 0").names) == []


@given(st.binary())
def test_whatever_stands_in_a_line_is_read_or_passed_over(line):
    """Nothing that a line holds raises, and what is read has a place that makes sense."""
    region = parse_region(line)
    assert region is None or (region.start >= 0 and len(list(region.names)) <= 2)


def test_our_own_memory_is_read_whole():
    """Every line of the kernel's list is understood."""
    folder = os.open("/proc/self", os.O_RDONLY)
    try:
        found_, _whole = read_regions(folder)
    finally:
        os.close(folder)
    assert abs(len(found_) - len(Path("/proc/self/maps").read_bytes().splitlines())) <= 3
    assert any(one.name == b"[stack]" for one in found_)
