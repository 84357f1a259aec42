"""Rules and indicators in files of this machine, and in packs, as material for a scan.

A file is opened once to look what it is, and once more by the scanner, which compares the hash: so nothing is believed
of a path that may lead elsewhere by then.
"""

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stanch.core.content import MAX_FILE_BYTES, MAX_PACK_BYTES, MAX_PACK_FILES, ContentKind, FileName
from stanch.core.content_kind import HEAD, SUFFIXES, kind_of
from stanch.core.errors import ActionFailed, Invalid, NotFound, TooLarge, Unavailable
from stanch.core.files import Bytes
from stanch.core.scan_scope import said
from stanch.core.scanning import Material
from stanch.core.types import Sha256

BLOCK = 2**20
"""Bytes that are read at once."""
MAX_DEPTH = 40
"""Folders inside one another."""

MASK = bytes(n ^ 0xA5 for n in range(256))
"""How packs are written on this disk; the same again gives them back. A pack holds the very strings that its rules look
for: in the clear, every scan of this machine, by us or by others, would find malware in it."""

AT_ONCE = 65_536
"""Bytes of a file that are read without a thread, if they are in memory."""
ALL = frozenset(ContentKind)

_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!")
_UNPACK = "Unpack it first."
_LIKE = "Rules begin with `rule NAME`, a list has one hash in each line; `stanch ioc check FILE` explains indicators."
_INSTEAD = {
    ContentKind.YARA: "`stanch yara scan --rules FILE` takes rules.",
    ContentKind.OPENIOC: "`stanch ioc scan FILE` takes indicators.",
    ContentKind.STIX: "`stanch ioc scan FILE` takes indicators.",
    ContentKind.HASHES: "`stanch ioc scan FILE` and `stanch local scan malware --rules FILE` take lists of hashes.",
}

_NOT_ITS_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of an open file, at any place (`core.files.Bytes`)."""

    descriptor: int
    start: int
    size: int
    masked: bool = False
    """Are they written as `MASK` turns them?"""

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, or ActionFailed."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise _short(f"{length} bytes at {offset}", f"{self.size} bytes in all")
        data = self._at_hand(self.start + offset, length)
        if len(data) != length:
            data = await asyncio.to_thread(self._pread, self.start + offset, length)
        if len(data) != length:
            raise _short(f"{len(data)} bytes at {offset}", f"{length} bytes")
        return data.translate(MASK) if self.masked else data

    def _at_hand(self, place: int, length: int) -> bytes:
        """What need not be waited for: of hundreds of small files a thread for each would be most of the work."""
        if length > AT_ONCE:
            return b""
        data = bytearray(length)
        try:
            return bytes(data[: os.preadv(self.descriptor, [data], place, os.RWF_NOWAIT)])
        except OSError:  # it is not in memory, or this file system cannot tell
            return b""

    def _pread(self, place: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length and (piece := os.pread(self.descriptor, min(length, BLOCK), place)):
            pieces.append(piece)
            place += len(piece)
            length -= len(piece)
        return b"".join(pieces)


@asynccontextmanager
async def opened_part(path: Path, start: int, size: int, *, masked: bool = False) -> AsyncIterator[Bytes]:
    """Some bytes of a file; whoever reads them compares the hash. NotFound or Invalid."""
    with opened(path) as descriptor:
        yield Part(descriptor, start, size, masked)


@contextmanager
def opened(path: Path, *, flags: int = 0, folder: int | None = None) -> Iterator[int]:
    """A regular file, never waited for; NotFound or Invalid, or Unavailable if it is not the file's fault."""
    try:
        descriptor = os.open(path, _FLAGS | flags, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("There is no such file", got=path) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NOT_ITS_FAULT:
            raise Unavailable("A file cannot be opened at the moment", got=f"{path}: {error}") from error
        raise Invalid("The file cannot be opened", got=f"{path}: {error}") from error
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            raise Invalid("This is no file with rules or indicators", got=path, expected="a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def local_materials(paths: Sequence[Path], kinds: frozenset[ContentKind] = ALL) -> tuple[Material, ...]:
    """Files, and what is in folders, of these kinds. Reads all of them once: call it in a thread.

    NotFound, TooLarge, or Invalid if one cannot be read, or is nothing that a scan can use; in a folder, what is
    nothing of that is left out, but not all of it.
    """
    found: list[Material] = []
    left = MAX_PACK_BYTES
    for path in paths:
        for one in _in_folder(path, kinds) if path.is_dir() else iter((local_material(path, kinds),)):
            found.append(one)
            left -= one.size
            if left < 0 or len(found) > MAX_PACK_FILES:
                raise TooLarge(
                    "These are too many rules and indicators for one scan",
                    got=f"more than {MAX_PACK_BYTES - max(left, 0)} bytes, {len(found)} files",
                    expected=f"at most {MAX_PACK_BYTES} bytes, {MAX_PACK_FILES} files",
                )
    return tuple(found)


def local_material(path: Path, kinds: frozenset[ContentKind] = ALL) -> Material:
    """One file of one of these kinds; NotFound, TooLarge, or Invalid if it is nothing that a scan can use."""
    with opened(path) as descriptor:
        head = os.pread(descriptor, HEAD, 0)
        seen = kind_of(head)
        if seen is None or seen not in kinds:
            raise _unfit(path, seen, head, kinds)
        size, sha256 = _measured(descriptor, path, seen)
    return _material(seen, path.name, path, size, sha256)


def _in_folder(folder: Path, kinds: frozenset[ContentKind]) -> Iterator[Material]:
    """What is in a folder and below it, in the order of the names; links are not followed."""
    any_found = False
    for inside in _walk(folder):
        path = folder / inside
        try:
            with opened(path, flags=os.O_NOFOLLOW) as descriptor:
                seen = kind_of(os.pread(descriptor, HEAD, 0))
                if seen is None or seen not in kinds:
                    continue
                size, sha256 = _measured(descriptor, path, seen)
        except NotFound:
            continue
        any_found = True
        yield _material(seen, f"{folder.resolve().name}/{inside}", path, size, sha256)
    if not any_found:
        raise Invalid(
            "Nothing in this folder is of use for this scan",
            got=folder,
            expected=f"{said(kinds)}, in files whose names end as usual",
            hint=f"Such ends are {', '.join(sorted(SUFFIXES))}; a file with another name is used if you name it.",
        )


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        inside = Path(here).relative_to(folder)
        if len(inside.parts) >= MAX_DEPTH:
            folders.clear()
        for name in sorted(files):
            path = Path(here, name)
            if path.suffix.lower() in SUFFIXES and not path.is_symlink() and path.is_file():
                yield inside / name


def _measured(descriptor: int, path: Path, kind: ContentKind) -> tuple[int, str]:
    """Its size and SHA-256; TooLarge."""
    most = MAX_FILE_BYTES.get(kind, MAX_PACK_BYTES)
    digest, size = hashlib.sha256(), 0
    while piece := os.pread(descriptor, BLOCK, size):
        digest.update(piece)
        size += len(piece)
        if size > most:
            raise TooLarge(f"{path.name} is too large", got=f"over {most} bytes", expected=f"at most {most} of {kind}")
    return size, digest.hexdigest()


def _material(kind: ContentKind, name: FileName, path: Path, size: int, sha256: Sha256) -> Material:
    return Material(kind=kind, name=name[-4000:], size=size, sha256=sha256, open=partial(opened_part, path, 0, size))


def _unfit(path: Path, seen: ContentKind | None, head: bytes, kinds: frozenset[ContentKind]) -> Invalid:
    return Invalid(
        f"{path.name} is nothing that this scan can use",
        got=said({seen}) if seen is not None else _what(head),
        expected=said(kinds),
        hint=_INSTEAD[seen] if seen is not None else _UNPACK if head.startswith(_PACKED) else _LIKE,
    )


def _what(head: bytes) -> str:
    """What a file is that is nothing of ours."""
    if not head:
        return "an empty file"
    if head.startswith(_PACKED):
        return "a packed file"
    return "a binary file" if b"\0" in head else "text that is neither rules nor indicators"


def _short(got: str, expected: str) -> ActionFailed:
    return ActionFailed("A file of rules or indicators changed while it was read", got=got, expected=expected)
