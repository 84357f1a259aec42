"""Content on its way back: the files of a version, byte for byte as they were imported.

The pack comes into a hidden folder beside the target. Only when it is what the server has in its list, and each file is
what the pack says, do the files get their names: what is there under the target's name is always whole.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final
from urllib.parse import quote

from stanch.client.download import Progress
from stanch.client.http import Http
from stanch.core.errors import Conflict, Denied, Invalid, NotFound, StanchError, VerificationFailed
from stanch.core.pack import PackCheck, Place, places
from stanch.core.rest_content import VersionView

CHUNK: Final = 1_048_576


def fetch(http: Http, version: VersionView, into: Path, *, progress: Progress) -> Sequence[str]:
    """Bring the files of a version: one becomes the file `into`, several come into the new folder `into`.

    Conflict if there is something of that name, VerificationFailed if anything is not what it must be, NotFound,
    Denied, Unavailable. Returns the names of the files as they were imported.
    """
    if os.path.lexists(into):
        raise _exists(into)
    with _work_beside(into) as folder:
        work = Path(folder)
        with (work / "pack").open("xb+") as file:
            found = _received(http, version, file, progress)
            # One file takes the name that was asked for; the names of several are only ever below the new folder.
            names = ["file"] if len(found) == 1 else [str(_safe(one)) for one in found]
            for one, name in zip(found, names, strict=True):
                _copy(file, one, work / "files" / name)
        _settle(work / "files" / "file" if len(found) == 1 else work / "files", into)
    return [one.file.name for one in found]


def _work_beside(into: Path) -> tempfile.TemporaryDirectory[str]:
    """A hidden folder on the same file system, which is gone in the end; only its owner may enter it."""
    try:
        return tempfile.TemporaryDirectory(prefix=".stanch-", dir=into.parent, ignore_cleanup_errors=True)
    except FileNotFoundError:
        raise NotFound("The folder to write into is not there", got=into.parent, hint="Make it first.") from None
    except OSError as error:
        raise Denied(f"Cannot write into {into.parent}", got=error.strerror) from None


def _received(http: Http, version: VersionView, file: BinaryIO, progress: Progress) -> Sequence[Place]:
    """The pack in the file, and where its files are in it."""
    path = f"content/{quote(version.content, safe='')}/versions/{version.version}/pack"
    headers = {"Accept": "application/octet-stream", "Accept-Encoding": "identity"}
    digest, check, size = hashlib.sha256(), PackCheck(), 0
    with http.stream("GET", path, headers=headers) as response:
        for piece in response.iter_bytes(CHUNK):
            size += len(piece)
            if size > version.size:
                raise _wrong(version, "more bytes")
            digest.update(piece)
            file.write(piece)
            _fed(version, check, piece)
            progress(size, version.size)
    if digest.hexdigest() != version.sha256:
        raise _wrong(version, f"{size} bytes, SHA-256 {digest.hexdigest()}")
    return places(check.end(), check.line_bytes)


def _fed(version: VersionView, check: PackCheck, piece: bytes) -> None:
    try:
        check.feed(piece)
    except StanchError as error:
        raise _wrong(version, str(error)) from error


def _safe(one: Place) -> PurePosixPath:
    """The name of a file, as a path below the new folder; Invalid if it would lead anywhere else."""
    parts = one.file.name.split("/")
    if any(part in {"", ".", ".."} or "\\" in part for part in parts):
        raise Invalid(
            "A file of this version has a name that leads out of the folder",
            got=one.file.name,
            expected="a relative name without `..`",
        )
    return PurePosixPath(*parts)


def _copy(pack: BinaryIO, one: Place, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    pack.seek(one.start)
    left = one.file.size
    try:
        with target.open("xb") as file:
            while piece := pack.read(min(CHUNK, left)):
                file.write(piece)
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Invalid(f"{one.file.name} cannot be written here", got=error.strerror) from None


def _settle(made: Path, into: Path) -> None:
    """Give it its name, without replacing what appeared meanwhile."""
    try:
        if made.is_dir():
            made.rename(into)
        else:
            os.link(made, into, follow_symlinks=False)
    except OSError as error:
        if os.path.lexists(into):
            raise _exists(into) from None
        raise Denied(f"{into} cannot be written", got=error.strerror) from None


def _wrong(version: VersionView, got: str) -> VerificationFailed:
    return VerificationFailed(
        "What arrived is not this version",
        got=got,
        expected=f"{version.size} bytes, SHA-256 {version.sha256}",
        hint="Nothing was kept; fetch it again.",
    )


def _exists(into: Path) -> Conflict:
    return Conflict("There is something of this name already", got=into, hint="Name another one with --output.")
