"""Content that was sealed as the vault does it, for tests."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage

from stanch.agent.host.vault_content import Filling, Hashes, Watch, seal, unseal
from stanch.agent.host.vault_stream import Stream
from stanch.core.files import Extent

IDENTITY = pyrage.x25519.Identity.generate()


@dataclass
class Sealed:
    """A file, and its age file."""

    folder: Path
    content: bytes
    pieces: tuple[Extent, ...]
    hashes: Hashes

    @property
    def age(self) -> Path:
        """The age file."""
        return self.folder / "age"

    def source(self) -> int:
        """Open it."""
        return os.open(self.age, os.O_RDONLY)


def sealed(folder: Path, content: bytes, pieces: tuple[Extent, ...] | None = None, *, md5: bool = False) -> Sealed:
    """Seal some content."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = (Extent(0, len(content)),) if pieces is None else pieces
    (folder / "plain").write_bytes(content)
    source, target = os.open(folder / "plain", os.O_RDONLY), os.open(folder / "age", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        hashes = seal(
            source,
            target,
            pieces=chosen,
            size=len(content),
            to=[str(IDENTITY.to_public())],
            with_md5=md5,
            watch=Watch(),
        )
    finally:
        os.close(source)
        os.close(target)
    return Sealed(folder, content, chosen, hashes)


def filled(one: Sealed, watch: Watch | None = None) -> bytes:
    """Decrypt into a file."""
    out = one.folder / "out"
    source, target = one.source(), os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    filling = Filling(target, one.pieces, len(one.content), watch or Watch())
    try:
        os.truncate(target, len(one.content))
        unseal(source, str(IDENTITY), filling)
    finally:
        digest = filling.end()
        os.close(source)
        os.close(target)
    assert digest == one.hashes.data_sha256
    return out.read_bytes()


def streamed(one: Sealed, step: int) -> Iterator[bytes]:
    """Read it as a stream."""
    source = one.source()
    stream = Stream(source, str(IDENTITY), pieces=one.pieces, size=len(one.content), data_sha256=None)
    try:
        for offset in range(0, max(1, len(one.content)), step):
            yield stream.read(offset, min(step, len(one.content) - offset))
    finally:
        stream.close()
        os.close(source)
