"""What happens to our tables, and to the devices and addresses of the machine, as the kernel tells it.

nf_tables tells every change to whoever listens: the messages of one transaction, then one that names the process that
asked for it. A transaction is ours if the netlink socket that sent it is: that of an nft we started, or the one that
owns the tables. Of all others the process is looked at while it may still be there.
"""

import asyncio
import errno
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Container
from dataclasses import dataclass
from typing import Self

import structlog

from stanch.agent.host.culprit import describe, plain
from stanch.agent.host.links import LOOPBACK, links, local_addresses, parse_address, parse_link
from stanch.agent.host.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Message, attributes, messages
from stanch.core.errors import StanchError, Unsupported
from stanch.core.types import AnyAddress

_ADD_MEMBERSHIP, _SOL_NETLINK = 1, 270
_NFTABLES = 7
_LINK, _ADDRESS4, _ADDRESS6 = 1, 5, 9
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _DELETE_ADDRESS = 16, 17, 20, 21

_SUBSYSTEM = 10
_NEW_GENERATION = 15
_PROCESS_ID, _PROCESS_NAME = 2, 3
_TABLE = 1
_FAMILIES = {1: "inet", 5: "netdev"}
_KINDS = {
    0: "table {} added", 2: "table {} deleted", 3: "chain of {} added", 5: "chain of {} deleted",
    6: "rule of {} added", 8: "rule of {} deleted", 9: "set of {} added", 11: "set of {} deleted",
    12: "element of {} added", 14: "element of {} deleted",
}  # fmt: skip
"""By the kernel's message types; the rest (objects, flow tables) is nothing of ours."""

_RECEIVE_BUFFER = 4 * 1_048_576
_BYTES = 65_536
_AT_ONCE = 200
"""Datagrams that are read before somebody else has a turn."""

_MAX_FOREIGN = 20
"""Changes by others that wait to be repaired, each with all that it takes: more of them are repaired with the last."""

_MAX_KINDS = 20
_LOOK_AT_GROUPS = 1.0
"""Seconds between two looks at the control groups of the rules: the kernel tells nobody that one was made again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Somebody else changed one of our tables."""

    what: str
    pid: int
    """0 if the kernel does not tell."""

    name: str
    """What the process calls itself."""

    who: str
    """The process, its account and its parents; empty if it is gone."""


@dataclass(frozen=True, slots=True)
class Devices:
    """A device has come, gone, or has another name."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The machine has other addresses than before."""


@dataclass(frozen=True, slots=True)
class Groups:
    """A control group that the rules name was made again."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Something may have happened that nobody has seen: look at everything."""


Change = Foreign | Devices | Addresses | Groups | Lost


class Transactions:
    """Puts messages about tables together: what a transaction touched, and who asked for it."""

    def __init__(self, tables: Container[str], is_ours: Callable[[int], bool]) -> None:
        self._tables = tables
        self._is_ours = is_ours
        self._touched: dict[str, None] = {}

    def take(self, message: Message) -> Foreign | None:
        """The transaction of somebody else that ends with this message and touched a table of ours."""
        if message.kind >> 8 != _SUBSYSTEM:
            return None
        kind = message.kind & 0xFF
        found = attributes(message.payload[4:])
        if kind != _NEW_GENERATION:
            self._note(kind, message.payload[:1], found.get(_TABLE, b""))
            return None
        touched, self._touched = self._touched, {}
        if not touched or self._is_ours(message.port):
            return None
        pid = int.from_bytes(found.get(_PROCESS_ID, b"")[:4], "big")
        name = plain(found.get(_PROCESS_NAME, b"").rstrip(b"\0"))
        return Foreign(what=", ".join(touched), pid=pid, name=name, who=describe(pid))

    def _note(self, kind: int, family: bytes, raw: bytes) -> None:
        table = raw.rstrip(b"\0").decode("ascii", "replace")
        where = _FAMILIES.get(family[0] if family else 0)
        if kind in _KINDS and where and table in self._tables and len(self._touched) < _MAX_KINDS:
            self._touched[_KINDS[kind].format(f"{where} {table}")] = None


class Machine:
    """Devices and addresses as they were last told: the kernel repeats itself, and only a difference counts."""

    def __init__(self) -> None:
        self._devices = {one.device.index: one.device.name for one in links()}
        self._addresses = set(local_addresses())

    def take(self, message: Message) -> Change | None:
        """What is different since the last message."""
        if message.kind in {_NEW_LINK, _DELETE_LINK}:
            return self._take_device(message)
        if message.kind in {_NEW_ADDRESS, _DELETE_ADDRESS}:
            return self._take_addresses(set(parse_address(message.payload)), gone=message.kind == _DELETE_ADDRESS)
        return None

    def _take_device(self, message: Message) -> Change | None:
        device = parse_link(message.payload).device
        # A bridge tells of its ports by the same message, in its own family: they are none the less there.
        if device.index == LOOPBACK or message.payload[:1] != b"\0":
            return None
        before = self._devices.get(device.index)
        if message.kind == _DELETE_LINK:
            return Devices() if self._devices.pop(device.index, None) is not None else None
        self._devices[device.index] = device.name
        return Devices() if before != device.name else None

    def _take_addresses(self, addresses: set[AnyAddress], *, gone: bool) -> Change | None:
        before = len(self._addresses)
        self._addresses = self._addresses - addresses if gone else self._addresses | addresses
        return Addresses() if len(self._addresses) != before else None


class Watch:
    """An endless iterator of changes; use it with `async with`, in the namespace that it is to watch."""

    def __init__(
        self, *, tables: Container[str], is_ours: Callable[[int], bool], groups: Callable[[], bool] = lambda: False
    ) -> None:
        self._transactions = Transactions(tables, is_ours)
        self._groups = groups
        self._found: deque[Change] = deque([Lost()])
        self._news = asyncio.Event()
        self._sockets: list[socket.socket] = []
        self._machine: Machine

    async def __aenter__(self) -> Self:
        try:
            self._sockets.append(_listener(NETLINK_NETFILTER, _NFTABLES))
            self._sockets.append(_listener(NETLINK_ROUTE, _LINK, _ADDRESS4, _ADDRESS6))
            self._machine = Machine()
        except OSError as error:
            self._close()
            raise Unsupported("This kernel does not tell of changes of the firewall", got=error.strerror) from error
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.add_reader(one.fileno(), self._read, one)
        self._news.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one.fileno())
        self._close()

    def _close(self) -> None:
        for one in self._sockets:
            one.close()

    async def __aiter__(self) -> AsyncIterator[Change]:
        while True:
            while self._found:
                yield self._found.popleft()
            self._news.clear()
            try:
                async with asyncio.timeout(_LOOK_AT_GROUPS):
                    await self._news.wait()
            except TimeoutError:
                if self._groups():
                    yield Groups()

    # --- reading, as callback of the loop ----------------------------------------------------------------------------

    def _read(self, one: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, _ancillary, flags, (sender, _groups) = one.recvmsg(_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    log.warning("changes-cannot-be-read", error=error.strerror)
                self._tell(Lost())
                return
            if flags & socket.MSG_TRUNC:
                self._tell(Lost())
            elif sender == 0:  # another process may write to us; the kernel's port is 0
                self._take(data, is_route=one is self._sockets[-1])

    def _take(self, data: bytes, *, is_route: bool) -> None:
        try:
            for message in messages(data):
                change = self._machine.take(message) if is_route else self._transactions.take(message)
                if change is not None:
                    self._tell(change)
        except StanchError as error:
            log.warning("a-change-makes-no-sense", error=str(error))
            self._tell(Lost())

    def _tell(self, change: Change) -> None:
        # One of a kind is enough, until somebody has taken it.
        if isinstance(change, Foreign):
            known = sum(isinstance(one, Foreign) for one in self._found) >= _MAX_FOREIGN
        else:
            known = change in self._found
        if not known:
            self._found.append(change)
        self._news.set()


def _listener(protocol: int, *groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        made.bind((0, 0))
        for group in groups:
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, struct.pack("=i", group))
    except BaseException:
        made.close()
        raise
    return made
