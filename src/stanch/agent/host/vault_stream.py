"""The content of an item as a stream: decrypted by a thread while somebody reads it, and nowhere written in plain."""

import hashlib
import queue
import threading
from collections.abc import Sequence

from stanch.agent.host.vault_content import WAITING, unseal
from stanch.core.errors import ActionFailed, Cancelled, VerificationFailed
from stanch.core.files import Extent


class Stream:
    """The content of an item, holes as zeros, decrypted by a thread while it is read: in order, memory bounded.

    Not for several threads at once. Close it.
    """

    def __init__(
        self, source: int, identity: str, *, pieces: Sequence[Extent], size: int, data_sha256: str | None
    ) -> None:
        self._hash = hashlib.sha256()
        self._data_sha256 = data_sha256
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._data = memoryview(b"")
        self._pieces = [one for one in pieces if one.length]
        self._size = size
        self._at = 0
        self._thread = threading.Thread(target=self._run, args=(source, identity), name="vault-read", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Wait for the first block, which says whether the key fits; VerificationFailed."""
        self._data = memoryview(self._next() or b"")

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, which begin where the last read ended; VerificationFailed if the item is damaged."""
        if offset != self._at or not 0 <= length <= self._size - offset:
            raise ActionFailed("An item is read in order", got=f"{length} bytes at {offset}", expected=self._at)
        parts = []
        while length:
            part = self._part(length)
            self._at, length = self._at + len(part), length - len(part)
            parts.append(part)
        if self._at == self._size:
            self._expect_end()
        return b"".join(parts)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.01)

    def _drain(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()

    def _part(self, length: int) -> bytes:
        while self._pieces and self._pieces[0].offset + self._pieces[0].length <= self._at:
            del self._pieces[0]
        if not self._pieces:
            return bytes(length)
        piece = self._pieces[0]
        if self._at < piece.offset:
            return bytes(min(length, piece.offset - self._at))
        return self._of_data(min(length, piece.offset + piece.length - self._at))

    def _of_data(self, length: int) -> bytes:
        if not self._data:
            self._data = memoryview(self._next() or b"")
            if not self._data:
                raise VerificationFailed("The item is damaged", got="less content than its record says")
        given, self._data = self._data[:length], self._data[length:]
        return bytes(given)

    def _expect_end(self) -> None:
        """Only the seal of the last chunk says that nothing was cut off."""
        if self._data or (not self._closed.is_set() and self._next()):
            raise VerificationFailed("The item is damaged", got="more content than its record says")

    def _next(self) -> bytes | None:
        one = self._queue.get()
        if isinstance(one, bytes):
            return one
        self._queue.put(one)  # asked again, it says the same
        if one is not None:
            raise one
        return None

    def _run(self, source: int, identity: str) -> None:
        end: BaseException | None = None
        try:
            unseal(source, identity, self._pass_on)
            self._check()
        except Exception as error:  # noqa: BLE001 - handed to the reader
            end = error
        if not self._closed.is_set():
            self._queue.put(end)

    def _check(self) -> None:
        """A whole age file may still be another one: whoever knows the endpoint's public key can make it."""
        found = self._hash.hexdigest()
        if self._data_sha256 is not None and found != self._data_sha256:
            raise VerificationFailed("The item is damaged", got=found, expected=self._data_sha256)

    def _pass_on(self, block: bytes) -> None:
        if self._closed.is_set():
            raise Cancelled("Nobody reads it any more")
        self._hash.update(block)
        self._queue.put(block)
