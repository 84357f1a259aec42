"""Read a file of indicators whatever its format: told by its content, never by its name."""

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.openioc import read_openioc
from stanch.core.ioc.stix import MAX_BYTES, Bundle, read_stix

LARGEST = MAX_BYTES
"""Bytes: no format takes more. Whoever reads a file needs to read one byte more, to see that it is too large."""

_HEAD = 4096
_BEFORE = b"\xef\xbb\xbf\xff\xfe \t\r\n\0"
"""Byte order marks, white space, and the other half of UTF-16."""


def read_indicators(data: bytes) -> Bundle:
    """All indicators of a file, OpenIOC or STIX; Unreadable if it is neither, or wrong as a whole."""
    begin = data[:_HEAD].lstrip(_BEFORE)[:1]
    if begin == b"<":
        return Bundle(indicators=(read_openioc(data),), problems=(), ignored=0)
    if begin in {b"{", b"["}:
        return read_stix(data)
    got = f"a file that begins with {data[:20]!r}" if data else "an empty file"
    raise Unreadable("The file holds no indicators", got=got, expected="OpenIOC 1.0 or 1.1, or STIX 2.0 or 2.1")
