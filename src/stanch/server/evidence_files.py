"""The bytes of evidence on the disk: part files, written once, encrypted, named by number and hash.

What comes sealed is stored as it came. What comes plain, from agents that know no evidence key, is sealed here; until
then it lies in a file that has no name. Reading opens one part after the other: memory stays flat whatever the size.
"""

import asyncio
import errno
import hashlib
import os
import secrets
import sys
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from stanch.core.errors import Invalid, TooLarge, Unavailable, VerificationFailed
from stanch.core.frames import PART_BYTES, Encoding, PartInfo, sealed_bound
from stanch.server.custody import Custody, seal

BLOCK = 1_048_576
"""Bytes that are written, read and hashed at a time."""

_WINDOW_LOG = 23
"""The largest window of a zstd frame that is accepted: 8 MiB, a whole part."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A part as it is announced."""

    info: PartInfo
    encoding: Encoding
    sha256: str
    """Of the body."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A part as it is kept."""

    info: PartInfo
    encoding: Encoding
    size: int
    """Bytes of its file."""
    sha256: str
    """Of its file."""

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.info.n:07}-{self.sha256}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a part; None for one that is nothing but zeros."""

    part: Kept | None
    start: int
    length: int


def size_of_part(size: int, n: int) -> int:
    """How many bytes part n of `size` has; Invalid if there is no such part."""
    count = -(-size // PART_BYTES)
    if not 0 <= n < count:
        raise Invalid("There is no such part", got=n, expected=f"0 to {count - 1}" if count else "no parts")
    return min(PART_BYTES, size - n * PART_BYTES)


# --- in --------------------------------------------------------------------------------------------------------------


async def receive(folder: Path, part: Incoming, chunks: AsyncIterable[bytes], *, recipient: str) -> Kept:
    """Write the part beside its place, check size and hash, fsync, and give it its name."""
    temporary = _temporary(folder)
    try:
        with temporary.open("xb+", buffering=0) as file:
            if part.encoding is Encoding.PLAIN:
                temporary.unlink()
            size = await _take(file, part, chunks)
            if part.encoding is Encoding.PLAIN:
                return await asyncio.to_thread(_seal, file, folder, part.info, recipient)
            await asyncio.to_thread(_sync, file)
        kept = Kept(part.info, part.encoding, size, part.sha256)
        await asyncio.to_thread(_settle, temporary, folder / kept.file)
    except OSError as error:
        raise _disk_error(error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return kept


def _temporary(folder: Path) -> Path:
    return folder / f".part-{secrets.token_hex(8)}"


async def _take(file: BinaryIO, part: Incoming, chunks: AsyncIterable[bytes]) -> int:
    """The body, into the file; how many bytes it was."""
    sealed, digest, received = part.encoding is not Encoding.PLAIN, hashlib.sha256(), 0
    most = sealed_bound(part.info.size) if sealed else part.info.size
    async with _Writing(file, digest) as writing:
        async for block in _blocks(chunks):
            received += len(block)
            if received > most:
                raise TooLarge(f"Part {part.info.n} is too large", got=f"over {most} bytes", expected=f"{most} bytes")
            await writing.begin(block)
    if received < (1 if sealed else most):
        raise Invalid(f"Part {part.info.n} is too short", got=f"{received} bytes", expected=f"{most} bytes")
    if digest.hexdigest() != part.sha256:
        message = f"Part {part.info.n} was damaged on the way"
        raise VerificationFailed(message, got=digest.hexdigest(), expected=part.sha256)
    return received


class _Writing:
    """Writes and hashes a block in a thread while the next one comes."""

    def __init__(self, file: BinaryIO, digest: "hashlib._Hash") -> None:
        self._file, self._digest = file, digest
        self._last: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._done()

    async def begin(self, block: bytes) -> None:
        """When the block before is written, begin with this one."""
        await self._done()
        loop = asyncio.get_running_loop()
        self._last = loop.run_in_executor(None, _write_block, self._file, block, self._digest)

    async def _done(self) -> None:
        """The file must not be closed under the thread, whoever stops waiting."""
        last, self._last = self._last, None
        if last is not None:
            try:
                await asyncio.shield(last)
            except asyncio.CancelledError:
                await asyncio.wait([last])
                raise


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


def _write_block(file: BinaryIO, block: bytes, digest: "hashlib._Hash") -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]
    digest.update(block)


def _seal(plain: BinaryIO, folder: Path, info: PartInfo, recipient: str) -> Kept:
    """A sealed file of what came plain."""
    temporary = _temporary(folder)
    plain.seek(0)
    try:
        with temporary.open("xb", buffering=0) as file:
            size, sha256 = seal(plain, file, recipient)
            _sync(file)
        kept = Kept(info, Encoding.AGE, size, sha256)
        _settle(temporary, folder / kept.file)
    finally:
        temporary.unlink(missing_ok=True)
    return kept


def _sync(file: BinaryIO) -> None:
    """To the disk, and out of memory: nobody reads it soon, and what others need there should stay.

    It is faster, too: with fresh pages for each part, a write took 18 ms of a processor instead of 3.
    """
    os.fdatasync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _settle(temporary: Path, path: Path) -> None:
    temporary.rename(path)
    _sync_folder(path.parent)


def prepare_folder(path: Path, *, without: Collection[str] = ()) -> None:
    """Make it, unless it is there: then remove these files. No others: a part may be on its way."""
    for name in without:
        (path / name).unlink(missing_ok=True)
    if not path.exists():
        path.mkdir(mode=0o700, exist_ok=True)
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


def remove_unfinished(folder: Path) -> int:
    """At start: remove part files that a crash left half-written; how many."""
    found = list(folder.glob("*/.part-*"))
    for path in found:
        with suppress(FileNotFoundError):
            path.unlink()
    return len(found)


def remove_all_but(folder: Path, kept: Collection[str]) -> int:
    """Remove the files that have none of these names; how many."""
    if not folder.is_dir():
        return 0
    found = [path for path in folder.iterdir() if path.name not in kept]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


# --- out -------------------------------------------------------------------------------------------------------------


def pieces(parts: Mapping[int, Kept], start: int, length: int) -> Iterator[Piece]:
    """Which bytes of which parts a range is."""
    while length > 0:
        n, offset = divmod(start, PART_BYTES)
        here = min(length, PART_BYTES - offset)
        yield Piece(parts.get(n), offset, here)
        start, length = start + here, length - here


async def stream(folder: Path, wanted: Iterator[Piece], custody: Custody) -> AsyncIterator[bytes]:
    """The bytes of these pieces, a block at a time; VerificationFailed where a part is not what was sent."""
    for piece in wanted:
        if piece.part is None:
            for at in range(0, piece.length, BLOCK):
                yield bytes(min(BLOCK, piece.length - at))
            continue
        data = await open_part(folder, piece.part, custody)
        for at in range(piece.start, piece.start + piece.length, BLOCK):
            yield data[at : min(at + BLOCK, piece.start + piece.length)]
        del data


async def open_part(folder: Path, part: Kept, custody: Custody) -> bytes:
    """The part as it was on the endpoint; Unavailable if it cannot be read, VerificationFailed if it is damaged."""
    sealed = await asyncio.to_thread(_load, folder / part.file, part)
    if part.encoding is not Encoding.PLAIN:
        sealed = await custody.open(sealed)
    return await asyncio.to_thread(_unpacked, sealed, part)


def _load(path: Path, part: Kept) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            data = _read_up_to(file, part.size + 1)
    except OSError as error:
        raise Unavailable("Evidence on the server's disk cannot be read", got=error.strerror) from error
    if len(data) != part.size:
        raise _damaged(part, got=f"{len(data)} bytes", expected=f"{part.size} bytes")
    return data


def _read_up_to(file: BinaryIO, most: int) -> bytes:
    data = bytearray()
    while len(data) < most and (block := file.read(most - len(data))):
        data += block
    return bytes(data)


def _unpacked(opened: bytes, part: Kept) -> bytes:
    """Inflated, if it was compressed, and compared with its hash."""
    data = inflated(opened, part) if part.encoding is Encoding.ZSTD_AGE else opened
    found = hashlib.sha256(data).hexdigest()
    if found != part.info.sha256:
        raise _damaged(part, got=found, expected=part.info.sha256)
    return data


def inflated(data: bytes, part: Kept) -> bytes:
    """What one zstd frame holds, if that is as large as it should be; never more than that in memory."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    size = part.info.size
    try:
        frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        plain: bytes = frame.decompress(data, max_length=size + 1)
    except zstd.ZstdError as error:
        raise _damaged(part, got=error, expected="a zstd frame") from None
    if len(plain) != size or not frame.eof or frame.unused_data:
        raise _damaged(part, got="more or less inside", expected=f"{size} bytes")
    return plain


def _damaged(part: Kept, *, got: object, expected: object) -> VerificationFailed:
    return VerificationFailed(f"Part {part.info.n} of the evidence is damaged", got=got, expected=expected)
