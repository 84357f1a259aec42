"""The host's connected sockets, and their end: sock_diag netlink.

Dropping packets only stalls a connection; the program behind an idle one would go on where it was once the isolation
ends. SOCK_DESTROY ends it for good: the program gets ECONNABORTED.
"""

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from stanch.agent.host.netlink import NETLINK_SOCK_DIAG, Netlink, attributes
from stanch.core.errors import ActionFailed, StanchError, Unsupported
from stanch.core.network import Socket
from stanch.core.types import AnyAddress

TCPDIAG_GETSOCK = 18
SOCK_DIAG_BY_FAMILY = 20
SOCK_DESTROY = 21

STATES = {
    1: "established", 2: "syn-sent", 3: "syn-received", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait", 7: "close",
    8: "close-wait", 9: "last-ack", 10: "listen", 11: "closing", 12: "new-syn-received",
}  # fmt: skip
_ESTABLISHED, _FIN_WAIT_2, _TIME_WAIT, _CLOSE, _LISTEN = 1, 5, 6, 7, 10

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_ALIVE = {
    # Nobody can send or receive through the rest: no peer yet, or no program any more.
    "tcp": sum(1 << state for state in STATES if state not in {_TIME_WAIT, _CLOSE, _LISTEN}),
    "udp": 1 << _ESTABLISHED,  # that is: connected
}

_ID = struct.Struct("!HH16s16s")  # ports and addresses in network order; interface and cookie follow as they came
_ID_BYTES = 48
_REQUEST_HEAD = struct.Struct("=BBBBI")
_OLD_REQUEST = struct.Struct("=BBBB48xII")
_MESSAGE_HEAD = struct.Struct("=BBBB")
_MESSAGE_TAIL = struct.Struct("=IIIII")
_MESSAGE_BYTES = _MESSAGE_HEAD.size + _ID_BYTES + _MESSAGE_TAIL.size
_MARK, _GROUP = 15, 21
"""Attributes: SO_MARK, which only administrators are told, and the number of the control group."""

_DHCP = frozenset({(68, 67), (546, 547)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A socket as the kernel lists it."""

    protocol: str
    family: int
    state: int
    local: AnyAddress
    local_port: int
    remote: AnyAddress
    remote_port: int
    inode: int
    """0 if no program holds it any more."""

    uid: int
    """The account of the program that made it."""

    mark: int
    group: int
    """The number of its control group; 0 where the kernel does not tell."""

    id: bytes
    """How the kernel finds it again, with its cookie: never another socket."""

    @property
    def is_dhcp(self) -> bool:
        """Is it a client's socket for addresses, which stay?"""
        return self.protocol == "udp" and (self.local_port, self.remote_port) in _DHCP

    @property
    def is_only_remembered(self) -> bool:
        """Has its program closed it and all been acknowledged? The kernel waits for the peer's last word."""
        return self.state == _FIN_WAIT_2 and self.inode == 0

    def shown(self) -> Socket:
        """As people see it."""
        return Socket(
            protocol=self.protocol,
            local=_endpoint(self.local, self.local_port),
            remote=_endpoint(self.remote, self.remote_port),
            state=STATES.get(self.state, str(self.state)),
        )


def _endpoint(address: AnyAddress, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004 - IPv6


def pack_request(family: int, protocol: str, *, states: int = 0, identity: bytes = bytes(_ID_BYTES)) -> bytes:
    """Make the kernel's inet_diag_req_v2."""
    return _REQUEST_HEAD.pack(family, PROTOCOLS[protocol], 0, 0, states) + identity


def parse_message(protocol: str, payload: bytes) -> Open:
    """Read the kernel's inet_diag_msg; ActionFailed if it is malformed or of another family."""
    if len(payload) < _MESSAGE_BYTES:
        raise ActionFailed("The kernel's list of sockets makes no sense", got=f"{len(payload)} bytes",
                           expected=f"at least {_MESSAGE_BYTES}")  # fmt: skip
    family, state, _timer, _retransmits = _MESSAGE_HEAD.unpack_from(payload)
    identity = payload[_MESSAGE_HEAD.size : _MESSAGE_HEAD.size + _ID_BYTES]
    local_port, remote_port, local, remote = _ID.unpack_from(identity)
    *_, uid, inode = _MESSAGE_TAIL.unpack_from(payload, _MESSAGE_HEAD.size + _ID_BYTES)
    more = attributes(payload[_MESSAGE_BYTES:])
    return Open(
        protocol=protocol,
        family=family,
        state=state,
        local=_address(family, local),
        local_port=local_port,
        remote=_address(family, remote),
        remote_port=remote_port,
        inode=inode,
        uid=uid,
        mark=int.from_bytes(more.get(_MARK, b"")[:4], sys.byteorder),
        group=int.from_bytes(more.get(_GROUP, b"")[:8], sys.byteorder),
        id=identity,
    )


def _address(family: int, raw: bytes) -> AnyAddress:
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    if family == socket.AF_INET6:
        address = IPv6Address(raw)
        return address.ipv4_mapped or address
    raise ActionFailed("The kernel's list of sockets makes no sense", got=f"family {family}", expected="IPv4 or IPv6")


def connected(netlink: Netlink) -> Iterator[Open]:
    """Every socket with a peer, TCP and UDP, IPv4 and IPv6; Unsupported where the kernel cannot list them."""
    for protocol, (kind, request) in _LISTINGS:
        try:
            for payload in netlink.dump(kind, request):
                yield parse_message(protocol, payload)
        except OSError as error:
            raise _explained(error, "list", f"CONFIG_INET_{protocol.upper()}_DIAG") from error


_LISTINGS = (
    # The old request lists both families in one walk of the kernel's table of connections, which takes a millisecond.
    ("tcp", (TCPDIAG_GETSOCK, _OLD_REQUEST.pack(socket.AF_INET, 0, 0, 0, _ALIVE["tcp"], 0))),
    ("udp", (SOCK_DIAG_BY_FAMILY, pack_request(socket.AF_INET, "udp", states=_ALIVE["udp"]))),
    ("udp", (SOCK_DIAG_BY_FAMILY, pack_request(socket.AF_INET6, "udp", states=_ALIVE["udp"]))),
)


def destroy(netlink: Netlink, ones: Iterable[Open]) -> int:
    """End these sockets for good; how many were still there. Unsupported where the kernel cannot."""
    return sum(_destroyed(netlink, one) for one in ones)


def _destroyed(netlink: Netlink, one: Open) -> bool:
    try:
        netlink.do(SOCK_DESTROY, pack_request(one.family, one.protocol, identity=one.id))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESTALE}:  # it ended meanwhile
            return False
        raise _explained(error, "destroy", "CONFIG_INET_DIAG_DESTROY") from error
    return True


def open_netlink() -> Netlink:
    """The kernel's list of sockets in the calling thread's network namespace; Unsupported if it has none."""
    try:
        return Netlink(NETLINK_SOCK_DIAG)
    except OSError as error:
        raise _explained(error, "list", "CONFIG_INET_DIAG") from error


def _explained(error: OSError, verb: str, option: str) -> StanchError:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return Unsupported(
            f"Not allowed to {verb} sockets", got=error.strerror, hint="Run the agent as root, with CAP_NET_ADMIN."
        )
    if error.errno in {errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EINVAL}:
        return Unsupported(
            f"This kernel cannot {verb} sockets", got=error.strerror, hint=f"A kernel with {option}=y can."
        )
    return ActionFailed(f"The kernel did not {verb} sockets", got=error.strerror)
