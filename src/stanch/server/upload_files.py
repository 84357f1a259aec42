"""The bytes of uploads on the disk: one file each, named by our own identifier, whole or not there."""

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stanch.core.errors import TooLarge, Unavailable, VerificationFailed

BLOCK = 1_048_576
"""Bytes that are written and hashed at a time."""

KEEP_FREE = 2**28
"""Bytes of the disk that uploads never take: the database must go on."""

SILENT_SECONDS = 60
"""An upload of which nothing comes for so long is given up."""

_HALF = ".half-"


@dataclass(frozen=True, slots=True)
class Received:
    """What has come."""

    size: int
    sha256: str


async def receive(path: Path, chunks: AsyncIterable[bytes], *, most: int, sha256: str | None = None) -> Received:
    """Write all of it beside its place, fsync, and give it its name; nothing is left behind if that fails.

    TooLarge over `most` bytes, VerificationFailed unless it has the announced SHA-256, Unavailable if there is no room.
    """
    temporary = path.with_name(f"{_HALF}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb", buffering=0) as file:
            received = await _write(file, chunks, most)
            _check(received, sha256)
            await asyncio.to_thread(os.fsync, file.fileno())
        await asyncio.to_thread(settle, temporary, path)
    except OSError as error:
        raise _disk_error(error) from error
    finally:
        with suppress(OSError):  # the first error is the one to hear about; the next start removes what is left
            temporary.unlink(missing_ok=True)
    return received


async def _write(file: BinaryIO, chunks: AsyncIterable[bytes], most: int) -> Received:
    digest, size = hashlib.sha256(), 0
    async for block in _blocks(chunks):
        size += len(block)
        if size > most:
            raise too_large(f"over {most} bytes", most)
        await asyncio.to_thread(_write_block, file, block, digest)
    return Received(size, digest.hexdigest())


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks that are worth a thread's while."""
    waiting = bytearray()
    async for chunk in _in_time(chunks):
        waiting += chunk
        if len(waiting) >= BLOCK:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _in_time(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same; Unavailable when nothing comes any more."""
    following = aiter(chunks)
    while True:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                chunk = await anext(following)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Unavailable("The upload came too slowly", expected=f"something in {SILENT_SECONDS} seconds") from None
        yield chunk


def _write_block(file: BinaryIO, block: bytes, digest: "hashlib._Hash") -> None:
    refuse_full_disk(file.fileno(), len(block))
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]
    digest.update(block)


def refuse_full_disk(folder: Path | int, size: int) -> None:
    """Unavailable unless there is room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if size + KEEP_FREE > free:
        raise Unavailable(
            "The server has no room for this upload",
            got=f"{size} bytes, with {free} free",
            hint="Free space on the server's disk; `stanch uploads delete` removes uploads that nobody needs.",
        )


def too_large(got: object, most: int) -> TooLarge:
    """The upload has too many bytes."""
    return TooLarge(
        "The upload is too large",
        got=got,
        expected=f"at most {most} bytes",
        hint="`stanch server --max-upload` sets how large one may be.",
    )


def _check(received: Received, sha256: str | None) -> None:
    if sha256 is not None and received.sha256 != sha256:
        raise VerificationFailed(
            "The upload is not what was announced",
            got=f"{received.size} bytes with SHA-256 {received.sha256}",
            expected=f"SHA-256 {sha256}",
            hint="Has the file changed meanwhile? Then try again.",
        )


def settle(temporary: Path, path: Path) -> None:
    """Give a file that is on the disk its name, and wait until that is on the disk too."""
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _disk_error(error: OSError) -> Unavailable:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Unavailable("The server's disk is full", hint="Free space on it, then try again.")
    return Unavailable("The server could not write the upload", got=error.strerror)


def remove_all_but(folder: Path, kept: Collection[str]) -> int:
    """Remove what is half-written, and what no upload is called; how many files."""
    folder.mkdir(mode=0o700, exist_ok=True)
    odd = [path for path in folder.iterdir() if path.name not in kept]
    for path in odd:
        path.unlink(missing_ok=True)
    return len(odd)
