"""Where a program's output is kept until it is sent: two files that only root can read, gone when the task is done.

If the agent is killed, they stay where they are; its next start removes them (`sweep`).
"""

import asyncio
import codecs
import os
import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import token_hex

from stanch.core.errors import ActionFailed
from stanch.core.files import Extent
from stanch.core.programs import Output
from stanch.core.types import Size

NAMES = ("stdout", "stderr")
SHOWN = 3000
"""Characters of the beginning that are shown."""

_RUN = re.compile(r"run-[0-9A-Za-z_-]{1,64}\.[0-9a-f]{16}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_SWEPT = 100_000


class KeptStream:
    """What was kept of one stream: `core.evidence.Source`."""

    def __init__(self, name: str, spool: "Spool", which: int, size: int) -> None:
        self._name = name
        self._spool = spool
        self._which = which
        self._size = size

    @property
    def name(self) -> str:
        """The program and the stream."""
        return self._name

    @property
    def size(self) -> int:
        """As many as were kept when it was asked for."""
        return self._size

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes."""
        data = await asyncio.to_thread(self._spool.read, self._which, length, offset)
        if len(data) != length:
            raise ActionFailed("The kept output became shorter", got=f"{len(data)} bytes", expected=f"{length} bytes")
        return data

    async def extents(self) -> Sequence[Extent]:
        """All of it."""
        return (Extent(offset=0, length=self._size),) if self._size else ()


class Spool:
    """The two files of one run. Blocks."""

    def __init__(self, place: Path, task: str, stack: ExitStack) -> None:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stack = stack
        self._name = f"run-{task}.{token_hex(8)}"
        self._place = self._held(os.open(place, _FOLDER))
        os.fchmod(self._place, 0o700)
        os.mkdir(self._name, 0o700, dir_fd=self._place)
        self._folder = self._held(os.open(self._name, _FOLDER, dir_fd=self._place))
        stack.callback(self._remove)
        self.files = tuple(self._held(_create(self._folder, name)) for name in NAMES)
        # The stack goes in reverse: nobody reads any more, then the files are closed, then their names removed.
        self._closed, self._reading = False, threading.Lock()
        stack.callback(self._close)

    def _held(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        return descriptor

    def _close(self) -> None:
        """A cancelled read goes on in its thread: it must not meet what gets the number of a closed file next."""
        with self._reading:
            self._closed = True

    def read(self, which: int, length: int, offset: int) -> bytes:
        """What was kept of a stream, fewer only at the end; ActionFailed if it was forgotten, or the disk fails."""
        with self._reading:
            if self._closed:
                raise ActionFailed("The kept output is no longer there")
            try:
                return read_all(self.files[which], length, offset)
            except OSError as error:
                raise ActionFailed("The kept output cannot be read", got=error.strerror) from error

    def _remove(self) -> None:
        with suppress(OSError):
            _empty(self._folder)
            os.rmdir(self._name, dir_fd=self._place)

    def output(self, which: int, written: int, kept: int) -> Output:
        """What was written on a stream, with the beginning of it."""
        text = shown(self.read(which, min(kept, 4 * SHOWN), 0), whole=kept <= 4 * SHOWN)
        return Output(written=Size(written), kept=Size(kept), text=text)


def shown(data: bytes, *, whole: bool) -> str:
    r"""The beginning of an output as text, odd bytes as `\xff`; a character that was cut in two is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    return decoder.decode(data, final=whole)[:SHOWN]


def read_all(file: int, length: int, offset: int) -> bytes:
    """These bytes, fewer only at the end. OSError."""
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(file, min(length, 1_048_576), offset)):
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def sweep(place: Path) -> int:
    """Remove what earlier lives of the agent have left; how many runs. Call it before anything is run."""
    try:
        folder = os.open(place, _FOLDER)
    except OSError:
        return 0
    try:
        found = [name for name in os.listdir(folder)[:_MAX_SWEPT] if _RUN.fullmatch(name)]  # noqa: PTH208 - a descriptor
        return sum(_swept(folder, name) for name in found)
    finally:
        os.close(folder)


def _swept(place: int, name: str) -> bool:
    try:
        folder = os.open(name, _FOLDER, dir_fd=place)
    except OSError:
        return False
    try:
        _empty(folder)
        os.rmdir(name, dir_fd=place)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _empty(folder: int) -> None:
    for name in NAMES:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _create(folder: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=folder)
