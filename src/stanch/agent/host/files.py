"""The files of the endpoint, opened so that neither their names nor their kinds can play a trick.

A path may mean something else each time it is used, and opening the wrong thing is an act: a FIFO makes us wait, a
device may rewind a tape or arm a watchdog. So a file is first pinned with O_PATH, which touches nothing; what was
pinned is looked at; and only a regular file is opened for reading, through its own descriptor. Access times stay.
"""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stanch.agent.host.critical import Critical
from stanch.agent.host.digests import digests_of
from stanch.agent.host.filetypes import FIRST_BYTES, type_of
from stanch.agent.host.metadata import extents, info_of
from stanch.agent.host.path_calls import path_of
from stanch.agent.host.putting import put
from stanch.agent.host.searching import Searcher
from stanch.agent.host.shredding import shred
from stanch.core.errors import ActionFailed, StanchError, TargetGone, TooLarge, Unsupported
from stanch.core.files import (
    Bytes,
    Digests,
    Extent,
    FileId,
    FileInfo,
    FileType,
    Found,
    HashKind,
    Placing,
    Search,
    Shredded,
    Skipped,
)
from stanch.core.types import EndpointPath

Check = Callable[[EndpointPath], None]
"""Raises if a real path must not be used."""

MAX_READ = 64 * 1_048_576
"""Bytes of one read: more would only be memory."""

_MADE_UP = (Path("/proc"), Path("/sys"))
"""File systems whose files the kernel makes up while they are read; the sizes that they show mean nothing."""

_ODD_KINDS = {
    stat.S_IFDIR: ("a folder", "Name a file inside it."),
    stat.S_IFIFO: ("a FIFO", "It holds no content of its own; look for the process that writes to it."),
    stat.S_IFSOCK: ("a socket", "It holds no content; look for the process that listens on it."),
    stat.S_IFBLK: ("a block device", "A disk is taken as an image, not as a file."),
    stat.S_IFCHR: ("a character device", "It has no end."),
}

_MEANINGS: dict[int, tuple[type[StanchError], str]] = {
    errno.ENOENT: (TargetGone, "There is no file {}"),
    errno.ENOTDIR: (TargetGone, "There is no file {}: a part of its path is no folder"),
    errno.ESTALE: (TargetGone, "The file {} has vanished from its network file system"),
    errno.ELOOP: (ActionFailed, "The links of {} lead in a circle"),
    errno.ENAMETOOLONG: (ActionFailed, "A part of {} is longer than its file system allows"),
    errno.EACCES: (ActionFailed, "The agent may not read {}"),
    errno.EPERM: (ActionFailed, "The agent may not read {}"),
    errno.EAGAIN: (ActionFailed, "Another program holds a lease on {}"),
}


class LinuxFile:
    """A regular file that is open for reading."""

    def __init__(self, path: EndpointPath, descriptor: int, info: FileInfo) -> None:
        self._path = path
        self._held = _Descriptor(descriptor)
        self._info = info

    @property
    def info(self) -> FileInfo:
        """As it was when opened."""
        return self._info

    @property
    def path(self) -> EndpointPath:
        """What it is called: all links on the way resolved."""
        return self._path

    async def extents(self) -> Sequence[Extent]:
        """Where it holds data, in order."""
        return await asyncio.to_thread(self._extents)

    def _extents(self) -> tuple[Extent, ...]:
        with self._held.in_use() as descriptor:
            return extents(descriptor, self._info.size)

    async def digests(self, kinds: Collection[HashKind]) -> Digests:
        """Its hashes, read from start to end once; whoever is cancelled does not wait for the disk."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._digests, tuple(kinds), stop)
        finally:
            stop.set()

    def _digests(self, kinds: Collection[HashKind], stop: threading.Event) -> Digests:
        with self._held.in_use() as descriptor:
            try:
                found = extents(descriptor, self._info.size)
                return digests_of(descriptor, size=self._info.size, extents=found, kinds=kinds, stop=stop)
            except OSError as error:
                raise _explained(error, self._path) from error

    async def type(self) -> FileType:
        """What it seems to be, by its first bytes."""
        first = await self.read(0, FIRST_BYTES)
        return await asyncio.to_thread(type_of, first, size=self._info.size)

    async def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`, fewer only at the end; ActionFailed if the disk gives none."""
        if not 0 <= length <= MAX_READ:
            raise TooLarge("A read is too large", got=f"{length} bytes", expected=f"at most {MAX_READ} bytes")
        return await asyncio.to_thread(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        with self._held.in_use() as descriptor:
            while length > 0:
                try:
                    part = os.pread(descriptor, length, offset)
                except OSError as error:
                    raise _explained(error, self._path) from error
                if not part:
                    break
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of it, at the latest when the last read that is under way has come back."""
        self._held.close()


def _anything(_path: EndpointPath) -> None:
    """Nothing is forbidden."""


class LinuxFiles:
    """The files of the mount namespace that the agent runs in, in the hands of one task.

    Args:
        critical: says what must stay.
        forbidden: raises ForbiddenHere for a real path that the owner of the machine forbids.
        writable: the same, for where no file may be put.
    """

    def __init__(
        self, *, critical: Critical | None = None, forbidden: Check = _anything, writable: Check = _anything
    ) -> None:
        self._critical = critical or Critical()
        self._forbidden = forbidden
        self._writable = writable

    @asynccontextmanager
    async def open(self, path: EndpointPath) -> AsyncIterator[LinuxFile]:
        """Open a regular file for reading; TargetGone, ActionFailed, or Unsupported for what is no regular file."""
        file = await _opened(path, self._forbidden)
        try:
            yield file
        finally:
            file.close()

    async def look(self, path: EndpointPath) -> FileInfo | None:
        """What is there now, the last component not followed; None if nothing is."""
        return await asyncio.to_thread(self._look, path)

    def _look(self, path: EndpointPath) -> FileInfo | None:
        try:
            status = os.lstat(path.raw)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _explained(error, path) from error
        self._forbidden(_real(path))
        return info_of(status)

    async def search(self, search: Search) -> AsyncIterator[Sequence[Found | Skipped]]:
        """Everything that fits, in batches; a thread looks, and ends soon when nobody waits any more."""
        searcher = Searcher(search, forbidden=self._forbidden)
        loop = asyncio.get_running_loop()
        while True:
            looking = loop.run_in_executor(None, searcher.next)
            try:
                batch = await asyncio.shield(looking)
            except asyncio.CancelledError:
                searcher.stop()
                looking.add_done_callback(lambda _: searcher.close())
                raise
            if batch is None:
                return
            try:
                yield batch
            except BaseException:
                searcher.close()
                raise

    async def why_protected(self, path: EndpointPath) -> str | None:
        """Why what is there must not be taken away or replaced; None if it may be, or nothing is there."""
        return await asyncio.to_thread(self._why_protected, path)

    def _why_protected(self, path: EndpointPath) -> str | None:
        try:
            return self._critical.why(_real(path), os.lstat(path.raw))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _explained(error, path) from error

    async def put(self, placing: Placing, content: Bytes) -> FileInfo:
        """Write a new file beside its place, verify it, and give it its name once it is whole and on the disk."""
        return await put(placing, content, protected=self._critical.why, writable=self._writable)

    async def shred(self, path: EndpointPath, expected: FileId) -> Shredded:
        """Overwrite this very file in place, and remove its name."""
        return await asyncio.to_thread(shred, path, expected, forbidden=self._forbidden, protected=self._critical.why)


def _real(path: EndpointPath) -> EndpointPath:
    """The links of its folders resolved; the last component may be a link, and stays one."""
    folder, _, name = path.raw.rstrip(b"/").rpartition(b"/")
    if name in {b"", b".", b".."}:
        return EndpointPath.of(os.path.realpath(path.raw))
    return EndpointPath.of(os.path.realpath(folder or b"/").rstrip(b"/") + b"/" + name)


async def _opened(path: EndpointPath, forbidden: Check) -> LinuxFile:
    """Open in a thread, as a network file system may hang; if nobody waits any more, close again."""
    opening = asyncio.get_running_loop().run_in_executor(None, _open, path, forbidden)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[LinuxFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(path: EndpointPath, forbidden: Check) -> LinuxFile:
    try:
        pinned = os.open(path.raw, os.O_PATH | os.O_CLOEXEC)
        try:
            # Of what is held, not of what was asked for: links that are swapped in between lead nowhere.
            real = EndpointPath.of(path_of(pinned))
            forbidden(real)
            _refuse_odd_kinds(path, os.fstat(pinned))
            descriptor = _reopen(pinned)
        finally:
            os.close(pinned)
    except OSError as error:
        raise _explained(error, path) from error
    return LinuxFile(real, descriptor, info_of(os.fstat(descriptor)))


def _reopen(pinned: int) -> int:
    """Open what is pinned, without changing its access time where that is allowed (to root and the owner)."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{pinned}", flags | os.O_NOATIME)
    except PermissionError:
        return os.open(f"/proc/self/fd/{pinned}", flags)


def _refuse_odd_kinds(path: EndpointPath, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode) and found.st_dev not in {one.stat().st_dev for one in _MADE_UP if one.is_mount()}:
        return
    made_up = ("made up by the kernel while it is read", "It has no size; run a program that prints it.")
    what, hint = _ODD_KINDS.get(stat.S_IFMT(found.st_mode), made_up)
    raise Unsupported(f"{path} cannot be read as a file", got=what, expected="a regular file", hint=hint)


def _explained(error: OSError, path: EndpointPath) -> StanchError:
    kind, message = _MEANINGS.get(error.errno or 0, (ActionFailed, "The file {} cannot be read"))
    return kind(message.format(path), got=error.strerror)


@dataclass(slots=True)
class _Descriptor:
    """A file descriptor that is closed when nobody uses it any more.

    A cancelled read goes on in its thread. Were the descriptor closed beneath it, the kernel would give the number to
    the next file, and the thread would read that.
    """

    number: int
    users: int = 0
    unwanted: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def in_use(self) -> Iterator[int]:
        """The descriptor, which stays open meanwhile; ActionFailed if it has been closed."""
        with self.lock:
            if self.unwanted:
                raise ActionFailed("The file has been closed")
            self.users += 1
        try:
            yield self.number
        finally:
            self._give_back()

    def _give_back(self) -> None:
        with self.lock:
            self.users -= 1
            if self.unwanted and not self.users:
                os.close(self.number)

    def close(self) -> None:
        """Close it now, or when its last user is done; once."""
        with self.lock:
            if not self.unwanted and not self.users:
                os.close(self.number)
            self.unwanted = True
