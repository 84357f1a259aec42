"""Who signed a kernel module: read, not checked, from the PKCS#7 message behind it (DER), which anybody may have made.

Only what is asked is taken apart: the signer, the number of the key, and how the module was hashed. Nothing is raised.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MARK: Final = b"~Module signature appended~\n"
_TRAILER: Final = 12
_PKCS7: Final = 2
_KINDS: Final = {0: "PGP", 1: "X.509", _PKCS7: "PKCS#7"}
_MAX_SIGNATURE: Final = 65_536
_MAX_PARTS: Final = 200
_LONGEST: Final = 200

_SEQUENCE, _SET, _INTEGER, _OID, _CONTEXT_0 = 0x30, 0x31, 0x02, 0x06, 0xA0
_KEY_ID: Final = 0x80
_COMMON_NAME: Final = bytes.fromhex("550403")
_DIGESTS: Final = {
    bytes.fromhex("2a864886f70d0205"): "md5",
    bytes.fromhex("2b0e03021a"): "sha1",
    **{bytes.fromhex("6086480165030402") + bytes((n,)): name for n, name in (
        (1, "sha256"), (2, "sha384"), (3, "sha512"), (4, "sha224"), (8, "sha3-256"), (9, "sha3-384"), (10, "sha3-512"),
    )},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature says of itself; empty for what it does not say, or what cannot be read."""

    kind: str
    """PKCS#7 as a rule."""
    signer: str = ""
    """The common name of who issued the key's certificate."""
    key: str = ""
    """The serial number of that certificate, or the id of the key, in hexadecimal digits."""
    digest: str = ""
    """sha256, sha512, ..."""


@dataclass(frozen=True, slots=True)
class _Part:
    tag: int
    content: bytes


class _DamagedError(ValueError):
    """It is not what it should be."""


def signature_of(module: bytes) -> Signature | None:
    """The signature behind a module; None for none."""
    if not module.endswith(MARK):
        return None
    end = len(module) - len(MARK) - _TRAILER
    trailer = module[max(0, end) : end + _TRAILER]
    if end < 0:
        return Signature("")
    kind = _KINDS.get(trailer[2], str(trailer[2]))
    size = int.from_bytes(trailer[8:], "big")
    if trailer[2] != _PKCS7 or not 0 < size <= min(end, _MAX_SIGNATURE):
        return Signature(kind)
    try:
        return _of_message(kind, module[end - size : end])
    except _DamagedError:
        return Signature(kind)


def _of_message(kind: str, message: bytes) -> Signature:
    """ContentInfo, SignedData, the first SignerInfo: as RFC 2315 and RFC 5652 have them."""
    content = _first(_one(message, _SEQUENCE), _CONTEXT_0)
    signed = _one(content, _SEQUENCE)
    signers = [part for part in _parts(signed) if part.tag == _SET]
    if not signers:
        raise _DamagedError
    info = list(_parts(_first(signers[-1].content, _SEQUENCE)))
    if len(info) < 3 or info[0].tag != _INTEGER or info[2].tag != _SEQUENCE:  # noqa: PLR2004 - version, signer, digest
        raise _DamagedError
    digest = _DIGESTS.get(_first(info[2].content, _OID), "")
    if info[1].tag == _KEY_ID:
        return Signature(kind, "", info[1].content[:_LONGEST].hex(), digest)
    name, *rest = [*_parts(info[1].content)] or [_Part(0, b"")]
    serial = next((part.content for part in rest if part.tag == _INTEGER), b"")
    return Signature(kind, _common_name(name.content), serial[:_LONGEST].hex(), digest)


def _common_name(name: bytes) -> str:
    for group in _parts(name):
        for one in _parts(group.content):
            kind_and_text: Sequence[_Part] = list(_parts(one.content))[:2]
            if len(kind_and_text) == 2 and kind_and_text[0].content == _COMMON_NAME:  # noqa: PLR2004 - a pair
                return kind_and_text[1].content[:_LONGEST].decode("utf-8", "backslashreplace")
    return ""


def _one(data: bytes, tag: int) -> bytes:
    """The content of the first part, which must have this tag."""
    part = next(_parts(data), None)
    if part is None or part.tag != tag:
        raise _DamagedError
    return part.content


def _first(data: bytes, tag: int) -> bytes:
    """The content of the first part with this tag."""
    found = next((part.content for part in _parts(data) if part.tag == tag), None)
    if found is None:
        raise _DamagedError
    return found


def _parts(data: bytes) -> Iterator[_Part]:
    """The parts of a piece of DER, one after the other."""
    at = 0
    for _ in range(_MAX_PARTS):
        if at >= len(data):
            return
        size, begin = _size(data, at + 1)
        if begin + size > len(data):
            raise _DamagedError
        yield _Part(data[at], data[begin : begin + size])
        at = begin + size


def _size(data: bytes, at: int) -> tuple[int, int]:
    """A length, and where what it measures begins."""
    first = data[at] if at < len(data) else 0x80
    if first < 0x80:  # noqa: PLR2004 - the short form
        return first, at + 1
    more = first & 0x7F
    if not 0 < more <= 4 or at + 1 + more > len(data):  # noqa: PLR2004 - no message is so long
        raise _DamagedError
    return int.from_bytes(data[at + 1 : at + 1 + more], "big"), at + 1 + more
