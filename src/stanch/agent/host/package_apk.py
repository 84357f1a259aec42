"""What apk knows: one text with every package of Alpine, its folders, its files and their checksums."""

import base64
import binascii
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from stanch.agent.host.package_database import Brought, package_name, read_up_to

PLACES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
MAX_INSTALLED = 128 * 1_048_576


def parse_installed(raw: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Read the text: package, file, its checksum as written (empty for none). Lines of other kinds are passed over."""
    package = folder = name = checksum = b""
    for line in raw.split(b"\n"):
        kind, value = line[:2], line[2:]
        if kind in {b"P:", b"F:", b"R:", b""} and name:
            yield package, b"/" + (folder + b"/" if folder else b"") + name, checksum
            name = checksum = b""
        if kind == b"P:":
            package, folder = value, b""
        elif kind == b"F:":
            folder = value.strip(b"/")
        elif kind == b"R:":
            name = value
        elif kind == b"Z:":
            checksum = value
    if name:
        yield package, b"/" + (folder + b"/" if folder else b"") + name, checksum


def parse_checksum(text: bytes) -> Brought | None:
    """Read `Q1` and base64, SHA-1, or `Q2`, SHA-256; None if it is neither."""
    try:
        digest = base64.b64decode(text[2:], validate=True) if text[:2] in {b"Q1", b"Q2"} else b""
    except binascii.Error:
        return None
    if len(digest) == 20:  # noqa: PLR2004 - SHA-1
        return Brought("sha1", digest.hex())
    return Brought("sha256", digest.hex()) if len(digest) == 32 else None  # noqa: PLR2004 - SHA-256


class Apk:
    """The database of Alpine, below a root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def owners(self, names: Collection[bytes]) -> Mapping[bytes, str]:
        """The package of each file that has one."""
        return {name: package_name(package) for package, name, _ in self._files(names)}

    def brought(self, names: Collection[bytes]) -> Mapping[bytes, Brought]:
        """The checksum of each file as its package brought it."""
        read = ((name, parse_checksum(checksum)) for _, name, checksum in self._files(names))
        return {name: found for name, found in read if found is not None}

    def _files(self, names: Collection[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
        wanted = frozenset(names)
        raw = next((text for place in PLACES if (text := read_up_to(self._root / place, MAX_INSTALLED))), b"")
        return (one for one in parse_installed(raw) if one[1] in wanted)
