"""Metadata: what makes a file what it is is read completely, and given to another; what cannot be is told."""

import base64
import errno
import os
import socket
import stat
import struct
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import metadata
from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, change_flags
from stanch.agent.host.metadata import (
    Metadata,
    account_name,
    apply,
    capture,
    clear_flags,
    extents,
    group_name,
    info_of,
    make,
    moment,
    put_flags,
)
from stanch.core.errors import Unsupported
from stanch.core.files import Extent, Kind
from tests import mounts

NO_DUMP, NO_ATIME, SYNC = 0x40, 0x80, 0x8
MIB = 1_048_576


@contextmanager
def held(path):
    """Hold something with O_PATH, as the vault does."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def taken(path):
    """Its metadata."""
    with held(path) as descriptor:
        return capture(descriptor)


def given_to(path, what):
    """Give metadata with flags to something, and take the flags that forbid everything away afterwards."""
    with held(path) as descriptor:
        lost = apply(what, descriptor) + put_flags(what, descriptor)
        now = capture(descriptor)
        clear_flags(descriptor)
    return lost, now


def copy_of(path, what, name="copy"):
    """A new, empty thing of its kind beside it."""
    copy = path.with_name(name)
    folder = os.open(path.parent, os.O_RDONLY)
    make(what, folder, name)
    os.close(folder)
    return copy


def acl(*entries):
    """A POSIX ACL as the kernel keeps it: (tag, permissions, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


NOBODY = 0xFFFF_FFFF
ACL = acl((1, 6, NOBODY), (2, 7, 1234), (4, 4, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY))
"""u::rw, u:1234:rwx, g::r, m::rwx, o::none."""

CAPABILITY = struct.pack("<5I", 0x0200_0001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service, permitted and effective."""


_TARGET = b"/nowhere/\xff\\x41\n"


@pytest.fixture
def memory():
    """A folder on a file system in memory, which keeps all kinds of attributes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


# --- all of it, there and back ---------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("where", ["tmpfs", "ext4", "xfs"])
@mounts.inside
def test_everything_of_a_file_comes_back(tmp_path, where):
    """Owner, setuid, ACL, capability, label, attributes of all kinds, times and flags, on real file systems."""
    folder = mounts.tmpfs(tmp_path / "fs") if where == "tmpfs" else mounts.image(tmp_path / "fs", where)
    file = folder / "file"
    file.write_bytes(b"content")
    os.chown(file, 1234, 4321)
    file.chmod(0o6750)
    for name, value in {
        "user.plain": b"\x00\xff binary",
        "user.empty": b"",
        "trusted.note": b"t",
        "security.selinux": b"system_u:object_r:bin_t:s0\0",
        "security.capability": CAPABILITY,
        "system.posix_acl_access": ACL,
    }.items():
        os.setxattr(file, name, value)
    os.utime(file, ns=(1_000_000_001, 1_500_000_000_123_456_789))
    with held(file) as descriptor:
        change_flags(descriptor, (capture(descriptor).flags or 0) | NO_DUMP | NO_ATIME | IMMUTABLE)
    before = taken(file)
    assert stat.S_IMODE(file.stat().st_mode) == before.mode == 0o6670 | stat.S_ISUID | stat.S_ISGID
    assert base64.b64decode(before.xattrs["security.capability"]) == CAPABILITY
    assert len(before.xattrs) == 6
    copy = copy_of(file, before)
    copy.write_bytes(b"content")
    lost, after = given_to(copy, before)
    assert lost == ()
    assert after == before
    with held(file) as descriptor:
        clear_flags(descriptor)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "socket", "device"])
def test_everything_of_other_things_comes_back(memory, kind):
    """A folder with a default ACL, a link to nowhere, a FIFO, a socket and a device: themselves, not followed."""
    thing = memory / "thing"
    if kind == "folder":
        thing.mkdir()
        os.setxattr(thing, "system.posix_acl_default", ACL)
    elif kind == "link":
        thing.symlink_to(os.fsdecode(_TARGET))
    elif kind == "fifo":
        os.mkfifo(thing)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(thing))
    else:
        os.mknod(thing, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.setxattr(thing, "trusted.note", b"x", follow_symlinks=False)
    os.chown(thing, 1234, 4321, follow_symlinks=False)
    if kind != "link":
        thing.chmod(0o1757)
    os.utime(thing, ns=(5, 1_500_000_000_123_456_789), follow_symlinks=False)
    before = taken(thing)
    assert before.xattrs["trusted.note"] == "eA=="
    copy = copy_of(thing, before)
    lost, after = given_to(copy, before)
    assert (lost, after) == ((), before)
    if kind == "link":
        assert os.fsencode(copy.readlink()) == _TARGET
    if kind == "device":
        assert copy.stat().st_rdev == os.makedev(1, 3)


def test_a_link_is_changed_itself(memory):
    """Applying to a link leaves what it leads to alone."""
    victim, link = memory / "victim", memory / "link"
    victim.write_bytes(b"x")
    link.symlink_to(victim)
    before, own = taken(victim), taken(link)
    with held(link) as descriptor:
        assert apply(own.model_copy(update={"mtime_ns": 5}), descriptor) == ()
    assert taken(victim) == before
    assert link.lstat().st_mtime_ns == 5


_NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name).map(lambda name: b"user." + name)
_TIMES = st.integers(-(2**31) * 10**9, 2**34 * 10**9)


@pytest.mark.root
@given(
    owner=st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)),
    mode=st.integers(0, 0o7777),
    times=st.tuples(_TIMES, _TIMES),
    attributes=st.dictionaries(_NAMES, st.binary(max_size=200), max_size=5),
    flags=st.sets(st.sampled_from([NO_DUMP, IMMUTABLE, APPEND_ONLY])),
    folder=st.booleans(),
)
def test_capture_of_what_was_applied_is_the_same(*, owner, mode, times, attributes, flags, folder):
    """For every owner, mode, times, attributes of any bytes, and flags: apply(capture(x)) == x, through JSON too."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        one = Path(place) / "one"
        one.mkdir() if folder else one.touch()
        for name, value in attributes.items():
            os.setxattr(one, name, value)
        os.chown(one, *owner)
        one.chmod(mode)
        os.utime(one, ns=times)
        before = taken(one).model_copy(update={"flags": sum(flags)})
        assert {name: base64.b64decode(value) for name, value in before.xattrs.items()} == {
            metadata.EndpointPath.of(name): value for name, value in attributes.items()
        }
        again = Metadata.model_validate_json(before.model_dump_json())
        lost, after = given_to(copy_of(one, again), again)
        assert lost == ()
        assert after == before


def test_what_a_new_file_got_by_itself_goes(memory):
    """A default ACL of the folder gives the new file an ACL that the old one had not: it is removed."""
    os.setxattr(memory, "system.posix_acl_default", ACL)
    other = memory / "other"
    other.touch()
    os.removexattr(other, "system.posix_acl_access")
    other.chmod(0o640)
    before = taken(other)
    assert before.xattrs == {}
    copy = copy_of(other, before)
    assert "system.posix_acl_access" in os.listxattr(copy)
    assert given_to(copy, before) == ((), before)


# --- what cannot be brought back -------------------------------------------------------------------------------------


def refusing(monkeypatch, name, code):
    """Let a system call fail."""

    def refuse(*_arguments, **_more):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EPERM, errno.ENOSPC])
def test_what_cannot_be_given_is_told_and_the_rest_is_given(memory, monkeypatch, code):
    """One attribute that is refused is one line; what comes after it is still given."""
    file = memory / "file"
    file.touch()
    os.setxattr(file, "user.note", b"x")
    os.utime(file, ns=(1, 2))
    before = taken(file)
    copy = copy_of(file, before)
    refusing(monkeypatch, "setxattr", code)
    lost, after = given_to(copy, before)
    assert lost == (f"user.note: {os.strerror(code)}",)
    assert after.mtime_ns == 2


def test_without_its_acl_a_file_is_not_open_to_more_people(memory, monkeypatch):
    """With an ACL the mode shows the bound of all rights: taken as the group's, it would give it more than it had."""
    file = memory / "file"
    file.touch()
    os.setxattr(file, "system.posix_acl_access", ACL)
    assert stat.S_IMODE(file.stat().st_mode) == 0o670
    before = taken(file)
    copy = copy_of(file, before)
    refusing(monkeypatch, "setxattr", errno.EOPNOTSUPP)
    lost, after = given_to(copy, before)
    assert after.mode == 0o640
    assert [line.partition(":")[0] for line in lost] == ["mode", "system.posix_acl_access"]


def test_more_names_of_attributes_than_the_kernel_can_tell_are_refused(memory, monkeypatch):
    """They cannot even be counted: the file is refused, with a sentence."""
    (memory / "file").touch()
    refusing(monkeypatch, "listxattr", errno.E2BIG)
    with pytest.raises(Unsupported, match="too large"):
        taken(memory / "file")


def test_a_file_system_that_keeps_something_else_is_found_out(memory, monkeypatch):
    """It answers that all went well, and keeps whole seconds: the line says so."""
    file = memory / "file"
    file.touch()
    before = taken(file).model_copy(update={"mtime_ns": 1_500_000_000})
    real = os.utime
    monkeypatch.setattr(os, "utime", lambda path, ns: real(path, ns=tuple(one // 10**9 * 10**9 for one in ns)))
    lost, _after = given_to(file, before)
    assert lost == ("times: the file system keeps other ones",)


@pytest.mark.root
def test_nothing_is_lost_silently_where_nothing_can_be_kept():
    """On a file system of the kernel's own hardly anything can be given: every refusal is a line, none an error."""
    what = Metadata(
        kind=Kind.FILE,
        mode=0o640,
        uid=5,
        gid=6,
        atime_ns=1,
        mtime_ns=2,
        xattrs={"user.x": "eA=="},
        flags=NO_DUMP,
    )
    with held("/proc/self/comm") as descriptor:
        lost = apply(what, descriptor) + put_flags(what, descriptor)
    assert {"mode", "user.x", "flag no-dump"} <= {line.partition(":")[0] for line in lost}


def test_attributes_without_bound_are_refused(memory, monkeypatch):
    """Somebody may hang megabytes onto a file: they are not read without end, and not dropped silently either."""
    file = memory / "file"
    file.touch()
    os.setxattr(file, "user.a", b"x" * 600)
    os.setxattr(file, "user.b", b"x" * 600)
    monkeypatch.setattr(metadata, "MAX_ATTRIBUTES", 1000)
    with pytest.raises(Unsupported, match="too large"):
        taken(file)


def test_an_attribute_that_vanishes_meanwhile_is_left_out(memory, monkeypatch):
    """It was listed and is gone when it is asked for."""
    file = memory / "file"
    file.touch()
    os.setxattr(file, "user.a", b"x")
    refusing(monkeypatch, "getxattr", errno.ENODATA)
    assert taken(file).xattrs == {}


def test_a_file_system_without_attributes_has_none(memory, monkeypatch):
    """That is no error."""
    (memory / "file").touch()
    refusing(monkeypatch, "listxattr", errno.EOPNOTSUPP)
    assert taken(memory / "file").xattrs == {}


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
def test_flags_are_cleared_and_put_again(memory, flag):
    """What forbids removal goes, the other flags stay; afterwards it is as it was."""
    file = memory / "file"
    file.touch()
    with held(file) as descriptor:
        change_flags(descriptor, flag | NO_DUMP)
        before = capture(descriptor)
        assert before.flags == flag | NO_DUMP
        with pytest.raises(PermissionError):
            file.unlink()
        assert clear_flags(descriptor) == flag | NO_DUMP
        assert capture(descriptor).flags == NO_DUMP
        assert put_flags(before, descriptor) == ()
        assert put_flags(before, descriptor) == ()
        assert capture(descriptor) == before
        clear_flags(descriptor)
    file.unlink()


@pytest.mark.root
def test_a_flag_that_is_not_known_is_told_and_the_others_are_given(memory):
    """A file system in memory knows no synchronous files and refuses all flags with it: one by one, most are given."""
    file = memory / "file"
    file.touch()
    with held(file) as descriptor:
        before = capture(descriptor).model_copy(update={"flags": SYNC | NO_DUMP | IMMUTABLE})
        assert put_flags(before, descriptor) == ("flag synchronous: this file system does not give it",)
        assert capture(descriptor).flags == NO_DUMP | IMMUTABLE
        clear_flags(descriptor)


@pytest.mark.root
def test_verity_is_told_to_be_lost(memory):
    """Its tree of hashes cannot be made again by a flag: nobody shall believe that it is still protected."""
    (memory / "file").touch()
    with held(memory / "file") as descriptor:
        before = capture(descriptor).model_copy(update={"flags": 0x10_0000})
        assert put_flags(before, descriptor) == ("flag verity: this file system does not give it",)


def test_the_flags_of_a_fifo_are_not_asked_for(tmp_path):
    """Asking means opening, and opening a FIFO or a device is an act: there are none, and nothing hangs."""
    os.mkfifo(tmp_path / "fifo")
    with held(tmp_path / "fifo") as descriptor:
        assert capture(descriptor).flags is None
        assert clear_flags(descriptor) is None
        assert put_flags(capture(descriptor), descriptor) == ()


def test_reading_metadata_leaves_the_access_time(tmp_path):
    """Neither attributes nor flags count as an access."""
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", ns=(7, 8))
    taken(tmp_path / "file")
    assert (tmp_path / "file").stat().st_atime_ns == 7


# --- extents ---------------------------------------------------------------------------------------------------------


@contextmanager
def sparse(folder, size, *data):
    """A file with data of a block at each of these offsets; open for reading and writing."""
    with (folder / "sparse").open("wb+") as file:
        file.truncate(size)
        for offset in data:
            os.pwrite(file.fileno(), b"x" * 4096, offset)
        yield file.fileno()


def test_forty_gigabytes_of_nothing_are_three_pieces(memory):
    """Only what holds data is told, at the start, somewhere, and at the end."""
    size = 40 * 1024 * MIB
    with sparse(memory, size, 0, 17 * 1024 * MIB, size - 4096) as descriptor:
        assert extents(descriptor, size) == (
            Extent(0, 4096),
            Extent(17 * 1024 * MIB, 4096),
            Extent(size - 4096, 4096),
        )


@pytest.mark.parametrize("size", [0, 1, 4096, 4097])
def test_small_and_empty_files(memory, size):
    """An empty file has no pieces, a full one has one, which ends where the file ends."""
    with (memory / "file").open("wb+") as file:
        file.write(b"x" * size)
        file.flush()
        assert extents(file.fileno(), size) == ((Extent(0, size),) if size else ())


def test_only_holes(memory):
    """A file that was only made long has no pieces."""
    with sparse(memory, 10 * MIB) as descriptor:
        assert extents(descriptor, 10 * MIB) == ()


def test_a_file_that_grew_or_shrank_meanwhile(memory):
    """No piece is beyond the size that it had; what was cut off is no piece."""
    with sparse(memory, 10 * MIB, 0, 5 * MIB, 9 * MIB) as descriptor:
        assert extents(descriptor, 5 * MIB + 100) == (Extent(0, 4096), Extent(5 * MIB, 100))
        os.truncate(descriptor, 4096)
        assert extents(descriptor, 10 * MIB) == (Extent(0, 4096),)


def test_of_too_many_pieces_those_with_the_smallest_holes_are_one(memory):
    """A hundred crumbs and one far away: the large hole stays a hole, whatever becomes of the small ones."""
    far = 1024 * MIB
    with sparse(memory, far + 4096, *range(0, 800 * 1024, 8192), far) as descriptor:
        assert len(extents(descriptor, far + 4096)) == 101
        found = extents(descriptor, far + 4096, most=10)
        assert found == (Extent(0, 99 * 8192 + 4096), Extent(far, 4096))


class Told:
    """A file system that says where data is, as a test wants it."""

    def __init__(self, monkeypatch, tell):
        self.asked = 0
        self._tell = tell
        monkeypatch.setattr(metadata.os, "lseek", self._lseek)

    def _lseek(self, _descriptor, offset, whence):
        self.asked += 1
        return self._tell(offset, whence)


def test_of_a_million_holes_the_memory_stays_bounded(monkeypatch):
    """Every second block is a hole: pieces are joined as they come, never more than allowed are kept."""
    told = Told(
        monkeypatch, lambda offset, whence: offset + 4096 if whence == os.SEEK_HOLE else -(-offset // 8192) * 8192
    )
    kept = []
    real = metadata._join
    monkeypatch.setattr(metadata, "_join", lambda found, *more: (kept.append(len(found)), real(found, *more))[1])
    found = extents(0, 20_000 * 8192, most=100)
    assert max(kept) <= 101
    assert len(found) <= 100
    assert (found[0].offset, found[-1].offset + found[-1].length) == (0, 20_000 * 8192 - 4096)
    assert told.asked < 50_000


def test_a_file_system_that_never_gets_on_is_not_asked_for_ever(monkeypatch):
    """It says that data begins and ends where it was asked: all from there on counts as data."""
    told = Told(monkeypatch, lambda offset, whence: offset)
    assert extents(0, 10**12) == (Extent(0, 10**12),)
    assert told.asked == 2


def test_a_file_system_that_goes_back_is_not_believed(monkeypatch):
    """Data before the place that was asked about would be told twice."""
    Told(monkeypatch, lambda offset, whence: 0 if whence == os.SEEK_DATA else 4096)
    found = extents(0, 10**6)
    assert sum(one.length for one in found) == 10**6
    assert found[0].offset == 0


def test_a_file_system_that_gets_on_slowly_is_left_in_time(monkeypatch):
    """A byte at a time: after so many questions, the rest counts as data."""
    Told(monkeypatch, lambda offset, whence: offset + 1)
    found = extents(0, 10**12, looks=50)
    assert found[-1].offset + found[-1].length == 10**12
    assert found[-1].length > 10**11


def test_a_file_system_that_cannot_tell_gives_one_piece(monkeypatch):
    """Then everything is data."""

    def cannot(_offset, _whence):
        raise OSError(errno.EINVAL, "Invalid argument")

    Told(monkeypatch, cannot)
    assert extents(0, 5000) == (Extent(0, 5000),)


def test_a_disk_that_fails_is_an_error(monkeypatch):
    """It is not taken for a hole."""

    def broken(_offset, _whence):
        raise OSError(errno.EIO, "Input/output error")

    Told(monkeypatch, broken)
    with pytest.raises(OSError, match="Input/output"):
        extents(0, 5000)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=60), st.integers(1, 12))
def test_whatever_is_joined_all_data_is_in_a_piece(layout, most):
    """For every layout of holes and data: in order, apart, at most as many as allowed, and no byte of data outside."""
    data, at = [], 0
    for hole, length in layout:
        at += hole * 4096
        data.append((at, at + length * 4096))
        at += length * 4096
    size = at

    def tell(offset, whence):
        inside = next(((start, end) for start, end in data if start <= offset < end), None)
        if whence == os.SEEK_HOLE:
            return inside[1] if inside else offset
        if inside:
            return offset
        later = [start for start, _end in data if start > offset]
        if not later:
            raise OSError(errno.ENXIO, "No such device or address")
        return min(later)

    with pytest.MonkeyPatch.context() as patch:
        Told(patch, tell)
        found = extents(0, size, most=most)
    assert len(found) <= most
    for one, following in pairwise(found):
        assert one.offset + one.length < following.offset
    for start, end in data:
        assert any(one.offset <= start and end <= one.offset + one.length for one in found)


# --- as it is shown --------------------------------------------------------------------------------------------------


def test_the_info_of_a_sparse_file(memory):
    """Size and what it takes are two things; names of the owner, kind, links and identity are there."""
    with sparse(memory, 10 * MIB, 0) as descriptor:
        os.link(memory / "sparse", memory / "other")
        os.fchmod(descriptor, 0o4640)
        status = os.fstat(descriptor)
        info = info_of(status)
    assert (info.size, info.allocated, info.links, info.mode) == (10 * MIB, 4096, 2, 0o4640)
    assert (info.kind, info.device, info.inode) == (Kind.FILE, status.st_dev, status.st_ino)
    assert (info.user, info.group) == (account_name(os.getuid()), group_name(os.getgid()))


def test_accounts_without_a_name_are_numbers():
    """An account that nobody knows is shown by its number."""
    assert account_name(4_000_000_000) == group_name(4_000_000_000) == "4000000000"
    assert account_name(0) == "root"


def test_times_outside_of_the_calendar_become_its_ends():
    """A file may carry the year 300000; showing it is no reason to fail."""
    assert moment(-(2**62)) < moment(0) == datetime(1970, 1, 1, tzinfo=UTC) < moment(2**62)
    assert moment(10**30) == datetime(9999, 1, 1, tzinfo=UTC)
    assert moment(-(10**30)) == datetime(1, 1, 1, tzinfo=UTC)


def test_a_damaged_record_is_no_metadata():
    """Numbers beyond the kernel's bounds and kinds that do not exist are refused when a record is read."""
    good = Metadata(kind=Kind.FILE, mode=0o644, uid=0, gid=0, atime_ns=0, mtime_ns=0).model_dump()
    for wrong in (
        {"mode": 0o10000},
        {"uid": -1},
        {"kind": "door"},
        {"flags": 2**32},
        {"mtime_ns": 2**90},
        {"xattrs": {"user.x": "x"}},
    ):
        with pytest.raises(ValueError, match="validation"):
            Metadata.model_validate({**good, **wrong})
