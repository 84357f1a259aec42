"""What statx(2) tells beyond stat: when a file was made, and a few attributes. Python 3.11 has no function for it."""

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Ask = Callable[[int], bytes | None]
"""A descriptor -> the struct that the kernel fills; None if it does not answer."""

ATTRIBUTES: Final = (
    (0x4, "Compressed"),
    (0x10, "Immutable"),
    (0x20, "AppendOnly"),
    (0x40, "NoDump"),
    (0x800, "Encrypted"),
    (0x10_0000, "Verity"),
)
_BTIME: Final = 0x800
_SIZE: Final = 256
_AT_EMPTY_PATH: Final = 0x1000
_NUMBERS: Final = {"x86_64": 332, "aarch64": 291, "riscv64": 291, "ppc64le": 383, "s390x": 379}
_HEAD: Final = struct.Struct("=II Q")
_ATTRIBUTES_KNOWN: Final = 56
_CREATED: Final = struct.Struct("=q")
_CREATED_AT: Final = 80


@dataclass(frozen=True, slots=True)
class More:
    """What stat does not tell."""

    created: int | None
    """Seconds since 1970; None where the file system does not keep it (some then say 0)."""
    attributes: frozenset[str]


def asker() -> Ask:
    """Make what asks the kernel; the C library is loaded here, so call it before anything is confined."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        return _silent
    call = ctypes.CDLL(None, use_errno=True).syscall

    def ask(descriptor: int) -> bytes | None:
        buffer = ctypes.create_string_buffer(_SIZE)
        answer = call(
            ctypes.c_long(number),
            ctypes.c_long(descriptor),
            ctypes.c_char_p(b""),
            ctypes.c_long(_AT_EMPTY_PATH),
            ctypes.c_long(_BTIME),
            buffer,
        )
        return buffer.raw if answer == 0 else None

    return ask


def _silent(_descriptor: int) -> None:
    """On a processor whose number for the call is not known here."""


def more(ask: Ask, descriptor: int) -> More | None:
    """What the kernel tells of an open file (O_PATH too); None if it does not."""
    raw = ask(descriptor)
    if raw is None:
        return None
    mask, _block, attributes = _HEAD.unpack_from(raw)
    created = _CREATED.unpack_from(raw, _CREATED_AT)[0] if mask & _BTIME else 0
    (known,) = struct.unpack_from("=Q", raw, _ATTRIBUTES_KNOWN)
    return More(created or None, frozenset(name for bit, name in ATTRIBUTES if attributes & known & bit))


def sparse(found: os.stat_result) -> bool:
    """Does it take less than its size says? A file of a few bytes may stand in its inode."""
    return found.st_blocks * 512 < found.st_size - 4096
