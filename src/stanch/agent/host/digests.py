"""Hashes of a file in one pass: holes are not read, and a second kind of hash has a thread of its own."""

import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from stanch.core.errors import ActionFailed, Cancelled
from stanch.core.files import Digests, Extent, HashKind

BLOCK = 1_048_576
_ZEROS = bytes(BLOCK)


def digests_of(
    descriptor: int,
    *,
    size: int,
    extents: Sequence[Extent],
    kinds: Collection[HashKind],
    stop: threading.Event | None = None,
    told: Callable[[int], None] = lambda _done: None,
) -> Digests:
    """The hashes of the first `size` bytes; OSError, ActionFailed if the file became shorter, Cancelled. Blocks."""
    found = {kind: hashlib.new(kind.value, usedforsecurity=False) for kind in dict.fromkeys(kinds)}
    done = 0
    with _beside(size, len(found)) as update:
        for block in _blocks(descriptor, size, extents):
            if stop is not None and stop.is_set():
                raise Cancelled("The hashing was stopped")
            update(list(found.values()), block)
            done += len(block)
            told(done)
    return Digests.model_validate({kind.value: one.hexdigest() for kind, one in found.items()})


@contextmanager
def _beside(size: int, count: int) -> Iterator[Callable[[Sequence["hashlib._Hash"], bytes], None]]:
    """Updates hashes with a block: of a large file each in a thread of its own, of a small one in turn."""
    if count < 2 or size <= BLOCK:  # noqa: PLR2004 - one alone has nobody beside it
        yield _one_after_another
        return
    with ThreadPoolExecutor(count - 1, thread_name_prefix="hash") as pool:

        def update(ones: Sequence["hashlib._Hash"], block: bytes) -> None:
            waiting = [pool.submit(one.update, block) for one in ones[1:]]
            ones[0].update(block)
            for one in waiting:
                one.result()

        yield update


def _one_after_another(ones: Sequence["hashlib._Hash"], block: bytes) -> None:
    for one in ones:
        one.update(block)


def _blocks(descriptor: int, size: int, extents: Sequence[Extent]) -> Iterator[bytes]:
    """The content from start to end, in blocks; zeros where there is a hole."""
    at = 0
    for extent in extents:
        yield from _zeros(extent.offset - at)
        at = extent.offset
        end = min(extent.offset + extent.length, size)
        while at < end:
            block = os.pread(descriptor, min(BLOCK, end - at), at)
            if not block:
                raise ActionFailed(
                    "The file became shorter while it was read", got=f"{at} bytes", expected=f"{size} bytes"
                )
            yield block
            at += len(block)
    yield from _zeros(size - at)


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield _ZEROS[:length]
        length -= BLOCK
