"""Netlink in plain Python: ask the kernel, and read its answers with every length checked."""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from stanch.core.errors import ActionFailed

REQUEST = 0x1
ACK = 0x4
DUMP = 0x300

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12

_ERROR = 2
_DONE = 3
_HEADER = struct.Struct("=IHHII")
_CODE = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_BITS = 0x3FFF  # the upper two bits of an attribute's type are flags
_DATAGRAM = 1_048_576  # the kernel sends at most 32 KiB at once today
_PATIENCE = 10.0  # seconds; the kernel answers within the call


@dataclass(frozen=True, slots=True)
class Message:
    """One message, without its header."""

    kind: int
    sequence: int
    payload: bytes
    port: int = 0
    """Of whom an event tells: the netlink socket whose request caused it."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def pack(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message with its header."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram; ActionFailed if a length is impossible."""
    at = 0
    while at < len(datagram):
        if len(datagram) - at < _HEADER.size:
            raise _malformed(f"{len(datagram) - at} bytes left", f"a header of {_HEADER.size}")
        length, kind, _flags, sequence, port = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= len(datagram) - at:
            raise _malformed(f"a length of {length}", f"{_HEADER.size} to {len(datagram) - at}")
        yield Message(kind, sequence, datagram[at + _HEADER.size : at + length], port)
        at += _aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """Type to value of each attribute (the last of a type); ActionFailed if a length is impossible."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of one attribute after the other; ActionFailed if a length is impossible."""
    at = 0
    while at < len(data):
        if len(data) - at < _ATTRIBUTE.size:
            raise _malformed(f"{len(data) - at} bytes left", f"an attribute of {_ATTRIBUTE.size}")
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise _malformed(f"a length of {length}", f"{_ATTRIBUTE.size} to {len(data) - at}")
        yield kind & _TYPE_BITS, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


class Netlink:
    """A connection to one part of the kernel, in the network namespace of the thread that opened it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    @property
    def port(self) -> int:
        """Our number among the kernel's netlink sockets: messages about what we did carry it."""
        return int(self._socket.getsockname()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it up; what belongs to this socket in the kernel ends with it."""
        self._socket.close()

    def dump(self, kind: int, payload: bytes) -> Iterator[bytes]:
        """Every object that the kernel lists; OSError with its errno if it refuses."""
        sequence = self._send(kind, REQUEST | DUMP, payload)
        while True:
            for message in self._answers(sequence):
                if message.kind in {_ERROR, _DONE}:
                    _raise_errno(message)
                    return
                yield message.payload

    def ask(self, kind: int, payload: bytes) -> bytes:
        """The one object that the kernel answers with; OSError with its errno if it refuses."""
        sequence = self._send(kind, REQUEST, payload)
        while True:
            for message in self._answers(sequence):
                if message.kind != _ERROR:
                    return message.payload
                _raise_errno(message)

    def do(self, kind: int, payload: bytes) -> None:
        """Have something done; OSError with its errno if the kernel refuses."""
        sequence = self._send(kind, REQUEST | ACK, payload)
        while True:
            for message in self._answers(sequence):
                if message.kind == _ERROR:
                    _raise_errno(message)
                    return

    def batch(
        self, begin: tuple[int, bytes], requests: Sequence[tuple[int, int, bytes]], end: tuple[int, bytes]
    ) -> None:
        """Have several things (kind, flags, payload) done as one; OSError with the first errno if any is refused."""
        first = self._sequence + 1
        parts = [
            pack(begin[0], REQUEST, first, begin[1]),
            *(pack(kind, REQUEST | ACK | flags, first + 1 + at, one) for at, (kind, flags, one) in enumerate(requests)),
            pack(end[0], REQUEST, first + 1 + len(requests), end[1]),
        ]
        self._sequence += len(parts)
        self._socket.sendto(b"".join(parts), (0, 0))
        waiting = set(range(first + 1, first + 1 + len(requests)))
        while waiting:
            for message in self._received():
                if message.kind == _ERROR and message.sequence >= first:
                    _raise_errno(message)
                    waiting.discard(message.sequence)

    def _send(self, kind: int, flags: int, payload: bytes) -> int:
        self._sequence += 1
        self._socket.sendto(pack(kind, flags, self._sequence, payload), (0, 0))
        return self._sequence

    def _answers(self, sequence: int) -> Iterator[Message]:
        return (message for message in self._received() if message.sequence == sequence)

    def _received(self) -> Iterator[Message]:
        data, _ancillary, flags, (sender, _groups) = self._socket.recvmsg(_DATAGRAM)
        if flags & socket.MSG_TRUNC:
            raise _malformed(f"more than {len(data)} bytes", f"at most {_DATAGRAM}")
        if sender != 0:  # another process may write to us; the kernel's port is 0
            return iter(())
        return messages(data)


def _raise_errno(message: Message) -> None:
    # A dump may end without a code; then it went well.
    code = _CODE.unpack_from(message.payload)[0] if len(message.payload) >= _CODE.size else 0
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    if code > 0:
        raise OSError(errno.EPROTO, "a positive netlink error")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _malformed(got: str, expected: str) -> ActionFailed:
    return ActionFailed("The kernel's netlink answer makes no sense", got=got, expected=expected)
