"""What the file of a kernel module says of itself (modinfo): from the bytes of the file, which anybody may have made.

Compressed with gzip or xz it is unpacked within a bound; of zstd the standard library knows nothing. Nothing is raised:
what is damaged says nothing.
"""

import lzma
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

MAX_MODULE: Final = 64 * 2**20
"""Bytes of a file, and of what it unpacks to."""
MAX_FIELDS: Final = 20_000
_LONGEST: Final = 4000
_LZMA_MEMORY: Final = 128 * 2**20
_MAX_SECTIONS: Final = 10_000
_SECTION: Final = b".modinfo"

Fields = Mapping[str, Sequence[str]]
"""Name to values: license, alias, depends, vermagic, intree, retpoline, parm, srcversion, ..."""


def unpacked(raw: bytes) -> bytes | None:
    """The module itself; None for a compression that is not known, or damaged, or too large."""
    if raw.startswith(b"\x7fELF"):
        return raw
    try:
        if raw.startswith(b"\x1f\x8b"):
            gzip = zlib.decompressobj(wbits=31)
            return _whole(gzip.decompress(raw, MAX_MODULE), ended=gzip.eof)
        if raw.startswith(b"\xfd7zXZ\0"):
            xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)
            return _whole(xz.decompress(raw, MAX_MODULE), ended=xz.eof)
    except (zlib.error, lzma.LZMAError, EOFError, MemoryError):
        return None
    return None


def _whole(found: bytes, *, ended: bool) -> bytes | None:
    return found if ended else None


def fields(module: bytes) -> Fields | None:
    """What it says; None if that cannot be found in it."""
    try:
        said = _section(module)
    except (struct.error, IndexError, OverflowError):
        return None
    if said is None:
        return None
    found: dict[str, list[str]] = {}
    for one in said.split(b"\0", MAX_FIELDS)[:MAX_FIELDS]:
        name, sign, value = one.partition(b"=")
        if sign:
            found.setdefault(_text(name), []).append(_text(value))
    return found


def _section(module: bytes) -> bytes | None:
    """The section .modinfo of an ELF file."""
    wide, order = module[4] == 2, ">" if module[5] == 2 else "<"  # noqa: PLR2004 - ELFCLASS64, ELFDATA2MSB
    header = struct.unpack_from(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), module, 16)
    begin, size, count, names_in = header[5], header[10], min(header[11], _MAX_SECTIONS), header[12]
    form = struct.Struct(order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII"))
    rows = [form.unpack_from(module, begin + n * size) for n in range(count)]
    names = _content(module, rows[names_in])
    for row in rows:
        if names[row[0] : row[0] + len(_SECTION) + 1] == _SECTION + b"\0":
            return _content(module, row)
    return None


def _content(module: bytes, row: Sequence[int]) -> bytes:
    return module[row[4] : row[4] + row[5]]


def _text(raw: bytes) -> str:
    return raw[:_LONGEST].decode("utf-8", "backslashreplace")
