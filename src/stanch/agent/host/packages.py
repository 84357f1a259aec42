"""Which package a file belongs to, and whether it still is as the package brought it: dpkg, rpm, apk.

Reads the databases anew for each question, of many files at a time; nothing is kept. A database says what whoever may
write it says: it finds what was left out or changed carelessly, and proves nothing against root. Blocks: call it from
a thread.
"""

import hashlib
import os
import posixpath
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stanch.agent.host.package_apk import Apk
from stanch.agent.host.package_database import Brought, Database
from stanch.agent.host.package_dpkg import Dpkg
from stanch.agent.host.package_rpm import Rpm
from stanch.agent.host.path_calls import pin_below
from stanch.core.types import EndpointPath

T = TypeVar("T")

MAX_FILE = 1_073_741_824
"""Bytes of a file that is compared; of a larger one nobody can tell."""
MAX_ALL = 16 * 1_073_741_824
"""Bytes of all that are compared for one question."""

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32", "usr/sbin", "usr/lib64")
"""Folders that are links on some machines: packages call what is in them by either name."""
_BLOCK = 1_048_576


class Packages:
    """The package databases of a machine, or of an image, below its root folder."""

    def __init__(self, root: Path = Path("/"), *, databases: Collection[Database] | None = None) -> None:
        self._root = root
        self._databases = (Dpkg(root), Rpm(root), Apk(root)) if databases is None else tuple(databases)

    def owners(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, str]:
        """Package name by path, for those that have one; both sides of a merged /usr are tried."""
        names = self._names(paths)
        found: dict[bytes, str] = {}
        for database in self._databases:
            found = {**database.owners(_all_of(names)), **found}
        return dict(_first(names, found))

    def differs(self, path: EndpointPath) -> bool | None:
        """Is the file another one than its package brought? None if nobody can tell."""
        return self.differs_many([path]).get(path)

    def differs_many(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, bool]:
        """By path: is the file another one than its package brought? Those of which nobody can tell are left out.

        A link or anything else in the place of a file differs. What has no package, what its package writes no
        checksum of, what is gone and what cannot be read is left out.
        """
        names = self._names(paths)
        found: dict[bytes, Brought] = {}
        for database in self._databases:
            found = {**database.brought(_all_of(names)), **found}
        left, answers = MAX_ALL, dict[EndpointPath, bool]()
        with suppress(OSError), _folder(self._root) as root:
            for path, brought in _first(names, found):
                answer, read = _differs(root, path, brought, min(MAX_FILE, left))
                left -= read
                if answer is not None:
                    answers[path] = answer
        return answers

    def _names(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, tuple[bytes, ...]]:
        """What a package may call each of these files."""
        pairs = list(_merged(self._root))
        return {path: _also_called(path.raw, pairs) for path in dict.fromkeys(paths)}


def _all_of(names: Mapping[EndpointPath, tuple[bytes, ...]]) -> frozenset[bytes]:
    return frozenset(name for several in names.values() for name in several)


def _first(
    names: Mapping[EndpointPath, tuple[bytes, ...]], found: Mapping[bytes, T]
) -> Iterator[tuple[EndpointPath, T]]:
    for path, several in names.items():
        name = next((name for name in several if name in found), None)
        if name is not None:
            yield path, found[name]


def _merged(root: Path) -> Iterator[tuple[bytes, bytes]]:
    """The folders that are links to others here, as (link, folder), each with a slash at both ends."""
    for one in _MERGED:
        with suppress(OSError):
            target = os.readlink(root / one)  # noqa: PTH115 - text, not a path to walk
            there = posixpath.normpath(posixpath.join("/", posixpath.dirname(one), target))
            yield os.fsencode(f"/{one}/"), os.fsencode(f"{there.rstrip('/')}/")


def _also_called(name: bytes, pairs: Collection[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """The name itself, and the others that lead to the same file through the links."""
    found = {name: None}
    for _ in range(2):  # /sbin may lead to /usr/sbin, and that to /usr/bin
        for known in list(found):
            for link, folder in pairs:
                for one, other in ((link, folder), (folder, link)):
                    if known.startswith(one):
                        found[other + known[len(one) :]] = None
    return tuple(found)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _differs(root: int, path: EndpointPath, brought: Brought, limit: int) -> tuple[bool | None, int]:
    """The answer, and how many bytes were read for it."""
    with suppress(OSError), ExitStack() as held:
        pinned = pin_below(root, path.raw, follow=False)
        held.callback(os.close, pinned)
        status = os.fstat(pinned)
        if not stat.S_ISREG(status.st_mode):  # a link, too: it is held itself, and not followed
            return True, 0
        if status.st_size > limit:
            return None, 0
        # What is held is what is read, whatever is at the path by now.
        file = os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, file)
        return _digest(file, brought.kind, limit) != brought.digest, status.st_size
    return None, 0


def _digest(file: int, kind: str, limit: int) -> str:
    digest, left = hashlib.new(kind, usedforsecurity=False), limit
    while left > 0 and (block := os.read(file, min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
