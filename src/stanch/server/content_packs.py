"""Packs on the disk: one file each, called by its SHA-256, whole or not there."""

import asyncio
import os
from collections.abc import AsyncIterable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.core.content import MAX_PACK_BYTES, PackIndex
from stanch.core.errors import TooLarge
from stanch.core.pack import PackCheck, Place, places
from stanch.server.upload_files import BLOCK, Received, receive, remove_all_but, settle


@dataclass(frozen=True, slots=True)
class Arrived:
    """A pack that has come, and is what its list of files says, under a name that is not its own yet."""

    path: Path
    received: Received
    index: PackIndex
    places: tuple[Place, ...]


class Packs:
    """The folder of all packs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the pack of this hash is, if it is there."""
        return self.folder / sha256

    async def take(self, name: str, chunks: AsyncIterable[bytes], *, sha256: str | None) -> Arrived:
        """Write what comes under a name of ours, and see that it is a pack; nothing is left of what is none."""
        path = self.folder / name
        try:
            received = await receive(path, chunks, most=MAX_PACK_BYTES, sha256=sha256)
        except TooLarge as error:
            raise too_large(error.got) from None
        try:
            return await asyncio.to_thread(_checked, path, received)
        except BaseException:
            await self.drop(path)
            raise

    async def keep(self, arrived: Arrived) -> None:
        """Give it the name that is its own; on the disk when this returns."""
        await asyncio.to_thread(settle, arrived.path, self.path(arrived.received.sha256))

    async def drop(self, path: Path) -> None:
        """Remove one that is not wanted."""
        with suppress(OSError):  # the next start removes what is left
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def remove_all_but(self, kept: Collection[str]) -> int:
        """Remove what is half-written, and packs of which nobody knows; how many files."""
        return await asyncio.to_thread(remove_all_but, self.folder, kept)


def _checked(path: Path, received: Received) -> Arrived:
    check = PackCheck()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            check.feed(block)
    index = check.end()
    return Arrived(path, received, index, tuple(places(index, check.line_bytes)))


def too_large(got: object) -> TooLarge:
    """A pack has too many bytes."""
    return TooLarge(
        "The pack is too large",
        got=got,
        expected=f"at most {MAX_PACK_BYTES} bytes",
        hint="Import the files under several names.",
    )


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the file, for a process of ours to read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
