"""What a file is by its first bytes, as YARA rules ask for it (`filetype`)."""

from collections.abc import Sequence
from typing import Final

_TYPES: Final[Sequence[tuple[bytes, str]]] = (
    (b"\x7fELF", "ELF"),
    (b"MZ", "EXE"),
    (b"PK\x03\x04", "ZIP"),
    (b"#!", "SCRIPT"),
    (b"%PDF", "PDF"),
    (b"\x1f\x8b", "GZIP"),
    (b"BZh", "BZIP2"),
    (b"\xfd7zXZ", "XZ"),
    (b"7z\xbc\xaf", "7ZIP"),
    (b"Rar!", "RAR"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPG"),
    (b"GIF8", "GIF"),
    (b"\xca\xfe\xba\xbe", "JAVACLASS"),
    (b"\xd0\xcf\x11\xe0", "OLE"),
    (b"<?php", "PHP"),
    (b"{\\rt", "RTF"),
)


def file_type(first: bytes) -> str:
    """By its first bytes, with the names that public rules use."""
    return next((name for magic, name in _TYPES if first.startswith(magic)), "")
