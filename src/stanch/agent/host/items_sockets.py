"""The kernel's tables of sockets as indicators ask for them, and who has which socket open.

A line is kept as its few bytes until somebody wants to know what it says: a busy server has a hundred thousand.
"""

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from stanch.agent.host.process_sockets import inodes_of, parse_end

MAX_LINES = 1_000_000
"""Of one table that are looked at."""
MAX_KEPT = 100_000
"""Sockets of all network namespaces that are kept to be looked up; what is beyond is not known."""
MAX_OWNERS = 64
"""Processes that have one socket open and are told."""
MAX_OWNED = 300_000
"""Sockets whose owners are kept."""
FRESH = 10.0
"""Seconds for which a table is believed: long scans meet sockets that were not there when it was read."""

_TABLES = {
    "tcp": ("TCP", "STREAM"), "tcp6": ("TCP", "STREAM"), "udp": ("UDP", "DGRAM"), "udp6": ("UDP", "DGRAM"),
    "udplite": ("UDPLITE", "DGRAM"), "udplite6": ("UDPLITE", "DGRAM"), "raw": ("RAW", "RAW"), "raw6": ("RAW", "RAW"),
}  # fmt: skip
"""Table to protocol and type."""
_OTHERS = {"netlink": 9, "packet": 8}
"""Table of other families to the field with the number."""
_STATES = {
    1: ("ESTABLISHED",), 2: ("SYN_SENT",), 3: ("SYN_RECV",), 4: ("FIN_WAIT1",), 5: ("FIN_WAIT2",), 6: ("TIME_WAIT",),
    7: ("CLOSE",), 8: ("CLOSE_WAIT",), 9: ("LAST_ACK",), 10: ("LISTEN", "LISTENING"), 11: ("CLOSING",),
    12: ("SYN_RECV",),
}  # fmt: skip
"""As netstat has them, on Linux and elsewhere."""
_UNIX_TYPES = {1: "STREAM", 2: "DGRAM", 5: "SEQPACKET"}
_UNIX_STATES = {1: ("UNCONN",), 2: ("CONNECTING",), 3: ("ESTABLISHED",), 4: ("DISCONNECTING",)}
_ACCEPTS = 0x10000
"""Flag of a unix socket that listens."""
_LINE = 1024
_BUFFER = 65_536
_SOCKET = re.compile(rb"socket:\[([0-9]{1,20})\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a line of a table says."""

    inode: int
    """0 if no process has it any more."""
    protocol: str
    type: str
    state: tuple[str, ...]
    local: tuple[str, int] | None = None
    """Address and port."""
    remote: tuple[str, int] | None = None
    """None if there is no other side."""
    path: str = ""
    """Of a unix socket."""

    @property
    def is_other(self) -> bool:
        """Is it of a family that has neither addresses nor states of this kind: netlink, packet?"""
        return not self.protocol

    @property
    def six(self) -> bool:
        """Are its addresses of IPv6?"""
        return self.local is not None and ":" in self.local[0]

    @property
    def words(self) -> str:
        """How it is called, for people."""
        if self.local is None:
            return self.path
        ends = ["*" if one is None else f"[{one[0]}]:{one[1]}" if ":" in one[0] else f"{one[0]}:{one[1]}"
                for one in (self.local, self.remote)]  # fmt: skip
        return f"{self.protocol} {ends[0]}" + (f" -> {ends[1]}" if self.remote else "")


def parse_row(table: str, line: bytes) -> Row:
    """Read a line of /proc/net/tcp and its like; ValueError or IndexError if it is none."""
    protocol, kind = _TABLES[table]
    fields = line.split(None, 10)
    number = int(fields[3], 16)
    state = ("UNCONN",) if protocol != "TCP" and number == 7 else _STATES.get(number, (fields[3].decode("ascii")[:20],))  # noqa: PLR2004 - TCP_CLOSE
    local, remote = _end(fields[1]), _end(fields[2])
    alone = remote[1] == 0 and remote[0] in {"0.0.0.0", "::"}
    return Row(
        inode=int(fields[9]),
        protocol=protocol,
        type=kind,
        state=state,
        local=local,
        remote=None if alone else remote,
    )


def _end(raw: bytes) -> tuple[str, int]:
    address, _, port = parse_end(raw).rpartition(":")
    return address.strip("[]"), int(port)


def parse_unix(line: bytes) -> Row:
    """Read a line of /proc/net/unix; ValueError or IndexError if it is none."""
    fields = line.rstrip(b"\n").split(None, 7)
    listens = int(fields[3], 16) & _ACCEPTS
    state = int(fields[5], 16)
    return Row(
        inode=int(fields[6]),
        protocol="UNIX",
        type=_UNIX_TYPES.get(int(fields[4], 16), "RAW"),
        state=("LISTEN", "LISTENING") if listens else _UNIX_STATES.get(state, (str(state),)),
        path=os.fsdecode(fields[7]) if len(fields) > 7 else "",  # noqa: PLR2004 - a socket without a name
    )


def _parse(table: str, inode: int, line: bytes) -> Row:
    if table in _OTHERS:
        return Row(inode=inode, protocol="", type="", state=())
    return parse_unix(line) if table == "unix" else parse_row(table, line)


def rows(folder: int) -> Iterator[Row]:
    """Every internet socket in the network namespace of the process whose folder this is, as far as it can be read."""
    for table in _TABLES:
        for line in _lines(folder, f"net/{table}"):
            with suppress(ValueError, IndexError):
                yield parse_row(table, line)


def _lines(folder: int, path: str) -> Iterator[bytes]:
    with suppress(OSError), os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb", _BUFFER) as file:
        yield from islice(iter(lambda: file.readline(_LINE), b""), 1, MAX_LINES)


class Tables:
    """Sockets by their number, read once for each network namespace and again when that is long ago."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, tuple[str, bytes]]] = {}
        """Network namespace to number to table and line."""
        self._read: dict[str, float] = {}

    def of(self, folder: int, inodes: frozenset[int]) -> dict[int, Row]:
        """Which of these sockets of the process with this folder are known, and what they are."""
        network = os.readlink("ns/net", dir_fd=folder)
        self._look(network, folder)
        found = self._find(self._known[network], inodes)
        for other in self._known.values():  # a socket stays in the namespace in which it was made
            if len(found) == len(inodes):
                break
            found |= self._find(other, inodes - found.keys())
        return found

    @staticmethod
    def _find(known: Mapping[int, tuple[str, bytes]], inodes: Iterable[int]) -> dict[int, Row]:
        found = dict[int, Row]()
        for inode in inodes:
            if inode in known:
                table, line = known[inode]
                with suppress(ValueError, IndexError):
                    found[inode] = _parse(table, inode, line)
        return found

    def _look(self, network: str, folder: int) -> None:
        now = time.monotonic()
        if now - self._read.get(network, -FRESH) < FRESH:
            return
        self._read[network] = now
        self._known[network] = {}
        left = MAX_KEPT - sum(map(len, self._known.values()))
        self._known[network] = dict(islice(_numbered(folder), max(0, left)))


def _numbered(folder: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Number, table and line of each socket that somebody has, in the namespace of a process."""
    for table in ("unix", *_TABLES, *_OTHERS):
        at = 6 if table == "unix" else _OTHERS.get(table, 9)
        for line in _lines(folder, f"net/{table}"):
            with suppress(ValueError, IndexError):
                if inode := int(line.split(None, at + 1)[at]):
                    yield inode, (table, line.rstrip())


def socket_number(target: bytes) -> int:
    """The number in what a descriptor of a socket is called; 0 if it is none."""
    found = _SOCKET.fullmatch(target)
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Owners:
    """Who has which socket open."""

    by_inode: Mapping[int, tuple[int, ...]]
    """Number of the socket to pids."""
    networks: Mapping[int, tuple[int, ...]]
    """Number of the network namespace to some pids in it."""


def owners(proc: str, pids: Iterator[int]) -> Iterator[Owners | None]:
    """None after each process that was looked at, and at last who has what."""
    by_inode = dict[int, tuple[int, ...]]()
    networks = dict[int, tuple[int, ...]]()
    for pid in pids:
        with suppress(OSError):
            network = os.stat(f"{proc}/{pid}/ns/net").st_ino  # noqa: PTH116 - thousands of paths
            networks[network] = (*networks.get(network, ()), pid)[:5]
        for inode in inodes_of(f"{proc}/{pid}/")[0]:
            ones = by_inode.get(inode, ())
            if len(ones) < MAX_OWNERS and (ones or len(by_inode) < MAX_OWNED):
                by_inode[inode] = (*ones, pid)
        yield None
    yield Owners(by_inode, networks)


def kind_of(mode: int) -> str:
    """What lsof calls a file of this mode."""
    names = {stat.S_IFREG: "REG", stat.S_IFDIR: "DIR", stat.S_IFCHR: "CHR", stat.S_IFBLK: "BLK", stat.S_IFIFO: "FIFO",
             stat.S_IFSOCK: "sock", stat.S_IFLNK: "LINK"}  # fmt: skip
    return names.get(stat.S_IFMT(mode), "unknown")
