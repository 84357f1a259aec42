"""Bring evidence into a file: resumed after cut connections, verified before it gets its name.

The bytes go to `NAME.part` beside the target; a later run goes on where it ends. Only when size and SHA-256 are what
the server committed does the file get its name, so a file under that name is always whole.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import quote

import httpx2

from stanch.client.http import Http
from stanch.core.errors import Conflict, NotFound, Unavailable, VerificationFailed
from stanch.core.rest_evidence import EvidenceView

CHUNK: Final = 1_048_576
ATTEMPTS: Final = 10
"""Cut connections in a row, without a byte in between, that end the download."""

PAUSE_SECONDS: Final = 2.0
PARTIAL: Final = 206


class Progress(Protocol):
    """Told how far it is."""

    def __call__(self, done: int, total: int, /) -> None:
        """`done` of `total` bytes."""
        ...


def silent(_done: int, _total: int, /) -> None:
    """Tell nobody."""


def download(
    http: Http, evidence: EvidenceView, into: Path, *, progress: Progress, sleep: Callable[[float], None]
) -> None:
    """Bring the content into a new file; Conflict if it is incomplete or the file exists, VerificationFailed."""
    expected = _expected(evidence, into)
    part = into.with_name(into.name + ".part")
    with _opened(part) as file:
        digest = _hash_so_far(file, evidence.size)
        _Transfer(http, evidence, file, digest, progress).receive(sleep)
        file.flush()
        if digest.hexdigest() != expected:
            part.unlink()
            raise _wrong(evidence, digest.hexdigest())
        os.fsync(file.fileno())
    _name(part, into)


def _expected(evidence: EvidenceView, into: Path) -> str:
    if evidence.deleted is not None:
        raise NotFound(
            "This evidence was deleted",
            got=f"{evidence.id}, by {evidence.deleted_by}: {evidence.deleted_why}",
            hint="Its hash is still known: `stanch evidence list --deleted --json`.",
        )
    if not evidence.complete or evidence.sha256 is None:
        raise Conflict(
            "The evidence is not complete yet",
            got=f"{evidence.received} of {evidence.size} bytes",
            hint="Wait until its task is done.",
        )
    if os.path.lexists(into):
        raise _exists(into)
    return evidence.sha256


def _opened(part: Path) -> BinaryIO:
    # Never through a link that somebody left in a shared folder, and for our eyes only.
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "r+b")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Conflict("Another download writes to this file", got=part, hint="Wait for it, or use --output.") from None
    except OSError:
        pass  # a file system without locks
    return file


def _hash_so_far(file: BinaryIO, size: int) -> "hashlib._Hash":
    """Hash what an earlier run left; more than there can be is thrown away."""
    if os.fstat(file.fileno()).st_size > size:
        file.truncate(0)
    digest = hashlib.sha256()
    while piece := file.read(CHUNK):
        digest.update(piece)
    return digest


@dataclass(frozen=True, slots=True)
class _Transfer:
    """One download under way: the file's position is how far it is, the digest covers what is before it."""

    http: Http
    evidence: EvidenceView
    file: BinaryIO
    digest: "hashlib._Hash"
    progress: Progress

    def receive(self, sleep: Callable[[float], None]) -> None:
        """All that is missing, over as many connections as it takes."""
        failures = 0
        while (start := self.file.tell()) < self.evidence.size:
            try:
                self._receive_some(start)
            except Unavailable:
                failures = 0 if self.file.tell() > start else failures + 1
                if failures >= ATTEMPTS:
                    raise
                sleep(PAUSE_SECONDS)

    def _receive_some(self, start: int) -> None:
        headers = {"Range": f"bytes={start}-", "Accept": "application/octet-stream", "Accept-Encoding": "identity"}
        path = f"evidence/{quote(self.evidence.id, safe='')}/content"
        with self.http.stream("GET", path, headers=headers) as response:
            _check_range(response, start)
            for piece in response.iter_bytes(CHUNK):
                self._take(piece)
        if self.file.tell() == start:
            raise Unavailable("The server sent nothing", got=f"0 bytes from {start} on")

    def _take(self, piece: bytes) -> None:
        if self.file.tell() + len(piece) > self.evidence.size:
            raise VerificationFailed("The server sends more than there is", expected=f"{self.evidence.size} bytes")
        self.file.write(piece)
        self.digest.update(piece)
        self.progress(self.file.tell(), self.evidence.size)


def _check_range(response: httpx2.Response, start: int) -> None:
    """Do the bytes begin where ours end?"""
    begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    right = begins == str(start) if response.status_code == PARTIAL else start == 0
    if not right:
        raise VerificationFailed(
            "The server does not resume where we left off",
            got=f"status {response.status_code}, range {begins or 'none'}",
            expected=f"status 206 from byte {start}",
            hint="Remove the .part file and fetch it again.",
        )


def _wrong(evidence: EvidenceView, got: str) -> VerificationFailed:
    return VerificationFailed(
        "What arrived is not what the endpoint sent",
        got=f"SHA-256 {got}",
        expected=f"SHA-256 {evidence.sha256}",
        hint="It was removed; fetch it again.",
    )


def _name(part: Path, into: Path) -> None:
    """Give it its name, without replacing a file that appeared meanwhile."""
    try:
        os.link(part, into, follow_symlinks=False)
    except FileExistsError:
        raise _exists(into) from None
    except OSError:  # a file system without hard links
        part.rename(into)
    with suppress(FileNotFoundError):
        part.unlink()
    folder = os.open(into.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exists(into: Path) -> Conflict:
    return Conflict("The file exists already", got=into, hint="Name another one with --output.")
