"""The inode flags of a file or folder (see chattr): read and changed through a descriptor, one of O_PATH too."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from stanch.core.files import Kind

IMMUTABLE, APPEND_ONLY = 0x10, 0x20
"""What carries one of them can be neither changed, renamed nor removed."""

FLAG_NAMES = MappingProxyType(
    {
        0x1: "secure-deletion",
        0x2: "undelete",
        0x4: "compressed",
        0x8: "synchronous",
        IMMUTABLE: "immutable",
        APPEND_ONLY: "append-only",
        0x40: "no-dump",
        0x80: "no-atime",
        0x400: "not-compressed",
        0x4000: "data-journaling",
        0x8000: "no-tail-merging",
        0x1_0000: "synchronous-folder",
        0x2_0000: "top-of-hierarchy",
        0x10_0000: "verity",
        0x80_0000: "no-copy-on-write",
        0x200_0000: "direct-access",
        0x2000_0000: "inherits-project",
        0x4000_0000: "casefolding",
    }
)
"""Those that somebody gave to a file; the rest says how its file system keeps it."""

RESTORED = 0x2281_C4FF | 0x3_0000
"""Those that can be given to another file: neither verity, which needs a tree of hashes, nor casefolding."""

_GET_FLAGS, _SET_FLAGS = 0x8008_6601, 0x4008_6602
_UNKNOWN = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def flags_of(opened: int) -> int | None:
    """The inode flags of what is opened (not O_PATH); None if its file system has none. OSError."""
    try:
        answer = fcntl.ioctl(opened, _GET_FLAGS, bytes(8))
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    return int(struct.unpack_from("=I", answer)[0])


def flags_held(descriptor: int, kind: Kind) -> int | None:
    """The inode flags of what a descriptor (O_PATH too) holds; None if there are none, or if asking would be an act.

    OSError.
    """
    if kind not in {Kind.FILE, Kind.FOLDER}:  # opening a FIFO waits, opening a device is an act
        return None
    with _opened(descriptor) as opened:
        return flags_of(opened)


def change_flags(descriptor: int, flags: int) -> None:
    """Set the inode flags of a file or folder. OSError."""
    with _opened(descriptor) as opened:
        fcntl.ioctl(opened, _SET_FLAGS, struct.pack("=II", flags, 0))


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    opened = reopened(descriptor)
    try:
        yield opened
    finally:
        os.close(opened)


def reopened(descriptor: int) -> int:
    """Open for reading what a descriptor holds, without touching its access time where that is allowed. OSError.

    Only for regular files and folders. Close what you get.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NOATIME)
    except PermissionError:  # allowed to the owner and to root, and even root is nobody on some network file systems
        return os.open(f"/proc/self/fd/{descriptor}", flags)
