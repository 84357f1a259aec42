"""The content of a vault's item: an age file, written and read as a stream, and hashed beside it by another thread.

Of a sparse file the age file holds the pieces with data, one after the other; holes are but numbers in the record.
age comes from pyrage, which is imported when the first item passes: it costs memory that an idle agent does not need.

pyrage hides what its reader or writer raises. So both keep their error, and whoever called pyrage raises that one.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from stanch.core.errors import Cancelled, VerificationFailed
from stanch.core.files import Extent
from stanch.disk.atomic import atomic_write

BLOCK = 1_048_576
"""Bytes that are read, hashed and written at once."""

WAITING = 4
"""Blocks that wait for the thread that hashes: memory stays flat."""

_CHUNK, _TAG, _HEADER = 65_536, 16, 1024
"""age: bytes of one chunk, what its seal adds, and the header at most."""

log = structlog.get_logger(__name__)

Told = Callable[[int, int], None]
"""Called after each block with the bytes that are done, and how many there are."""


class Changed(Exception):
    """A file ended before its end: somebody cuts it while it is copied."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """What passed."""

    sha256: str
    """Of the content, holes included."""
    data_sha256: str
    """Of the pieces of data alone; the same if there are no holes."""
    md5: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How the one who waits follows a long copy, and ends it."""

    stop: threading.Event = field(default_factory=threading.Event)
    told: Told = lambda _done, _total: None

    def at(self, done: int, total: int) -> None:
        """Between two blocks: tell; Cancelled if nobody wants it any more."""
        if self.stop.is_set():
            raise Cancelled("The copy was cancelled")
        self.told(done, total)


def sealed_size(data: int) -> int:
    """Bytes that an age file of so much data takes at most."""
    return _HEADER + data + _TAG * (data // _CHUNK + 1)


# --- keys ------------------------------------------------------------------------------------------------------------


def own_key(path: Path) -> str:
    """The endpoint's own age identity, made at the first use; VerificationFailed if the file holds another thing."""
    from pyrage import IdentityError, x25519

    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        text = str(x25519.Identity.generate())
        atomic_write(path, f"{text}\n".encode())
    except ValueError:
        text = ""
    try:
        x25519.Identity.from_str(text)
    except IdentityError:
        raise VerificationFailed(
            "The key of the vault is damaged", got=path, expected="an age identity, AGE-SECRET-KEY-1…"
        ) from None
    return text


def recipients(own: str, evidence_key: str) -> list[str]:
    """To whom content is encrypted: to this endpoint and, if its key is known and is one, to the server."""
    from pyrage import RecipientError, x25519

    found = [str(x25519.Identity.from_str(own).to_public())]
    with suppress(RecipientError):
        found += [str(x25519.Recipient.from_str(evidence_key))] if evidence_key else []
        return found
    log.error("the server's evidence key is none, and the vault does without it", got=evidence_key[:80])
    return found


# --- hashing beside --------------------------------------------------------------------------------------------------


class _Hashing:
    """A thread that hashes blocks and holes in the order in which they come."""

    def __init__(self, *, sparse: bool, with_md5: bool, watch: Watch) -> None:
        self._whole = hashlib.sha256()
        self._data = hashlib.sha256() if sparse else self._whole
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None
        self._watch = watch
        self._queue: queue.Queue[bytes | int | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="vault-hash", daemon=True)
        self._thread.start()

    def data(self, block: bytes) -> None:
        """Some data."""
        if block:
            self._queue.put(block)

    def hole(self, length: int) -> None:
        """So many zeros, of which none are in the data."""
        if length:
            self._queue.put(length)

    def end(self) -> Hashes:
        """Wait for it; what it all was."""
        self._queue.put(None)
        self._thread.join()
        md5 = None if self._md5 is None else self._md5.hexdigest()
        return Hashes(self._whole.hexdigest(), self._data.hexdigest(), md5)

    def _run(self) -> None:
        while (one := self._queue.get()) is not None:
            if isinstance(one, int):
                self._zeros(one)
            else:
                self._content(one)
                if self._data is not self._whole:
                    self._data.update(one)

    def _zeros(self, left: int) -> None:
        zeros = bytes(min(left, BLOCK))
        while left > 0 and not self._watch.stop.is_set():
            self._content(zeros[:left])
            left -= BLOCK

    def _content(self, block: bytes) -> None:
        self._whole.update(block)
        if self._md5 is not None:
            self._md5.update(block)


# --- in --------------------------------------------------------------------------------------------------------------


def seal(
    source: int,
    target: int,
    *,
    pieces: Sequence[Extent],
    size: int,
    to: Sequence[str],
    with_md5: bool = False,
    watch: Watch,
) -> Hashes:
    """Encrypt the pieces of a file (a descriptor) into another, from where that stands, and hash its content.

    Changed if the file ends too early; OSError if it cannot be read or written; Cancelled. Nothing is synced.
    """
    from pyrage import encrypt_io, x25519

    hashing = _Hashing(sparse=sum(one.length for one in pieces) < size, with_md5=with_md5, watch=watch)
    reader, writer = _Pieces(source, pieces, size, hashing, watch), _Writer(target)
    try:
        with _their_errors(reader, writer):
            encrypt_io(reader, writer, [x25519.Recipient.from_str(one) for one in to])
    finally:
        hashes = hashing.end()
    watch.at(size, size)  # the hash of a hole ends early when nobody waits for it
    return hashes


class _Pieces:
    """The data of a file, as pyrage reads it: 8 KiB at a time, which come from blocks."""

    def __init__(self, source: int, pieces: Sequence[Extent], size: int, hashing: _Hashing, watch: Watch) -> None:
        self.error: Exception | None = None
        self._watch = watch
        self._blocks = self._read(source, pieces, size, hashing)
        self._block = memoryview(b"")

    def read(self, length: int = BLOCK) -> bytes:
        """The next bytes; none at the end."""
        try:
            if not self._block:
                self._block = memoryview(next(self._blocks, b""))
        except Exception as error:
            self.error = error
            raise
        given, self._block = self._block[:length], self._block[length:]
        return bytes(given)

    def _read(self, source: int, pieces: Sequence[Extent], size: int, hashing: _Hashing) -> Iterator[bytes]:
        at = 0
        for piece in pieces:
            hashing.hole(piece.offset - at)
            at, end = piece.offset, piece.offset + piece.length
            while at < end:
                block = os.pread(source, min(BLOCK, end - at), at)
                if not block:
                    raise Changed
                at += len(block)
                hashing.data(block)
                self._watch.at(at, size)
                yield block
        hashing.hole(size - at)


class _Writer:
    """Writes what pyrage has encrypted."""

    def __init__(self, target: int) -> None:
        self.error: Exception | None = None
        self._target = target

    def write(self, data: bytes) -> int:
        """All of it."""
        try:
            write_all(self._target, data)
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def write_all(target: int, data: bytes) -> None:
    """Write until nothing is left; OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]


# --- out -------------------------------------------------------------------------------------------------------------


class Sink(Protocol):
    """Where decrypted blocks go."""

    def __call__(self, block: bytes) -> None:
        """The next block, never more than BLOCK bytes."""
        ...


def unseal(source: int, identity: str, sink: Sink) -> None:
    """Decrypt an age file (a descriptor, from where that stands) into a sink, block by block.

    VerificationFailed if it is damaged, cut, or for other keys: some blocks have gone out by then. What the sink raises
    comes out as it is.
    """
    from pyrage import decrypt_io, x25519

    reader, collector = _Reader(source), _Collector(sink)
    with _their_errors(reader, collector), _damage():
        decrypt_io(reader, collector, [x25519.Identity.from_str(identity)])
    collector.end()


@contextmanager
def _damage() -> Iterator[None]:
    from pyrage import DecryptError

    try:
        yield
    except (DecryptError, OSError, ValueError) as error:
        raise VerificationFailed(
            "The item is damaged, or is not for the key of this endpoint", got=error, hint=_BY_HAND
        ) from error


_BY_HAND = "The server's evidence key may still open it: its file in the vault is an ordinary age file."


class _Reader:
    """Reads an age file in blocks."""

    def __init__(self, source: int) -> None:
        self.error: Exception | None = None
        self._source = source
        self._block = memoryview(b"")

    def read(self, length: int = BLOCK) -> bytes:
        """The next bytes; none at the end."""
        if not self._block:
            try:
                self._block = memoryview(os.read(self._source, BLOCK))
            except OSError as error:
                self.error = VerificationFailed("The item cannot be read from its disk", got=error.strerror)
                raise
        given, self._block = self._block[:length], self._block[length:]
        return bytes(given)


class _Collector:
    """Makes blocks of the little pieces that pyrage writes."""

    def __init__(self, sink: Sink) -> None:
        self.error: Exception | None = None
        self._sink = sink
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, data: bytes) -> int:
        """Some more."""
        self._parts.append(bytes(data))
        self._length += len(data)
        if self._length + _CHUNK > BLOCK:
            self._pass_on()
        return len(data)

    def flush(self) -> None:
        """What is left is passed on at the end."""

    def end(self) -> None:
        """The last block."""
        if self._parts:
            self._pass_on()

    def _pass_on(self) -> None:
        block, self._parts, self._length = b"".join(self._parts), [], 0
        try:
            self._sink(block)
        except Exception as error:
            self.error = error
            raise


class _Keeps(Protocol):
    error: Exception | None


@contextmanager
def _their_errors(*sides: _Keeps) -> Iterator[None]:
    """What a reader or a writer met is what happened, whatever pyrage makes of it."""
    try:
        yield
    except Exception:
        for side in sides:
            if side.error is not None:
                raise side.error from None
        raise


class Filling:
    """A sink that fills a new file with pieces of data, leaves its holes, and hashes beside."""

    def __init__(self, target: int, pieces: Sequence[Extent], size: int, watch: Watch) -> None:
        self._target = target
        self._size = size
        self._pieces = iter(pieces)
        self._at = self._left = 0
        self._watch = watch
        self._hashing = _Hashing(sparse=False, with_md5=False, watch=watch)

    def __call__(self, block: bytes) -> None:
        """Write it where it belongs; VerificationFailed if there is more than the pieces hold."""
        self._hashing.data(block)
        rest = memoryview(block)
        while rest:
            if not self._left:
                self._next_piece()
            part = rest[: self._left]
            written = os.pwrite(self._target, part, self._at)
            self._at, self._left, rest = self._at + written, self._left - written, rest[written:]
        self._watch.at(self._at, self._size)

    def end(self) -> str:
        """The SHA-256 of all data that came."""
        return self._hashing.end().sha256

    def _next_piece(self) -> None:
        piece = next((one for one in self._pieces if one.length), None)
        if piece is None:
            raise VerificationFailed("The item is damaged", got="more content than its record says")
        self._at, self._left = piece.offset, piece.length
