"""What is remembered of files: never believed once the file may have changed, however it was changed."""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.scan import remembered
from stanch.worker.scan.remembered import (
    OLDEST,
    RECORD,
    SETTLED,
    Known,
    Memory,
    Stamp,
    is_quiet,
    merged,
    newest,
    packed,
    unpacked,
)
from tests.mounts import image, inside, tmpfs
from tests.worker.scan.driving import FIND_EVIL, Done, scan, worker

NOW = 2_000_000_000
Learned = tuple[Stamp, Known, int]
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts and leases")


def settled(folder: Path, count: int = 3) -> Path:
    """Clean files whose time stamps have stood for long enough: the clock of the kernel has gone on."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        (folder / f"f{n}").write_bytes(b"clean " * 1000)
    newest = max((folder / f"f{n}").stat().st_ctime for n in range(count))
    while time.time() <= newest + SETTLED:
        time.sleep(0.1)
    return folder


def learning(folder: Path, learned: Path, **more: object) -> Done:
    """A scan that learns."""
    file = os.open(learned, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return scan(folder, learned=file, **more)
    finally:
        os.close(file)


def mapped_store(file: Path) -> Callable[[], None]:
    """Somebody who has made a page of it dirty, and can store to it again; his descriptor is closed."""
    descriptor = os.open(file, os.O_RDWR)
    memory = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    memory[:1] = b"C"
    return lambda: memory.__setitem__(slice(0, 7), b"E-V-I-L")


@pytest.mark.root
@root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "ext2"])
def test_unchanged_files_are_remembered_and_changed_ones_read(kind: str, tmp_path: Path) -> None:
    """On a real file system: written, replaced, stored to through a mapping, written with its old times set again."""

    @inside
    def work() -> None:
        folder = settled(image(tmp_path / "disk", kind), 6)
        assert learning(folder, tmp_path / "learned").tally["remembered"] == 0
        assert learning(folder, tmp_path / "learned").tally["remembered"] == 6
        before = (folder / "f0").stat()
        (folder / "f0").write_bytes(b"E-V-I-L" + b"clean " * 999 + b"123456"[:-1])
        os.utime(folder / "f0", ns=(before.st_atime_ns, before.st_mtime_ns))
        (folder / "new").write_bytes(b"E-V-I-L")
        (folder / "new").replace(folder / "f1")
        mapped_store(folder / "f2")()
        done = learning(folder, tmp_path / "learned")
        assert done.found == {("Evil", str(folder / f"f{n}")) for n in range(3)}
        assert done.tally["remembered"] == 3

    work()


@pytest.mark.root
@root
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_that_is_mapped_for_writing_is_not_remembered(kind: str, tmp_path: Path) -> None:
    """A second store to a dirty page changes no time stamp: so nothing may be known of such a file."""

    @inside
    def work() -> None:
        disk = image(tmp_path / "disk", kind)
        (disk / "f0").write_bytes(b"clean " * 1000)
        store = mapped_store(disk / "f0")
        settled(disk / "more", 1)
        assert learning(disk, tmp_path / "learned").tally["files"] == 2
        stamps = (disk / "f0").stat()
        store()
        assert (disk / "f0").stat().st_ctime_ns == stamps.st_ctime_ns, "the hazard is no longer there"
        done = learning(disk, tmp_path / "learned")
        assert done.found == {("Evil", str(disk / "f0"))}
        assert done.tally["remembered"] == 1

    work()


@pytest.mark.root
@root
def test_file_systems_without_that_promise_are_read_each_time(tmp_path: Path) -> None:
    """tmpfs keeps no trace of a store: nothing of it is remembered."""

    @inside
    def work() -> None:
        folder = settled(tmpfs(tmp_path / "disk"))
        learning(folder, tmp_path / "learned")
        assert learning(folder, tmp_path / "learned").tally["remembered"] == 0

    work()


@pytest.mark.root
@root
def test_a_file_is_quiet_only_if_nobody_can_write_to_it(tmp_path: Path) -> None:
    """Not while it is young, and not while somebody has it open or mapped for writing."""

    @inside
    def work() -> None:
        file = settled(image(tmp_path / "disk", "ext4"), 1) / "f0"
        reading = os.open(file, os.O_RDONLY)
        status = os.fstat(reading)
        assert is_quiet(reading, status, status.st_ctime + SETTLED + 0.1)
        assert not is_quiet(reading, status, status.st_ctime + SETTLED - 0.1)
        assert not is_quiet(reading, status, status.st_ctime - 100)
        writing = os.open(file, os.O_WRONLY)
        assert not is_quiet(reading, status, status.st_ctime + 100)
        os.close(writing)
        assert is_quiet(reading, status, status.st_ctime + 100)
        mapping = os.open(file, os.O_RDWR)
        memory = mmap.mmap(mapping, 0)
        os.close(mapping)
        assert not is_quiet(reading, status, status.st_ctime + 100)
        memory.close()
        assert is_quiet(reading, status, status.st_ctime + 100)
        os.close(reading)

    work()


@pytest.mark.root
@root
def test_other_rules_are_asked_anew(tmp_path: Path) -> None:
    """What was clean under other rules, or under another name where rules ask for names, is not known to be."""

    @inside
    def work() -> None:
        folder = settled(image(tmp_path / "disk", "ext4"), 2)
        by_name = b'rule N { condition: filename == "bad" }'
        for rules in (FIND_EVIL, by_name):
            assert learning(folder, tmp_path / "learned", rules=rules).tally["remembered"] == 0
            assert learning(folder, tmp_path / "learned", rules=rules).tally["remembered"] == 2
        (folder / "f0").rename(folder / "bad")
        assert learning(folder, tmp_path / "learned", rules=by_name).found == {("N", str(folder / "bad"))}

    work()


@pytest.mark.root
@root
def test_finds_are_found_again(tmp_path: Path) -> None:
    """They are never remembered."""

    @inside
    def work() -> None:
        folder = settled(image(tmp_path / "disk", "ext4"), 1)
        (folder / "f0").write_bytes(b"E-V-I-L")
        settled(folder / "more", 1)
        for _ in range(2):
            assert learning(folder, tmp_path / "learned").found == {("Evil", str(folder / "f0"))}

    work()


@pytest.mark.root
@root
def test_a_scan_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """What it had learned is believed, a torn record at its end apart."""

    @inside
    def work() -> None:
        folder = settled(image(tmp_path / "disk", "ext4"), 900)
        file = os.open(tmp_path / "learned", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with worker([("yara", "e", FIND_EVIL)], learned=file) as driver:
            driver.targets(folder)
            while os.fstat(file).st_size < 100 * RECORD and driver.process.poll() is None:
                driver.hear()
            driver.process.kill()
        os.write(file, b"torn")
        os.close(file)
        known = (tmp_path / "learned").stat().st_size // RECORD
        done = learning(folder, tmp_path / "learned")
        assert (done.tally["files"], done.tally["complete"]) == (900, True)
        assert 0 < done.tally["remembered"] <= known
        assert (tmp_path / "learned").stat().st_size % RECORD == 0

    work()


# --- records ---------------------------------------------------------------------------------------------------------

stamps = st.builds(
    Stamp,
    st.sampled_from([b"place-01", b"place-02"]),
    st.integers(0, 20),
    st.integers(0, 2**63),
    st.integers(-(2**62), 2**62),
    st.integers(-(2**62), 2**62),
)
knowns = st.builds(
    Known,
    st.fixed_dictionaries({}, optional={"md5": st.binary(min_size=16, max_size=16), "sha256": st.just(b"h" * 32)}),
    st.sampled_from([b"", b"k" * 16]),
)


@given(stamps, knowns, st.integers(0, 2**32 - 1))
def test_a_record_says_what_was_put_into_it(stamp: Stamp, known: Known, when: int) -> None:
    """Whatever is known."""
    assert unpacked(packed(stamp, known, when)) == (stamp, known, when)


@given(stamps, knowns, st.integers(0, RECORD * 8 - 1))
def test_a_damaged_record_says_nothing(stamp: Stamp, known: Known, bit: int) -> None:
    """Not with one bit that is another."""
    record = bytearray(packed(stamp, known, NOW))
    record[bit // 8] ^= 1 << bit % 8
    assert unpacked(bytes(record)) is None


def memory(tmp_path: Path, records: bytes, *, learned: bytes = b"", now: float = NOW) -> Memory:
    """A memory over two files."""
    (tmp_path / "remembered").write_bytes(records)
    (tmp_path / "learned").write_bytes(learned)
    old = os.open(tmp_path / "remembered", os.O_RDONLY)
    new = os.open(tmp_path / "learned", os.O_RDWR | os.O_APPEND)
    return Memory(old, new, now=now)


def test_only_the_very_state_is_believed(tmp_path: Path) -> None:
    """Another size, time or file system, a record that is too old or from the future: nothing is known."""
    stamp = Stamp(b"place-01", 5, 10, 20, 30)
    records = b"".join(sorted(packed(Stamp(b"place-01", n, 10, 20, 30), Known(clean=b"k" * 16), NOW) for n in range(9)))
    asked = memory(tmp_path, records)
    assert asked.get(stamp) == Known(clean=b"k" * 16)
    for other in (
        Stamp(b"place-02", 5, 10, 20, 30),
        Stamp(b"place-01", 10, 10, 20, 30),
        Stamp(b"place-01", 5, 11, 20, 30),
        Stamp(b"place-01", 5, 10, 21, 30),
        Stamp(b"place-01", 5, 10, 20, 31),
        Stamp(b"", 5, 10, 20, 30),
    ):
        assert asked.get(other) is None
    assert memory(tmp_path, records, now=NOW + OLDEST + 1).get(stamp) is None
    assert memory(tmp_path, records, now=NOW - 1).get(stamp) is None


@dataclass(frozen=True)
class Status:
    """As `os.stat_result`."""

    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


@contextmanager
def held(*contents: bytes) -> Iterator[list[int]]:
    """Files with these contents, open."""
    files = [os.memfd_create("records") for _ in contents]
    try:
        for file, content in zip(files, contents, strict=True):
            os.write(file, content)
        yield files
    finally:
        for file in files:
            os.close(file)


@pytest.mark.parametrize("in_table", [0, 1000])
@given(
    old=st.lists(st.tuples(stamps, knowns, st.integers(NOW - 2 * OLDEST, NOW + 9)), max_size=20),
    new=st.lists(st.tuples(stamps, knowns, st.integers(NOW - 100, NOW)), max_size=20),
    asked=stamps,
    bit=st.integers(-1, RECORD * 8 - 1),
)
def test_the_quick_answer_is_the_long_one(
    in_table: int, old: list[Learned], new: list[Learned], asked: Stamp, bit: int
) -> None:
    """A file is clean only if `get` says so, and also if it does: by a table and by halves, with damage or without."""
    kept = bytearray(b"".join(newest(packed(*one) for one in old)))
    damaged = bool(kept) and bit >= 0
    if damaged:
        kept[bit // 8] ^= 1 << bit % 8
    with pytest.MonkeyPatch.context() as patch, held(bytes(kept), b"".join(packed(*one) for one in new)) as files:
        patch.setattr(remembered, "MAX_IN_TABLE", in_table)
        known = Memory(*files, now=NOW)
        for one in (asked, *(stamp for stamp, _, _ in (*old, *new))):
            status = Status(one.inode, one.size, one.mtime, one.ctime)
            told = (known.get(one) or Known()).clean == b"k" * 16
            if known.is_clean(one.place, status, b"k" * 16):
                assert told
            elif not damaged and all(stamp.inode != one.inode for stamp, _, _ in new):
                assert not told


@given(
    old=st.lists(st.tuples(stamps, st.integers(NOW - 2 * OLDEST, NOW)), max_size=30),
    new=st.lists(st.tuples(stamps, st.integers(NOW - 100, NOW)), max_size=30),
    most=st.integers(0, 60),
    torn=st.binary(max_size=RECORD - 1),
)
def test_merging_keeps_the_newest_of_each_sorted_and_bounded(
    old: list[tuple[Stamp, int]], new: list[tuple[Stamp, int]], most: int, torn: bytes
) -> None:
    """Never too many, never too old, never two of one file, and the later learned one of both."""
    by_key = {(one.place, one.inode): (one, when) for one, when in old}
    before = b"".join(sorted(packed(one, Known(), when) for one, when in by_key.values()))
    after = b"".join(packed(one, Known(clean=b"n" * 16), when) for one, when in new)
    result = list(merged(before + torn, after + torn, most=most, now=NOW))
    told = [one for record in result if (one := unpacked(record)) is not None]
    keys = [(stamp.place, stamp.inode) for stamp, _, _ in told]
    assert len(told) == len(result) <= most
    assert keys == sorted(set(keys))
    assert all(NOW - OLDEST <= when <= NOW for _, _, when in told)
    latest = {(one.place, one.inode): one for one, _ in new}
    assert all(stamp == latest[key] for key, (stamp, _, _) in zip(keys, told, strict=True) if key in latest)
    if most >= 60:
        assert set(latest) <= set(keys)
