"""Bring a file to the server, to be put on endpoints: hashed first, sent in a stream, checked by what is answered.

The hash tells the server what to expect, and tells us whether it has the file already: then nothing is sent.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import httpx2
from pydantic import ValidationError

from stanch.client.download import Progress, silent
from stanch.client.http import CONNECT_SECONDS, Http, not_understood, read
from stanch.core.errors import Conflict, Denied, Invalid, NotFound, StanchError, TooLarge, VerificationFailed
from stanch.core.rest_uploads import UploadPage, UploadQuery, UploadView
from stanch.core.types import Upload

CHUNK: Final = 262_144
ANSWER_SECONDS: Final = 300.0
"""The server answers when all of it is on its disk, which takes a while for a large file on a slow one."""

LONGEST_NAME: Final = 255

NOT_UPLOADED: Final = "not-uploaded"
"""Stands in place of the identifier where only a plan is asked for."""


def upload(http: Http, path: Path, *, progress: Progress = silent) -> Upload:
    """Bring this file to the server, unless it is there already; as an order names it.

    Invalid, NotFound or Denied if it cannot be read here, TooLarge, Conflict if it changes meanwhile, and what the
    server answers.
    """
    with opened(path) as file:
        size, name = os.fstat(file.fileno()).st_size, name_of(path)
        sha256 = _hash(file, path, size)
        there = _there(http, name=name, sha256=sha256, size=size)
        if there is not None:
            progress(size, size)
            return there.named
        file.seek(0)
        query = {"name": name, "sha256": sha256}
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        content = _pieces(file, path, size, progress)
        with http.stream("POST", "uploads", params=query, headers=headers, content=content, timeout=timeout) as answer:
            kept = read(UploadView, answer.read())
    if (kept.sha256, kept.size) != (sha256, size):
        raise VerificationFailed(
            "The server has kept something else than was sent",
            got=f"SHA-256 {kept.sha256}",
            expected=f"SHA-256 {sha256}",
        )
    return kept.named


def described(path: Path) -> Upload:
    """The file as an order would name it, were it uploaded: for a dry run. Nothing is sent. Errors as of `upload`."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        return Upload(id=NOT_UPLOADED, name=name_of(path), size=size, sha256=_hash(file, path, size))


def name_of(path: Path) -> str:
    r"""What the server is told that the file is called: its last component, odd bytes as `\xff`."""
    return printable(path.name)[-LONGEST_NAME:]


def printable(name: str) -> str:
    r"""A file name as text that can be sent and shown: odd bytes as `\xff`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, which is a regular one; does not wait for a writer of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid("This is no file that can be uploaded", got=path, expected="a regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield file


def _unreadable(path: Path, error: Exception) -> StanchError:
    kinds: Mapping[type[Exception], type[StanchError]] = {FileNotFoundError: NotFound, PermissionError: Denied}
    kind = kinds.get(type(error), Invalid)
    why = error.strerror if isinstance(error, OSError) else str(error)
    return kind(f"Cannot read {path}", got=why, expected="a regular file on this machine")


def _hash(file: BinaryIO, path: Path, size: int) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(file, path, size, silent):
        digest.update(piece)
    if file.read(1):  # it grows; or it is one of /proc, which all have no size
        raise Conflict(
            f"{path} is larger than it says",
            got=f"more than {size} bytes",
            expected=f"{size} bytes",
            hint="Make a copy of it first, and upload that.",
        )
    return digest.hexdigest()


def _pieces(file: BinaryIO, path: Path, size: int, progress: Progress) -> Iterator[bytes]:
    """Exactly so many bytes; Conflict if the file has become shorter."""
    done = 0
    while done < size:
        piece = file.read(min(CHUNK, size - done))
        if not piece:
            raise Conflict(f"{path} changed while it was read", got=f"{done} bytes", expected=f"{size} bytes")
        yield piece
        done += len(piece)
        progress(done, size)


def _there(http: Http, *, name: str, sha256: str, size: int) -> UploadView | None:
    """The same upload, if we have brought it before; TooLarge if the server takes no such file."""
    query = UploadQuery(sha256=sha256, mine=True).sent()
    try:
        page = UploadPage.model_validate_json(http.ask("GET", "uploads", query={**query, "limit": 1000}))
    except ValidationError as error:
        raise not_understood(error) from None
    if size > page.max_size:
        raise TooLarge(
            "The file is too large for this server", got=f"{size} bytes", expected=f"at most {page.max_size}"
        )
    return next((one for one in page.items if (one.name, one.size) == (name, size)), None)
