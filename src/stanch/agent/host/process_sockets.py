"""The network sockets that processes have open: their descriptors against the tables of each network namespace.

The tables are read through a process's own folder (/proc/PID/net), so that those of containers are read without going
there. Sockets below IP are told too: programs that listen to every packet have them, and some back doors do.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

from stanch.core.processes import MAX_SOCKETS, OpenSocket

MAX_DESCRIPTORS = 65_536
"""Of one process that are looked at."""
MAX_TABLE = 64 * 1_048_576
"""Bytes of one table: 400,000 connections."""

_SOCKET = re.compile(rb"socket:\[([0-9]{1,20})\]")
_FILES = {
    "tcp": "tcp", "tcp6": "tcp", "udp": "udp", "udp6": "udp", "udplite": "udplite", "udplite6": "udplite",
    "raw": "raw", "raw6": "raw",
}  # fmt: skip
"""Table to protocol."""

_STATES = {
    1: "ESTAB", 2: "SYN-SENT", 3: "SYN-RECV", 4: "FIN-WAIT-1", 5: "FIN-WAIT-2", 6: "TIME-WAIT", 7: "UNCONN",
    8: "CLOSE-WAIT", 9: "LAST-ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW-SYN-RECV",
}  # fmt: skip
_EVERY_PROTOCOL = 3
"""ETH_P_ALL."""


def inodes_of(process: str) -> tuple[frozenset[int], bool]:
    """The numbers of the sockets that a process has open, by its folder; none if that cannot be read.

    And whether it has more descriptors than were looked at.
    """
    with suppress(OSError):
        fds = os.open(f"{process}fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(fds) as entries:  # one after the other: a process may have a million
                found = frozenset(_inodes(fds, (one.name for one in islice(entries, MAX_DESCRIPTORS))))
                return found, next(entries, None) is not None
        finally:
            os.close(fds)
    return frozenset(), False


def _inodes(fds: int, names: Iterable[str]) -> Iterator[int]:
    for name in names:
        with suppress(OSError):
            found = _SOCKET.fullmatch(os.fsencode(os.readlink(name, dir_fd=fds)))
            if found:
                yield int(found[1])


def tables_of(folder: int, wanted: frozenset[int], sign: Callable[[], None] = lambda: None) -> dict[int, OpenSocket]:
    """The sockets with these numbers in the network namespace of a process; those that are there."""
    found: dict[int, OpenSocket] = {}
    for table, protocol in _FILES.items():
        found.update(parse_table(protocol, _lines(folder, f"net/{table}", sign), wanted))
    found.update(parse_packets(_lines(folder, "net/packet", sign), wanted))
    return found


def _lines(folder: int, path: str, sign: Callable[[], None]) -> Iterator[bytes]:
    """The lines of a table, without its head; as much as may be read."""
    with suppress(OSError), os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb", 65_536) as file:
        left = MAX_TABLE
        for number, line in enumerate(iter(lambda: file.readline(1024), b"")):
            left -= len(line)
            if left < 0:
                return
            if number:
                yield line
            if not number % 1000:
                sign()


def parse_table(protocol: str, lines: Iterator[bytes], wanted: frozenset[int]) -> Iterator[tuple[int, OpenSocket]]:
    """Read /proc/net/tcp and its like: number and socket; lines of another form are passed over."""
    for line in lines:
        fields = line.split(None, 10)
        with suppress(ValueError, IndexError):
            inode = int(fields[9])
            if inode in wanted:
                yield (
                    inode,
                    OpenSocket(
                        protocol=protocol,
                        local=parse_end(fields[1]),
                        remote=parse_end(fields[2]),
                        state=_STATES.get(int(fields[3], 16), fields[3].decode("ascii")[:20]),
                    ),
                )


def parse_packets(lines: Iterator[bytes], wanted: frozenset[int]) -> Iterator[tuple[int, OpenSocket]]:
    """Read /proc/net/packet: which frames are wanted (`*` for all), and of which device (by number, `*` for all)."""
    for line in lines:
        fields = line.split()
        with suppress(ValueError, IndexError):
            inode, kind, device = int(fields[8]), int(fields[3], 16), int(fields[4])
            if inode in wanted:
                frames = "*" if kind == _EVERY_PROTOCOL else f"0x{kind:04x}"
                local = f"{frames}:{device or '*'}"
                yield inode, OpenSocket(protocol="packet", local=local[:80], remote="*", state="UNCONN")


def parse_end(raw: bytes) -> str:
    """Read an address and port as the kernel prints them: words of 32 bits in the machine's own order; ValueError."""
    address, _, port = raw.partition(b":")
    words = bytes.fromhex(address.decode("ascii"))
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    if len(words) == 4:  # noqa: PLR2004 - IPv4
        return f"{IPv4Address(words)}:{int(port, 16) & 0xFFFF}"
    six = IPv6Address(words)
    mapped = six.ipv4_mapped
    return f"{mapped}:{int(port, 16) & 0xFFFF}" if mapped else f"[{six}]:{int(port, 16) & 0xFFFF}"


def of_process(inodes: frozenset[int], known: Mapping[int, OpenSocket]) -> tuple[OpenSocket, ...]:
    """What is known of these, those that listen first; up to MAX_SOCKETS."""
    found = [known[one] for one in inodes if one in known]
    found.sort(key=lambda one: (one.state not in {"LISTEN", "UNCONN"}, one.protocol, one.local, one.remote))
    return tuple(found[:MAX_SOCKETS])
