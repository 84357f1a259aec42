"""Read a file once: hashes and the whole content for the rules, in memory that is bounded.

Small files are read into a buffer that each thread has; larger ones into memory of their own; the largest are hashed as
they stream by, and mapped for the rules, whose engine survives a file that shrinks under it.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

SMALL: Final = 4 * 2**20
"""Bytes of the buffer of a thread."""
MIDDLE: Final = 32 * 2**20
"""Bytes of a file that is read into memory of its own; larger ones are mapped."""
BLOCK: Final = 4 * 2**20

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Shrank(Exception):
    """There is less of it than there was."""


def opened(folder: int, name: bytes) -> int:
    """A file for reading, without a new access time where that is allowed. OSError."""
    try:
        return os.open(name, _READ | os.O_NOATIME, dir_fd=folder)
    except PermissionError:
        return os.open(name, _READ, dir_fd=folder)


class Reader:
    """Reads for one thread; `alive` is called after each piece."""

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive
        self._buffer = mmap.mmap(-1, SMALL)
        self._view = memoryview(self._buffer)

    @contextmanager
    def content(
        self,
        file: int,
        size: int,
        kinds: Collection[str],
        hashes: dict[str, bytes],
        feed: Callable[[bytes], None] | None,
    ) -> Iterator[Any]:
        """The whole content, as something with a buffer, for as long as the block runs; its hashes are added.

        `feed` is given all of it, piece by piece. OSError; Shrank.
        """
        if size <= SMALL:
            view = self._view[:size]
            self._fill(file, view)
            yield self._taken(view, kinds, hashes, feed)
        elif size <= MIDDLE:
            with mmap.mmap(-1, size) as memory, memoryview(memory) as view:
                self._fill(file, view)
                yield self._taken(view, kinds, hashes, feed)
        else:
            self._stream(file, size, kinds, hashes, feed)
            with mmap.mmap(file, size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as memory:
                yield memory

    def read(
        self,
        file: int,
        size: int,
        kinds: Collection[str],
        hashes: dict[str, bytes],
        feed: Callable[[bytes], None] | None,
    ) -> None:
        """Only its hashes, and the pieces for `feed`. OSError; Shrank."""
        if size <= SMALL:
            with self.content(file, size, kinds, hashes, feed):
                return
        self._stream(file, size, kinds, hashes, feed)

    def stream(self, file: int, size: int, kinds: Collection[str], hashes: dict[str, bytes]) -> None:
        """Only its hashes, while the content that was given last is not in use any more, or is not in the buffer.

        OSError; Shrank.
        """
        self._stream(file, size, kinds, hashes, None)

    def _fill(self, file: int, view: memoryview) -> None:
        at = 0
        while at < len(view):
            done = os.preadv(file, [view[at : at + BLOCK]], at)
            if done == 0:
                raise Shrank
            at += done
            self._alive()

    def _taken(
        self, view: memoryview, kinds: Collection[str], hashes: dict[str, bytes], feed: Callable[[bytes], None] | None
    ) -> memoryview:
        for kind in kinds:
            hashes[kind] = hashlib.new(kind, view, usedforsecurity=False).digest()
        if feed is not None:
            for at in range(0, len(view), BLOCK):
                feed(bytes(view[at : at + BLOCK]))
        return view

    def _stream(
        self,
        file: int,
        size: int,
        kinds: Collection[str],
        hashes: dict[str, bytes],
        feed: Callable[[bytes], None] | None,
    ) -> None:
        if not kinds and feed is None:
            return
        states = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
        at = 0
        while at < size:
            done = os.preadv(file, [self._view[: min(BLOCK, size - at)]], at)
            if done == 0:
                raise Shrank
            for state in states.values():
                state.update(self._view[:done])
            if feed is not None:
                feed(bytes(self._view[:done]))
            at += done
            self._alive()
        hashes.update({kind: state.digest() for kind, state in states.items()})
