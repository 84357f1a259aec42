"""Files of kernel modules for tests: as small as can be, and they say what a test wants."""

import struct

_HEADER = "<16sHHIQQQIHHHHHH"
_SECTION = "<IIQQQQIIQQ"
MARK = b"~Module signature appended~\n"


def signed(module: bytes, message: bytes, *, kind: int = 2) -> bytes:
    """The module with a signature behind it."""
    return module + message + bytes((0, 0, kind)) + bytes(5) + struct.pack(">I", len(message)) + MARK


def made(*said: str) -> bytes:
    """A module that says this: `license=GPL` and so on."""
    info = b"".join(one.encode() + b"\0" for one in said)
    names = b"\0.modinfo\0.shstrtab\0"
    begin = struct.calcsize(_HEADER)
    sections = (
        struct.pack(_SECTION, *[0] * 10)
        + struct.pack(_SECTION, 1, 1, 0, 0, begin, len(info), 0, 0, 1, 0)
        + struct.pack(_SECTION, 10, 3, 0, 0, begin + len(info), len(names), 0, 0, 1, 0)
    )
    where = begin + len(info) + len(names)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack(_HEADER, ident, 1, 62, 1, 0, 0, where, 0, 64, 0, 0, 64, 3, 2)
    return head + info + names + sections
