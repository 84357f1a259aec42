"""What a process has open, as indicators ask for it: `ProcessItem/HandleList` and `ProcessItem/PortList`."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Final

from stanch.agent.host.items_hashes import KINDS, Hashes, kinds_of
from stanch.agent.host.items_sockets import Row, Tables, kind_of, socket_number
from stanch.core.ioc.items import CUT, Value

HANDLE: Final = "HandleList/Handle/"
PORT: Final = "PortList/PortItem/"

MAX_HANDLES = 16_384
"""Of one process that are looked at."""
MAX_NAMES = 1_048_576
"""Bytes of their names together: anybody may open files whose names are 4000 bytes long."""

_OF_FILES = frozenset(HANDLE + one for one in ("Type", "Device", "Size", "INode", *KINDS))
"""What only a look at the file tells, and not its name."""
_OF_SOCKETS = frozenset(
    HANDLE + one
    for one in (
        "Type", "Name", "INode", "SocketType", "SocketProtocol", "SocketState",
        "SocketLocalAddress", "SocketLocalPort", "SocketRemoteAddress", "SocketRemotePort",
    )
)  # fmt: skip
_ALL = (
    "Type", "Name", "FileDescriptor", "User", "Device", "Size", "INode", "SocketType", "SocketProtocol", "SocketState",
    "SocketLocalAddress", "SocketLocalPort", "SocketRemoteAddress", "SocketRemotePort", *KINDS,
)  # fmt: skip
_FOLDERS = {"cwd": "cwd", "root": "rtd"}
"""Links of a process beside its descriptors, to what lsof calls them."""

Found = dict[str, dict[Value, None]]
"""Path to values, each once."""


@dataclass(frozen=True, slots=True)
class _Open:
    """Something open."""

    link: str
    """Where in the folder of its process it is."""
    number: str
    """What its descriptor is called."""
    target: bytes
    """What the kernel calls it."""


def handles(
    folder: int,
    wanted: frozenset[str],
    *,
    user: str,
    tables: Tables,
    hashes: Hashes,
    stop: Event,
    sign: Callable[[], None],
) -> Mapping[str, Sequence[Value]]:
    """What the process with this folder has open; OSError if that cannot be known."""
    found: Found = {HANDLE + path: {} for path in _ALL}
    ones, whole = _looked_at(folder)
    if not whole:
        _cut(found, _ALL)
    if user and ones:
        found[HANDLE + "User"] = {user: None}
    for one in ones:
        found[HANDLE + "FileDescriptor"][one.number] = None
    _add_sockets(found, folder, ones, tables if wanted & _OF_SOCKETS else None)
    kinds = kinds_of(HANDLE, wanted)

    def digest(link: str) -> Mapping[str, str]:
        return hashes.of(link, folder, kinds, sign) if kinds else {}

    for one in ones:
        if stop.is_set():
            break
        if not socket_number(one.target):
            found[HANDLE + "Name"].update(dict.fromkeys(_names(one.target)))
            if wanted & _OF_FILES:
                _try_file(found, folder, one, digest)
        sign()
    return {path: _cut_last(values) for path, values in found.items()}


def _cut(found: Found, paths: Iterable[str]) -> None:
    """Not everything is known that is to be at these paths."""
    for path in paths:
        found[HANDLE + path][CUT] = None


def _cut_last(values: Mapping[Value, None]) -> list[Value]:
    return [*(one for one in values if one is not CUT), *((CUT,) if CUT in values else ())]


def _looked_at(folder: int) -> tuple[list[_Open], bool]:
    """What it has open, and is that all? Of its files only so many that their names fit, but every socket. OSError."""
    ones, whole, left = list[_Open](), True, MAX_NAMES
    for one in _open(folder):
        if not socket_number(one.target):
            left -= len(one.target)
        if left >= 0 or socket_number(one.target):
            ones.append(one)
        else:
            whole = False
    return ones, whole and len(ones) <= MAX_HANDLES


def _open(folder: int) -> Iterator[_Open]:
    """The folders in which it is, and its descriptors; OSError."""
    for link, number in _FOLDERS.items():
        with suppress(FileNotFoundError):
            yield _Open(link, number, os.fsencode(os.readlink(link, dir_fd=folder)))
    for name in _descriptors(folder):
        with suppress(FileNotFoundError):
            yield _Open(f"fd/{name}", name, os.fsencode(os.readlink(f"fd/{name}", dir_fd=folder)))


def _descriptors(folder: int) -> list[str]:
    fds = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(fds) as entries:  # one after the other: a process may have a million
            return [one.name for one in islice(entries, MAX_HANDLES + 1)]
    finally:
        os.close(fds)


def _names(target: bytes) -> Iterator[str]:
    name = os.fsdecode(target)
    if name.endswith(" (deleted)"):
        yield name.removesuffix(" (deleted)")
    yield name


def _try_file(found: Found, folder: int, one: _Open, digest: Callable[[str], Mapping[str, str]]) -> None:
    try:
        _add_file(found, folder, one, digest)
    except FileNotFoundError:  # it was closed meanwhile
        return
    except OSError:
        _cut(found, ("Type", "Device", "Size", "INode", *KINDS))


def _add_file(found: Found, folder: int, one: _Open, digest: Callable[[str], Mapping[str, str]]) -> None:
    """What is to be known of something open that is no socket; OSError."""
    status = os.stat(one.link, dir_fd=folder)
    kind = "a_inode" if one.target.startswith(b"anon_inode:") else kind_of(status.st_mode)
    found[HANDLE + "Type"][kind] = None
    found[HANDLE + "INode"][status.st_ino] = None
    device = status.st_rdev if kind in {"CHR", "BLK"} else status.st_dev
    found[HANDLE + "Device"][f"{os.major(device)},{os.minor(device)}"] = None
    if kind == "REG":
        found[HANDLE + "Size"][str(status.st_size)] = None
        digests = digest(one.link)
        for name in KINDS:
            found[HANDLE + name][digests.get(name, CUT)] = None


def _add_sockets(found: Found, folder: int, ones: Iterable[_Open], tables: Tables | None) -> None:
    inodes = frozenset(filter(None, (socket_number(one.target) for one in ones)))
    if tables is None or not inodes:
        return
    known = tables.of(folder, inodes)
    for inode in sorted(inodes):
        row = known.get(inode)
        if row is None:
            _cut(found, (one for one in _ALL if one.startswith("Socket")))
        for path, value in _of_socket(inode, row):
            found[HANDLE + path][value] = None


def _of_socket(inode: int, row: Row | None) -> Iterator[tuple[str, Value]]:
    yield "INode", inode
    if row is None or row.is_other:
        yield "Type", "sock"
        yield "Name", f"socket:[{inode}]"
        return
    yield "Type", "unix" if row.local is None else "IPv6" if row.six else "IPv4"
    if row.words:
        yield "Name", row.words
    yield "SocketType", row.type
    yield "SocketProtocol", row.protocol
    for state in row.state:
        yield "SocketState", state
    for side, end in (("Local", row.local), ("Remote", row.remote)):
        if end is not None:
            yield f"Socket{side}Address", end[0]
            yield f"Socket{side}Port", str(end[1])


def ports(
    folder: int, *, pid: int, names: Sequence[str], program: Sequence[str] | None, tables: Tables
) -> Mapping[str, Sequence[Value]]:
    """The ports of the process with this folder; OSError if they cannot be known."""
    inodes = frozenset(filter(None, (socket_number(one.target) for one in _open(folder))))
    known = tables.of(folder, inodes) if inodes else {}
    found = [known[inode] for inode in sorted(known) if known[inode].local is not None]
    more: Sequence[Value] = (
        (CUT,) if inodes - known.keys() else ()
    )  # without an address yet, quite new, or of a family that is not known here
    locals_ = [one.local for one in found if one.local is not None]
    remotes = [one.remote for one in found if one.remote is not None]
    values: dict[str, Sequence[Value]] = {
        "pid": (pid,) if found else (),
        "process": names if found else (),
        "state": [state for one in found for state in one.state],
        "protocol": [one.protocol for one in found],
        "localIP": [address for address, _port in locals_],
        "localPort": [port for _address, port in locals_],
        "remoteIP": [address for address, _port in remotes],
        "remotePort": [port for _address, port in remotes],
    }
    if program is not None:
        values["path"] = program if found else ()
    return {PORT + path: [*value, *more] for path, value in values.items()}
