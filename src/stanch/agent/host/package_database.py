"""What the package databases have in common: who owns a name, and what a package brought there.

A database knows files by the name that its package gave them, as bytes. It is read anew for each question: an index
of a desktop's 400,000 names would be held for nothing most of the time.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

MAX_NAME = 200
"""Characters of a package's name that are told: as much as `core.types.Text` is sure to hold."""


DigestKind = Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]


@dataclass(frozen=True, slots=True)
class Brought:
    """The content of a file, as its package brought it."""

    kind: DigestKind
    digest: str
    """In lower-case hexadecimal."""


class Database(Protocol):
    """One package manager's knowledge. Everything blocks; what cannot be read is not known."""

    def owners(self, names: Collection[bytes]) -> Mapping[bytes, str]:
        """The package of each file that has one."""
        ...

    def brought(self, names: Collection[bytes]) -> Mapping[bytes, Brought]:
        """What each file was when its package brought it, where that is written down."""
        ...


def read_up_to(path: Path | str | bytes, limit: int, *, folder: int | None = None) -> bytes:
    """A regular file, up to `limit` bytes; nothing if it cannot be read, or is none."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=folder)
        try:
            return _whole(file, min(os.fstat(file).st_size, limit))
        finally:
            os.close(file)
    return b""


def _whole(file: int, size: int) -> bytes:
    # One read gives at most 2 GiB, and of a regular file no less than asked for.
    return os.read(file, size) if size else b""


def package_name(raw: bytes) -> str:
    """A package's name as text, bounded."""
    return raw[:MAX_NAME].decode("utf-8", "backslashreplace")[:MAX_NAME]


def in_batches(names: Iterable[bytes], *, count: int, size: int) -> Iterable[list[bytes]]:
    """The names in lists of at most so many names and bytes: a command line has a limit."""
    batch: list[bytes] = []
    used = 0
    for name in names:
        if batch and (len(batch) >= count or used + len(name) > size):
            yield batch
            batch, used = [], 0
        batch.append(name)
        used += len(name)
    if batch:
        yield batch
