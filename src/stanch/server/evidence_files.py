"""The bytes of evidence on the disk: part files, written once, named by number and hash."""

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stanch.core.errors import Invalid, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import PART_BYTES, PartInfo

BLOCK = 1_048_576
"""Bytes that are written, read and hashed at a time."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a part file."""

    path: Path
    start: int
    length: int


def size_of_part(size: int, n: int) -> int:
    """How many bytes part n of `size` has; Invalid if there is no such part."""
    count = -(-size // PART_BYTES)
    if not 0 <= n < count:
        raise Invalid("There is no such part", got=n, expected=f"0 to {count - 1}" if count else "no parts")
    return min(PART_BYTES, size - n * PART_BYTES)


async def receive(path: Path, part: PartInfo, chunks: AsyncIterable[bytes]) -> None:
    """Write the part beside its place, check size and hash, fsync, and give it its name."""
    temporary = path.with_name(f".part-{secrets.token_hex(8)}")
    digest = hashlib.sha256()
    try:
        with temporary.open("xb", buffering=0) as file:
            received = 0
            async for block in _blocks(chunks):
                received += len(block)
                if received > part.size:
                    break
                await asyncio.to_thread(_write_block, file, block, digest)
            _check_part(part, received, digest.hexdigest())
            await asyncio.to_thread(os.fsync, file.fileno())
        await asyncio.to_thread(_settle, temporary, path)
    except OSError as error:
        raise _disk_error(error) from error
    finally:
        temporary.unlink(missing_ok=True)


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks that are worth a thread's while."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= BLOCK:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _write_block(file: BinaryIO, block: bytes, digest: Any) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]
    digest.update(block)


def _check_part(part: PartInfo, received: int, sha256: str) -> None:
    if received > part.size:
        raise TooLarge(f"Part {part.n} is too large", got=f"over {part.size} bytes", expected=f"{part.size} bytes")
    if received < part.size:
        raise Invalid(f"Part {part.n} is too short", got=f"{received} bytes", expected=f"{part.size} bytes")
    if sha256 != part.sha256:
        raise VerificationFailed(f"Part {part.n} was damaged on the way", got=sha256, expected=part.sha256)


def _settle(temporary: Path, path: Path) -> None:
    temporary.rename(path)
    _sync_folder(path.parent)


def fresh_folder(path: Path) -> None:
    """An empty folder: a new one, or the one that is there without what it held."""
    path.mkdir(mode=0o700, exist_ok=True)
    for old in path.iterdir():
        old.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _disk_error(error: OSError) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Unavailable("The server's disk is full", hint="Free space on it; the endpoint goes on by itself.")
    return Unavailable("The server could not write the evidence", got=error.strerror)


def hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 of the files one after the other, hexadecimal; Unavailable if one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    digest.update(block)
    except OSError as error:
        raise Unavailable("Evidence on the server's disk cannot be read", got=error.strerror) from error
    return digest.hexdigest()


def pieces(paths: Sequence[Path], start: int, length: int) -> Iterator[Piece]:
    """Which bytes of which part files a range is."""
    while length > 0:
        n, offset = divmod(start, PART_BYTES)
        here = min(length, PART_BYTES - offset)
        yield Piece(paths[n], offset, here)
        start, length = start + here, length - here


async def stream(wanted: Sequence[Piece]) -> AsyncIterator[bytes]:
    """The bytes of these pieces, a block at a time."""
    for piece in wanted:
        with piece.path.open("rb", buffering=0) as file:
            file.seek(piece.start)
            left = piece.length
            while left > 0:
                block = await asyncio.to_thread(file.read, min(BLOCK, left))
                if not block:
                    raise Unavailable("Evidence on the server's disk is shorter than it was")
                left -= len(block)
                yield block


def remove_unfinished(folder: Path) -> int:
    """At start: remove part files that a crash left half-written; how many."""
    found = list(folder.glob("*/.part-*"))
    for path in found:
        with suppress(FileNotFoundError):
            path.unlink()
    return len(found)
