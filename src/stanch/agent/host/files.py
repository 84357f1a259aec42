"""The files of the endpoint, opened so that neither their names nor their kinds can play a trick.

A path may mean something else each time it is used, and opening the wrong thing is an act: a FIFO makes us wait, a
device may rewind a tape or arm a watchdog. So a file is first pinned with O_PATH, which touches nothing; what was
pinned is looked at; and only a regular file is opened for reading, through its own descriptor. Access times stay.
"""

import asyncio
import errno
import os
import pwd
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stanch.core.errors import ActionFailed, StanchError, TargetGone, TooLarge, Unsupported
from stanch.core.host import FileInfo
from stanch.core.types import EndpointPath

MAX_READ = 64 * 1_048_576
"""Bytes of one read: more would only be memory."""

_FIRST, _EPOCH, _LAST = (datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1970, 9999))

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


class LinuxFiles:
    """The files of the mount namespace that the agent runs in."""

    @asynccontextmanager
    async def open(self, path: EndpointPath) -> AsyncIterator[LinuxFile]:
        """Open a regular file for reading; TargetGone, ActionFailed, or Unsupported for what is no regular file."""
        file = await _opened(path)
        try:
            yield file
        finally:
            file.close()


async def _opened(path: EndpointPath) -> LinuxFile:
    """Open in a thread, as a network file system may hang; if nobody waits any more, close again."""
    opening = asyncio.get_running_loop().run_in_executor(None, _open, path)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[LinuxFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(path: EndpointPath) -> LinuxFile:
    try:
        pinned = os.open(path.raw, os.O_PATH | os.O_CLOEXEC)
        try:
            _refuse_odd_kinds(path, os.fstat(pinned))
            descriptor = _reopen(pinned)
        finally:
            os.close(pinned)
    except OSError as error:
        raise _explained(error, path) from error
    return LinuxFile(path, descriptor, _info(os.fstat(descriptor)))


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


def _info(found: os.stat_result) -> FileInfo:
    return FileInfo(
        size=found.st_size,
        mode=stat.S_IMODE(found.st_mode),
        user=account_name(found.st_uid),
        modified=_moment(found.st_mtime_ns),
        inode=found.st_ino,
    )


def account_name(uid: int) -> str:
    """The name of an account, or its number if it has none; asks the machine's name service, and may wait for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _moment(nanoseconds: int) -> datetime:
    """A file may carry any time that its file system can store; one outside the calendar becomes its nearest end."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _FIRST if nanoseconds < 0 else _LAST


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
