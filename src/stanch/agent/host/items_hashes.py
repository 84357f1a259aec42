"""Hashes of what processes run and have open, for indicators: each content once, and bounded.

A file is opened by the kernel's own link of a process, looked at before it is opened for reading (to open a device or a
pipe does something), and hashed only if it stays the same meanwhile.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event
from typing import Final

from stanch.agent.host.procfs import DELETED
from stanch.core.errors import ForbiddenHere
from stanch.core.types import EndpointPath

KINDS: Final[Mapping[str, str]] = {"Md5sum": "md5", "Sha1sum": "sha1", "Sha256sum": "sha256"}
"""As terms call them, to what hashlib calls them."""

MAX_FILE = 256 * 1_048_576
"""Bytes of one file."""
MAX_ALL = 16 * 1_073_741_824
"""Bytes of all files for one question."""
MAX_KNOWN = 20_000
"""Contents whose hashes are remembered."""

_BLOCK = 262_144

Version = tuple[int, int, int, int, int]
"""Device, inode, size, and the two times that change when the content does: one content of one file."""


def is_forbidden(forbidden: Callable[[EndpointPath], None], path: str) -> bool:
    """Does the owner of the machine let nobody read the file that the kernel calls so, deleted or not?"""
    path = path.removesuffix(DELETED)
    try:
        if path.startswith("/"):
            forbidden(EndpointPath.of(os.fsencode(path)))
    except ForbiddenHere:
        return True
    return False


def kinds_of(prefix: str, wanted: frozenset[str]) -> tuple[str, ...]:
    """Which kinds are asked for at these paths: `prefix` with Md5sum, ... behind it."""
    return tuple(kind for kind in KINDS if prefix + kind in wanted)


class Hashes:
    """Hashes files for one question."""

    def __init__(self, stop: Event, *, forbidden: Callable[[EndpointPath], None] = lambda _path: None) -> None:
        self._stop = stop
        self._forbidden = forbidden
        self.refused = 0
        """How often a file was not hashed since nobody may read it."""
        self._known: dict[tuple[str, Version], str] = {}
        self._left = MAX_ALL

    def of(
        self, link: str, folder: int, kinds: tuple[str, ...], sign: Callable[[], None], *, most: int = MAX_FILE
    ) -> Mapping[str, str]:
        """Kind to hash of the file to which this link in a folder leads.

        Empty if it is no regular file, too large, forbidden, or did not stay the same. OSError if it cannot be opened.
        Blocks.
        """
        found = os.open(link, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                return {}
            if is_forbidden(self._forbidden, os.readlink(f"/proc/self/fd/{found}")):  # noqa: PTH115 - no path
                self.refused += 1
                return {}
            version = _version(status)
            if len(self._known) > MAX_KNOWN:
                self._known.clear()
            missing = tuple(kind for kind in kinds if (kind, version) not in self._known)
            if missing and not self._hash(found, version, missing, sign):
                return {}
            return {kind: self._known[kind, version] for kind in kinds}
        finally:
            os.close(found)

    def _hash(self, found: int, version: Version, kinds: tuple[str, ...], sign: Callable[[], None]) -> bool:
        if version[2] > self._left:
            return False
        self._left -= version[2]
        file = _open_again(found)
        try:
            digests = [hashlib.new(KINDS[kind], usedforsecurity=False) for kind in kinds]
            if not self._update(file, version[2], digests, sign) or _version(os.fstat(file)) != version:
                return False
        finally:
            os.close(file)
        self._known.update(((kind, version), one.hexdigest()) for kind, one in zip(kinds, digests, strict=True))
        return True

    def _update(self, file: int, size: int, digests: list["hashlib._Hash"], sign: Callable[[], None]) -> bool:
        left = size
        while left > 0 and not self._stop.is_set():
            block = os.read(file, min(_BLOCK, left))
            if not block:
                return False
            for one in digests:
                one.update(block)
            left -= len(block)
            sign()
        return not left


def _open_again(found: int) -> int:
    link = f"/proc/self/fd/{found}"
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with suppress(PermissionError):  # somebody else's file, and no right to do so
        return os.open(link, flags | os.O_NOATIME)
    return os.open(link, flags)


def _version(status: os.stat_result) -> Version:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
