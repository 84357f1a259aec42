"""Packs of named bytes, as people import them."""

import hashlib
from collections.abc import AsyncIterator, Mapping

from stanch.core.content import ContentKind, PackFile, PackIndex
from stanch.core.pack import first_line, index_of

GOOD = b"rule good { condition: false }\n"
BAD = b"rule bad {\n condition: nonsense }\n"


def file_of(name: str, data: bytes) -> PackFile:
    """A file as the index of a pack has it."""
    return PackFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def index(files: Mapping[str, bytes], kind: ContentKind = ContentKind.YARA) -> PackIndex:
    """The index of these files."""
    return index_of(kind, [file_of(name, data) for name, data in files.items()])


def pack(files: Mapping[str, bytes], kind: ContentKind = ContentKind.YARA) -> bytes:
    """The bytes of a pack."""
    about = index(files, kind)
    return first_line(about) + b"".join(files[one.name] for one in about.files)


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """The bytes as they come, a piece at a time."""
    for at in range(0, len(data), size):
        yield data[at : at + size]
