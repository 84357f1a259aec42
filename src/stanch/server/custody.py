"""Custody of evidence: the one seam that can read what endpoints and this server have sealed.

Parts are age files for one key. Whoever has the public half can add evidence, and only custody can open it: with
another `Custody` the private half may live in another machine or a hardware module, and the rest of the server stays.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from stanch.core.errors import Unavailable, VerificationFailed
from stanch.disk.atomic import atomic_write

if TYPE_CHECKING:
    from pyrage import x25519

KEY_FILE = "evidence.key"
MAX_KEY_BYTES = 4096


class Custody(Protocol):
    """Holds the key of the evidence."""

    @property
    def recipient(self) -> str:
        """Its public half, as age writes it: `age1...`."""
        ...

    async def open(self, sealed: bytes) -> bytes:
        """The content of an age file for this key; VerificationFailed if it is for another key, or damaged."""
        ...


@dataclass(frozen=True, slots=True)
class KeyFileCustody:
    """An age identity in the server's data folder, readable by the server only."""

    recipient: str
    _identity: "x25519.Identity" = field(repr=False)

    @classmethod
    def in_folder(cls, folder: Path) -> "KeyFileCustody":
        """Read the key, or make it at the first start; Unavailable if what is there cannot be used.

        That a key is lost is not noticed here but in `evidence_key`: this would make a new one.
        """
        from pyrage import IdentityError, x25519

        path = folder / KEY_FILE
        try:
            if not path.exists():
                atomic_write(path, f"{x25519.Identity.generate()}\n".encode())
            with path.open("rb") as file:
                identity = x25519.Identity.from_str(file.read(MAX_KEY_BYTES).decode("ascii").strip())
        except (OSError, ValueError, IdentityError) as error:
            raise Unavailable(
                f"The evidence key {path} cannot be used",
                got=type(error).__name__,
                expected="an age identity, AGE-SECRET-KEY-1...",
                hint="Bring it back from a backup: without it nobody can read the evidence that is here.",
            ) from None
        return cls(str(identity.to_public()), identity)

    async def open(self, sealed: bytes) -> bytes:
        """In a thread, since it takes milliseconds."""
        return await asyncio.to_thread(self._open, sealed)

    def _open(self, sealed: bytes) -> bytes:
        import pyrage

        writer = _Collected()
        try:
            pyrage.decrypt_io(_Reader(sealed), writer, [self._identity])
        except (pyrage.DecryptError, OSError):
            raise VerificationFailed(
                "A part of the evidence cannot be opened", got="a damaged part, or one that is sealed for another key"
            ) from None
        return bytes(writer.data)


def seal(source: BinaryIO, target: BinaryIO, recipient: str) -> tuple[int, str]:
    """Write an age file of what is in `source`; its size and SHA-256. For agents that send plain parts."""
    import pyrage
    from pyrage import x25519

    writer = _Hashed(target)
    pyrage.encrypt_io(source, writer, [x25519.Recipient.from_str(recipient)])
    return writer.size, writer.digest.hexdigest()


class _Reader:
    """What pyrage reads from. Written in Python on purpose: between two reads, the event loop gets its turn."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def read(self, length: int = -1) -> bytes:
        """The next bytes."""
        end = len(self._data) if length < 0 else self._at + length
        block = self._data[self._at : end].tobytes()
        self._at += len(block)
        return block


class _Collected:
    """What pyrage writes to, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, block: bytes) -> int:
        """Keep it."""
        self.data += block
        return len(block)

    def flush(self) -> None:
        """Nothing waits."""


class _Hashed:
    """What pyrage writes to, on the disk."""

    def __init__(self, target: BinaryIO) -> None:
        self.size, self.digest = 0, hashlib.sha256()
        self._target = target

    def write(self, block: bytes) -> int:
        """All of it."""
        rest = memoryview(block)
        while rest:
            rest = rest[self._target.write(rest) :]
        self.size += len(block)
        self.digest.update(block)
        return len(block)

    def flush(self) -> None:
        """The target is not buffered."""
