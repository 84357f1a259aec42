"""Which kind of file system a place is on: from the table of mounts, so that none has to be touched to know it.

What is mounted after the table was read is told by its magic number once a folder of it is open.
"""

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from stanch.core.filesystems import MADE_UP, is_network

MAX_TABLE: Final = 16 * 2**20
"""Bytes of the table that are read."""

_KERNEL_MAGIC: Final = frozenset(
    {
        *(0x9FA0, 0x62656572, 0x0027E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0x1CD1, 0x19800202),
        *(0xCAFE4A11, 0x6165676C, 0x62656570, 0x65735543, 0x958458F6, 0x42494E4D, 0xDE5E81E4, 0x6E736673),
        *(0x0187, 0xF97CFF8C, 0x67596969),
    }
)
"""Of MADE_UP."""
_NETWORK_MAGIC: Final = frozenset(
    {
        *(0x6969, 0xFF534D42, 0xFE534D42, 0x517B, 0x564C, 0x01021997, 0x5346414F, 0x73757245, 0x00C36400),
        *(0x65735546, 0x6A656A63, 0x0BD00BD0, 0x47504653, 0x19830326, 0x20030528, 0x01161970, 0x7461636F, 0x786F4256),
    }
)
REMEMBERED_MAGIC: Final = frozenset({0xEF53, 0x58465342, 0x9123683E})
"""ext2, ext3 and ext4; xfs; btrfs: where time stamps are as `remembered` needs them."""

_STATFS_SIZE: Final = 120
_SIDES: Final = 10
"""Fields of a line of the table, at least."""
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


class Origin(Enum):
    """Where the files of a file system come from."""

    LOCAL = "local"
    NETWORK = "network"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system of an open folder."""

    origin: Origin
    magic: int
    id: bytes
    """What the kernel tells it from others by."""

    @property
    def remembered(self) -> bool:
        """May what is known of its files be remembered?"""
        return self.magic in REMEMBERED_MAGIC


class FileSystems:
    """Asks for them; `statfs` of the library, which is the only one that tells the kind."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def of(self, descriptor: int) -> FileSystem:
        """Of what is open; OSError."""
        buffer = ctypes.create_string_buffer(_STATFS_SIZE)
        if self._libc.fstatfs(descriptor, buffer) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        magic = struct.unpack_from("@l", buffer.raw)[0] & 0xFFFFFFFF
        at = struct.calcsize("@7l")
        return FileSystem(_origin_of(magic), magic, buffer.raw[at : at + 8])


def _origin_of(magic: int) -> Origin:
    if magic in _KERNEL_MAGIC:
        return Origin.KERNEL
    return Origin.NETWORK if magic in _NETWORK_MAGIC else Origin.LOCAL


def read_mounts(table: Path = Path("/proc/self/mountinfo")) -> Mapping[bytes, Origin]:
    """Where something is mounted, and from where its files come: what was mounted last lies on top."""
    try:
        with table.open("rb") as file:
            return dict(_parsed(file.read(MAX_TABLE)))
    except OSError:
        return {}


def _parsed(table: bytes) -> Iterator[tuple[bytes, Origin]]:
    for line in table.splitlines():
        fields = line.split(b" ")
        if len(fields) >= _SIDES and b"-" in fields:
            kind = fields[min(fields.index(b"-") + 1, len(fields) - 1)].decode("ascii", "replace")
            yield _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), fields[4]), _origin(kind)


def _origin(kind: str) -> Origin:
    if kind in MADE_UP:
        return Origin.KERNEL
    return Origin.NETWORK if is_network(kind) else Origin.LOCAL
