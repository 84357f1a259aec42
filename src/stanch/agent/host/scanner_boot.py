"""The first sectors of this machine's disks: the boot record, and the gap behind it where boot loaders are.

A device is no file for the worker. So its first part is copied, read-only, into memory that nothing can change any
more, and the worker gets that. Everything here blocks: call it in a thread.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from stanch.core.scan_wire import OpenedFile
from stanch.core.scanning import Skip, SkipReason

BYTES: Final = 2**20
"""Where partitions begin: what is before them belongs to nobody's file system."""
MOST: Final = 8
"""Disks."""

_NO_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def disks(sys: Path = Path("/sys")) -> Iterator[tuple[str, str]]:
    """Name and number (`8:0`) of each disk of the machine itself."""
    with suppress(OSError):
        for one in sorted((sys / "block").iterdir()):
            if one.name.startswith(_NO_DISKS) or not (one / "device").exists():
                continue
            with suppress(OSError):
                yield one.name, (one / "dev").read_text().strip()


def first_sectors(sys: Path = Path("/sys"), dev: Path = Path("/dev")) -> tuple[list[OpenedFile], list[Skip]]:
    """Copies of them, open; and the disks of which there is none. The caller closes them."""
    opened, skips = list[OpenedFile](), list[Skip]()
    for name, number in disks(sys):
        told = f"{dev / name}: its first {BYTES // 2**20} MiB"
        if len(opened) >= MOST:
            skips.append(Skip(name=told, reason=SkipReason.OTHER, detail=f"more than {MOST} disks"))
            continue
        try:
            copy = _copied(dev / name, number)
        except OSError as error:
            reason = SkipReason.GONE if isinstance(error, FileNotFoundError) else SkipReason.UNREADABLE
            skips.append(Skip(name=told, reason=reason, detail=error.strerror or str(error)))
        else:
            opened.append(OpenedFile(fd=copy, name=told, path="", pid=0, started=0))
    return opened, skips


def _copied(device: Path, number: str) -> int:
    """What it begins with, in sealed memory; OSError."""
    source = os.open(device, _OPEN)
    try:
        found = os.fstat(source)
        if not stat.S_ISBLK(found.st_mode) or f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" != number:
            raise OSError("another device has its name")
        return _sealed(os.pread(source, BYTES, 0))
    finally:
        os.close(source)


def _sealed(data: bytes) -> int:
    copy = os.memfd_create("stanch-sectors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(copy, rest) :]
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(copy)
        raise
    return copy
