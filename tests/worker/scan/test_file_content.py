"""Content is read once, whatever its size, and a file that shrinks under it kills nobody."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.worker.scan.file_content import Reader, Shrank
from tests.worker.scan.driving import FIND_EVIL, scan, worker

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_that_shrinks_kills_nobody(tmp_path: Path) -> None:
    """A mapped file that is cut before the rules come to it: the engine gives up, and the process goes on."""
    put(tmp_path / "shrinks", bytes(40 * 2**20))
    program = f"""
import os
from stanch.worker.scan.file_content import Reader
from stanch.worker.scan.rules import NotScanned, RuleSet, source_of
path = {str(tmp_path / "shrinks")!r}
rules = RuleSet([source_of("e", {FIND_EVIL!r})], fast=False, tags=frozenset(), seconds=20)
file = os.open(path, os.O_RDONLY)
with Reader(lambda: None).content(file, os.fstat(file).st_size, (), {{}}, None) as data:
    first = data[0]
    os.truncate(path, 0)
    try:
        rules._match(rules.ready(), {{"data": data}}, {{}})
    except NotScanned:
        print("goes on")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, b"goes on\n"), ended.stderr


def test_a_read_that_ends_early_is_told(tmp_path: Path) -> None:
    """What was cut between the look and the read has changed."""
    file = os.open(put(tmp_path / "short", b"1234"), os.O_RDONLY)
    with pytest.raises(Shrank):
        Reader(lambda: None).read(file, 10, ("sha256",), {}, None)
    os.close(file)


def test_access_times_stay(tmp_path: Path) -> None:
    """When a file was read last is evidence: a scan does not touch it."""
    evil = put(tmp_path / "evil")
    os.utime(evil, (1, 1))
    assert scan(tmp_path).found
    assert evil.stat().st_atime == 1


@pytest.mark.parametrize("size", [4 * 2**20 - 7, 4 * 2**20 + 1, 33 * 2**20])
def test_whatever_the_size_all_of_it_is_searched_and_hashed(tmp_path: Path, size: int) -> None:
    """Files that are read at once, into memory of their own, and those that are mapped."""
    content = bytes(size) + b"E-V-I-L"
    evil = put(tmp_path / "evil", content)
    digest = hashlib.sha256(content).hexdigest()
    with worker([("yara", "e", FIND_EVIL), ("hashes", "list", digest.encode() + b" bad")]) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert done.found == {("Evil", str(evil)), ("bad", str(evil))}
    assert all(one["objects"][0]["sha256"] == digest for one in done.findings)
