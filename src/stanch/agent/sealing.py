"""Parts of evidence, sealed at the endpoint: compressed where that helps, and encrypted to the server's evidence key.

Only custody can read what was sealed here; neither the server's disk nor whoever steals it can. age comes from pyrage
and zstd from backports.zstd, which are imported when the first evidence leaves: an idle agent does not need them.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from stanch.core.files import Extent
from stanch.core.frames import Encoding, EvidenceProgress, PartRun

if TYPE_CHECKING:
    from pyrage import x25519

LEVEL = 1
WORTH = 0.95
"""Compressed to more than this share of its size, a part is sent as it is."""
SAMPLE = 65_536
SAMPLES = 4
"""Pieces of a part that are tried first: what is compressed already is not compressed for nothing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A part as it is sent."""

    body: bytes | bytearray
    sha256: str
    """Of the body."""
    encoding: Encoding


class Sealer:
    """Seals parts for one server; without a key that it can use, or for an old server, it leaves them as they are."""

    def __init__(self, recipient: str, server: EvidenceProgress) -> None:
        self._to = _parsed(recipient) if Encoding.AGE in server.encodings else None
        self._compresses = Encoding.ZSTD_AGE in server.encodings

    def seal(self, data: bytes, plain_sha256: str | None = None) -> Sealed:
        """Takes tens of milliseconds: call it in a thread."""
        if self._to is None:
            return Sealed(data, plain_sha256 or hashlib.sha256(data).hexdigest(), Encoding.PLAIN)
        smaller = compressed(data) if self._compresses else None
        encoding = Encoding.AGE if smaller is None else Encoding.ZSTD_AGE
        body, sha256 = _encrypted(data if smaller is None else smaller, self._to)
        return Sealed(body, sha256, encoding)

    @property
    def seals(self) -> bool:
        """Does it encrypt at all?"""
        return self._to is not None


def _parsed(recipient: str) -> "x25519.Recipient | None":
    """The key; what is none is told, and then the server seals what it gets."""
    if not recipient:
        return None
    from pyrage import RecipientError, x25519

    try:
        return x25519.Recipient.from_str(recipient)
    except RecipientError as error:
        log.error("the server's evidence key is none, evidence goes without", got=recipient[:80], why=str(error))  # noqa: TRY400 - the key is wrong, no code of ours
        return None


def compressed(data: bytes) -> bytes | None:
    """One zstd frame, if that is worth it."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    if len(data) > SAMPLE * SAMPLES:
        step = (len(data) - SAMPLE) // (SAMPLES - 1)
        samples = [data[n * step : n * step + SAMPLE] for n in range(SAMPLES)]
        if sum(len(zstd.compress(one, LEVEL)) for one in samples) > WORTH * SAMPLE * SAMPLES:
            return None
    smaller: bytes = zstd.compress(data, LEVEL)
    return smaller if len(smaller) <= WORTH * len(data) else None


class _Reader:
    """What pyrage reads from. Written in Python on purpose: between two reads, other threads get their turn."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def read(self, length: int = -1) -> bytes:
        """The next bytes."""
        end = len(self._data) if length < 0 else self._at + length
        block = self._data[self._at : end].tobytes()
        self._at += len(block)
        return block


class _Writer:
    """What pyrage writes to."""

    def __init__(self) -> None:
        self.body = bytearray()

    def write(self, block: bytes) -> int:
        """Keep it."""
        self.body += block
        return len(block)

    def flush(self) -> None:
        """Nothing waits."""


def _encrypted(data: bytes, to: "x25519.Recipient") -> tuple[bytearray, str]:
    """The age file, and its SHA-256."""
    import pyrage

    writer = _Writer()
    pyrage.encrypt_io(_Reader(data), writer, [to])
    return writer.body, hashlib.sha256(writer.body).hexdigest()


def empty_runs(extents: Sequence[Extent], *, size: int, part_bytes: int) -> tuple[PartRun, ...]:
    """The parts of `size` bytes of which no byte lies in an extent: nothing of them is read or sent."""
    count = -(-size // part_bytes)
    runs, behind = [], 0
    for extent in sorted(extents, key=lambda one: one.offset):
        if extent.length > 0:
            first = min(extent.offset // part_bytes, count)
            if first > behind:
                runs.append(PartRun(first=behind, count=first - behind))
            behind = max(behind, (extent.offset + extent.length - 1) // part_bytes + 1)
    if behind < count:
        runs.append(PartRun(first=behind, count=count - behind))
    return tuple(runs)
