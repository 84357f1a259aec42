"""What a file seems to be, by its first bytes alone. A hint for people: the file may lie."""

import struct
from contextlib import suppress

from stanch.core.files import FileType

FIRST_BYTES = 4096
"""Bytes that are looked at."""

_SHOWN = 64
_MOST = 200

_CLASSES = {1: "32-bit", 2: "64-bit"}
_ORDERS = {1: "<", 2: ">"}
_ELF_TYPES = {1: "object", 2: "executable", 3: "shared object or executable", 4: "core file"}
_MACHINES = {
    3: "x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC 64",
    22: "S/390",
    40: "ARM",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    247: "BPF",
}
_PLAIN = {
    b"PK\x03\x04": "ZIP archive, or a document or package made of one",
    b"MZ": "program for Windows or DOS",
}
"""What the library knows too many names for, or none."""

_PRINTABLE = frozenset({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100)))


def type_of(first: bytes, *, size: int) -> FileType:
    """What a file of this size that begins with these bytes seems to be; `unknown` if nothing fits. Never raises."""
    first = first[:FIRST_BYTES]
    return FileType(name=_name(first, size)[:_MOST], first=first[:_SHOWN].hex())


def _name(first: bytes, size: int) -> str:
    if size == 0:
        return "empty"
    if first.startswith(b"\x7fELF"):
        return _elf(first)
    if first.startswith(b"#!"):
        return f"script for {_line(first[2:])}"
    plain = next((name for magic, name in _PLAIN.items() if first.startswith(magic)), "")
    return plain or ("" if first.strip(b"\0") else "zeros") or _by_signature(first) or _text(first) or "unknown"


def _elf(first: bytes) -> str:
    with suppress(struct.error, IndexError):
        order = _ORDERS.get(first[5], "<")
        kind, machine = struct.unpack_from(f"{order}HH", first, 16)
        words = (_CLASSES.get(first[4], ""), _ELF_TYPES.get(kind, "file"), _MACHINES.get(machine, f"machine {machine}"))
        return f"ELF {words[0]} {words[1]}, {words[2]}"
    return "ELF, cut off"


def _line(raw: bytes) -> str:
    """The rest of the first line, printable."""
    text = raw.split(b"\n", 1)[0][:100].decode("utf-8", "replace").strip()
    return "".join(one if one.isprintable() else "?" for one in text) or "nothing"


def _by_signature(first: bytes) -> str:
    import puremagic

    try:
        found = puremagic.magic_string(first)
    except Exception:  # noqa: BLE001 - a hint is not worth an error, whatever hostile bytes do to it
        return ""
    # Of text and of very short signatures it only guesses.
    best = next((one for one in found if len(one.byte_match) > 2), None)  # noqa: PLR2004 - two bytes are chance
    return "" if best is None else str(best.name or best.extension.lstrip("."))


def _text(first: bytes) -> str:
    try:
        first.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(first) - 3:
            return ""
    return "text, UTF-8" if not set(first) - _PRINTABLE else ""
