"""Everything that makes a file what it is, besides its content: read from it, and given to another.

All of it goes through a descriptor, also one that was opened with O_PATH: so a link, a FIFO or a device is itself read
and changed, never what it leads to. All of it blocks: call it in a thread.
"""

import base64
import errno
import grp
import os
import pwd
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from stanch.agent.host.inode_flags import (
    APPEND_ONLY,
    FLAG_NAMES,
    IMMUTABLE,
    RESTORED,
    change_flags,
    flags_held,
)
from stanch.agent.host.pinned import kind_of
from stanch.core.errors import Unsupported
from stanch.core.files import MAX_EXTENTS, Extent, FileInfo, Kind
from stanch.core.model import LooseModel
from stanch.core.types import EndpointPath

MAX_ATTRIBUTES = 8 * 1_048_576
"""Bytes of all extended attributes of one file; nobody uses a thousandth of it, but somebody could fill a disk."""

MAX_LOOKS = 20_000_000
"""Times that a file system is asked where the next piece of a file is; what is left then counts as data."""

_BLOCK = 4096
_FIRST, _EPOCH, _LAST = (datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1970, 9999))
_Number = Annotated[int, Field(ge=0, le=2**32 - 1)]
_Time = Annotated[int, Field(ge=-(2**80), le=2**80)]
_Escaped = Annotated[str, StringConstraints(max_length=4 * 4096)]


def _decodable(text: str) -> str:
    """ValueError for what is no base64."""
    base64.b64decode(text, validate=True)
    return text


_Base64 = Annotated[str, StringConstraints(max_length=2 * MAX_ATTRIBUTES), AfterValidator(_decodable)]

_ACL = "system.posix_acl_access"
_OWNING_GROUP = 4
"""The tag of its entry in an ACL."""

_TWINS = MappingProxyType(
    {"trusted.SGI_ACL_FILE": _ACL, "trusted.SGI_ACL_DEFAULT": "system.posix_acl_default"},
)
"""XFS shows its ACLs a second time, in a form of its own, which would be waste elsewhere."""

_LABELS = "security."
"""Attributes that the machine gives by itself; one too many is no loss of the file's own."""


class Metadata(LooseModel):
    """What a file is besides its content."""

    kind: Kind
    """What it is."""

    mode: Annotated[int, Field(ge=0, le=0o7777)]
    """Permission bits, with setuid, setgid and sticky."""

    uid: _Number
    """Owner."""

    gid: _Number
    """Group."""

    atime_ns: _Time
    """Last access, in nanoseconds since 1970."""

    mtime_ns: _Time
    """Last change of content, in nanoseconds since 1970."""

    xattrs: Annotated[dict[_Escaped, _Base64], Field(max_length=40_000)] = Field(default_factory=dict)
    r"""All extended attributes, with ACLs, capabilities and labels: name (odd bytes as \xff) to value (base64)."""

    flags: _Number | None = None
    """Inode flags (see chattr); null if its file system has none, or if asking would open a device."""

    rdev: Annotated[int, Field(ge=0, le=2**64 - 1)] = 0
    """Which device it stands for."""

    target: _Escaped | None = None
    r"""Where a link leads; odd bytes as \xff."""


# --- read ------------------------------------------------------------------------------------------------------------


def capture(descriptor: int, status: os.stat_result | None = None) -> Metadata:
    """All of it, of what a descriptor (O_PATH too) holds; `status` is what fstat said, if it is known already.

    The access time of a file or folder stays; to read where a link leads counts as an access to the link. Unsupported
    if its attributes are too large to be kept. OSError.
    """
    found = os.fstat(descriptor) if status is None else status
    target = EndpointPath.of(os.readlink(b"", dir_fd=descriptor)) if stat.S_ISLNK(found.st_mode) else None
    return _captured(descriptor, found, target)


def _captured(descriptor: int, found: os.stat_result, target: str | None) -> Metadata:
    kind = kind_of(found.st_mode)
    return Metadata(
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        atime_ns=found.st_atime_ns,
        mtime_ns=found.st_mtime_ns,
        xattrs=_attributes(descriptor),
        flags=flags_held(descriptor, kind),
        rdev=found.st_rdev if kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE} else 0,
        target=target,
    )


def _attributes(descriptor: int) -> dict[str, str]:
    found: dict[str, str] = {}
    size = 0
    for name in _names(descriptor):
        try:
            value = os.getxattr(_way(descriptor), name)
        except OSError as error:
            if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:  # removed meanwhile, or only listed
                continue
            raise
        size += len(name) + len(value)
        if size > MAX_ATTRIBUTES:
            raise _too_large()
        found[EndpointPath.of(os.fsencode(name))] = base64.b64encode(value).decode()
    return found


def _names(descriptor: int) -> list[str]:
    try:
        names = set(os.listxattr(_way(descriptor)))
        return sorted(name for name in names if _TWINS.get(name) not in names)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return []
        if error.errno == errno.E2BIG:  # more names than the kernel can tell
            raise _too_large() from error
        raise


def _too_large() -> Unsupported:
    return Unsupported(
        "The extended attributes of the file are too large to be kept",
        expected=f"at most {MAX_ATTRIBUTES} bytes",
        hint="Remove them with setfattr -x, if nobody needs them.",
    )


def _way(descriptor: int) -> str:
    """A path that leads to what is held, and ends there even if it is a link itself."""
    return f"/proc/self/fd/{descriptor}"


# --- make ------------------------------------------------------------------------------------------------------------


def make(metadata: Metadata, folder: int, name: bytes | str) -> None:
    """Make an empty thing of its kind, for its owner alone: `apply` gives it the rest. FileExistsError, OSError."""
    if metadata.kind is Kind.FOLDER:
        os.mkdir(name, 0o700, dir_fd=folder)
    elif metadata.kind is Kind.LINK:
        os.symlink(EndpointPath(metadata.target or "").raw, os.fsencode(name), dir_fd=folder)
    else:
        os.mknod(name, _TYPES[metadata.kind] | 0o600, metadata.rdev, dir_fd=folder)


_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
}


# --- give ------------------------------------------------------------------------------------------------------------


def apply(metadata: Metadata, descriptor: int) -> tuple[str, ...]:
    """Give all of it but the flags to what a descriptor holds; what could not be given, a line for each.

    The flags come last, by `put_flags`, as what is immutable can be given neither attributes nor a name. Nothing that
    cannot be given is an error; OSError only if what is held cannot be looked at.
    """
    reasons: dict[str, str] = {}
    for what, step in _steps(metadata, descriptor):
        try:
            step()
        except OSError as error:
            reasons[what] = error.strerror or str(error)
    if _ACL in reasons:
        _narrow(metadata, descriptor)
    return tuple(f"{what}: {reasons.get(what, why)}" for what, why in _differences(metadata, descriptor))


def _steps(metadata: Metadata, descriptor: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """In the only order that works: a new owner clears setuid and capabilities; an ACL changes the mode; all, times."""
    way = _way(descriptor)
    for name in _too_many(metadata, descriptor):
        yield name, partial(os.removexattr, way, _raw(name))
    yield "owner", partial(os.chown, way, metadata.uid, metadata.gid)
    if metadata.kind is not Kind.LINK:
        yield "mode", partial(Path(way).chmod, metadata.mode)
    for name, value in _in_order(metadata.xattrs):
        yield name, partial(os.setxattr, way, _raw(name), base64.b64decode(value))
    yield "times", partial(os.utime, way, ns=(metadata.atime_ns, metadata.mtime_ns))


def _in_order(attributes: Mapping[str, str]) -> list[tuple[str, str]]:
    """Labels last: a label may forbid what comes after it."""
    return sorted(attributes.items(), key=lambda one: (one[0].startswith(_LABELS), one[0]))


def _narrow(metadata: Metadata, descriptor: int) -> None:
    """Without its ACL the mode decides; with it, what looks like the rights of the group was only their bound."""
    group, entries = 0, base64.b64decode(metadata.xattrs[_ACL])[4:]
    for tag, rights, _id in struct.iter_unpack("<HHI", entries[: len(entries) // 8 * 8]):
        group = rights & 7 if tag == _OWNING_GROUP else group
    with suppress(OSError):
        Path(_way(descriptor)).chmod(metadata.mode & (~0o070 | group << 3))


def _too_many(metadata: Metadata, descriptor: int) -> list[str]:
    """What the new file got by itself, such as an ACL from the default of its folder."""
    with suppress(OSError):
        names = (str(EndpointPath.of(os.fsencode(name))) for name in _names(descriptor))
        return [name for name in names if name not in metadata.xattrs and not name.startswith(_LABELS)]
    return []


def _raw(name: str) -> bytes:
    return EndpointPath(name).raw


def _differences(metadata: Metadata, descriptor: int) -> Iterator[tuple[str, str]]:
    """What is not as it should be, and what it is instead: some file systems take a value and keep another."""
    now = _captured(descriptor, os.fstat(descriptor), metadata.target)  # to read a link would change its times
    if (now.uid, now.gid) != (metadata.uid, metadata.gid):
        yield "owner", f"it is {now.uid}:{now.gid}, not {metadata.uid}:{metadata.gid}"
    if now.mode != metadata.mode:
        yield "mode", f"it is {now.mode:o}, not {metadata.mode:o}"
    if (now.atime_ns, now.mtime_ns) != (metadata.atime_ns, metadata.mtime_ns):
        yield "times", "the file system keeps other ones"
    for name in sorted(metadata.xattrs.keys() | now.xattrs.keys()):
        if now.xattrs.get(name) != metadata.xattrs.get(name) and not _own_label(metadata, name):
            yield name, "the file system keeps another value"


def _own_label(metadata: Metadata, name: str) -> bool:
    return name.startswith(_LABELS) and name not in metadata.xattrs


# --- flags -----------------------------------------------------------------------------------------------------------


def clear_flags(descriptor: int) -> int | None:
    """Clear immutable and append-only, so that it can be removed or overwritten; the flags that it had before.

    None if it has none: its file system knows none, or it is no file or folder. OSError if they cannot be cleared.
    """
    kind = kind_of(os.fstat(descriptor).st_mode)
    before = flags_held(descriptor, kind)
    if before is not None and before & (IMMUTABLE | APPEND_ONLY):
        change_flags(descriptor, before & ~(IMMUTABLE | APPEND_ONLY))
    return before


def put_flags(metadata: Metadata, descriptor: int) -> tuple[str, ...]:
    """Give it the inode flags, immutable and append-only too; what could not be given, a line for each. OSError."""
    kind = kind_of(os.fstat(descriptor).st_mode)
    wanted, before = metadata.flags, flags_held(descriptor, kind)
    if wanted is None:
        return ()
    if before is None:
        lost = {name: "this file system has none" for bit, name in FLAG_NAMES.items() if wanted & bit}
        return tuple(f"flag {name}: {why}" for name, why in lost.items())
    with suppress(OSError):
        change_flags(descriptor, (before & ~RESTORED) | (wanted & RESTORED))
    _one_by_one(wanted, descriptor, kind)
    now = flags_held(descriptor, kind) or 0
    return tuple(
        f"flag {name}: this file system does not give it" for bit, name in FLAG_NAMES.items() if wanted & bit & ~now
    )


def _one_by_one(wanted: int, descriptor: int, kind: Kind) -> None:
    """One flag that a file system does not know makes it refuse all: the others shall not be lost with it.

    Immutable and append-only come last: they forbid everything after them.
    """
    for bit in sorted(FLAG_NAMES, key=lambda one: (one in {IMMUTABLE, APPEND_ONLY}, -one)):
        now = flags_held(descriptor, kind) or 0
        if bit & RESTORED and (now ^ wanted) & bit:
            with suppress(OSError):
                change_flags(descriptor, now ^ bit)


# --- where the data is -----------------------------------------------------------------------------------------------


def extents(descriptor: int, size: int, *, most: int = MAX_EXTENTS, looks: int = MAX_LOOKS) -> tuple[Extent, ...]:
    """Where a file of `size` bytes that is open for reading holds data, in order; all else reads as zeros.

    At most `most` pieces: of more, the smallest holes count as data. One piece over all of it if its file system cannot
    tell. Moves the position of the descriptor. OSError if the disk fails.
    """
    found: list[Extent] = []
    smallest = 0
    for piece in _pieces(descriptor, size, looks):
        _join(found, piece, smallest)
        while len(found) > most:
            smallest = max(_BLOCK, 2 * smallest)
            found = _joined(found, smallest)
    return tuple(found)


def _pieces(descriptor: int, size: int, looks: int) -> Iterator[Extent]:
    """As the file system tells them, made to go forward: one that lies would never end."""
    end = 0
    for _ in range(looks):
        if end >= size:
            return
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            following = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no more data, or it was cut off meanwhile
                return
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            break
        if start >= size:
            return
        if start < end or following <= start:
            break
        end = min(following, size)
        yield Extent(start, end - start)
    if end < size:
        yield Extent(end, size - end)


def _joined(pieces: list[Extent], smallest: int) -> list[Extent]:
    joined: list[Extent] = []
    for piece in pieces:
        _join(joined, piece, smallest)
    return joined


def _join(found: list[Extent], piece: Extent, smallest: int) -> None:
    """Add a piece; if the hole before it is smaller than `smallest` bytes, make the last one longer instead."""
    last = found[-1] if found else None
    if last is None or (hole := piece.offset - last.offset - last.length) >= max(1, smallest):
        found.append(piece)
    else:
        found[-1] = Extent(last.offset, last.length + hole + piece.length)


# --- as it is shown --------------------------------------------------------------------------------------------------


def info_of(status: os.stat_result) -> FileInfo:
    """What stat said, for people; asks the machine's name service, and may wait for it."""
    return FileInfo(
        size=status.st_size,
        mode=stat.S_IMODE(status.st_mode),
        user=account_name(status.st_uid),
        modified=moment(status.st_mtime_ns),
        inode=status.st_ino,
        kind=kind_of(status.st_mode),
        group=group_name(status.st_gid),
        changed=moment(status.st_ctime_ns),
        allocated=status.st_blocks * 512,
        links=status.st_nlink,
        device=status.st_dev,
    )


def account_name(uid: int) -> str:
    """The name of an account, or its number if it has none; asks the machine's name service, and may wait for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, or its number if it has none; asks the machine's name service, and may wait for it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def moment(nanoseconds: int) -> datetime:
    """A file may carry any time that its file system can store; one outside the calendar becomes its nearest end."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _FIRST if nanoseconds < 0 else _LAST
