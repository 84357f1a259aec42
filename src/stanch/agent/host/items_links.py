"""Network devices, their addresses, neighbours and routes, read from the kernel over rtnetlink: rtnetlink(7).

Everything is taken apart with every length checked; what makes no sense is passed over.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import islice

from stanch.agent.host.netlink import Netlink, attributes
from stanch.core.errors import StanchError

MAX_LINKS = 100_000
MAX_HOPS = 256
"""Next hops of one route that are told."""

_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_NEIGHBOUR = 18, 22, 26, 30
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, two prefix lengths, tos, table, protocol, scope, type, flags
_HOP = struct.Struct("=HBBi")  # length, flags, hops, index
_U32 = struct.Struct("=I")

_LINK_MAC, _LINK_NAME = 1, 3
_ADDRESS_PEER, _ADDRESS_LOCAL = 1, 2
_SCOPE_LINK = 253
_TO, _PHYSICAL = 1, 2
_DESTINATION, _OUT, _GATEWAY, _PRIORITY, _METRICS, _MULTIPATH, _VIA = 1, 4, 5, 6, 8, 9, 18
_METRIC_MTU = 2
_CLONED = 0x200
"""Flag of a route: no route, but what was remembered of one."""

_KINDS = {1: "Ethernet", 772: "Loopback", 32: "Infiniband", 512: "PPP", 768: "Tunnel", 769: "Tunnel", 776: "Tunnel",
          778: "Tunnel", 823: "Tunnel", 65534: "Tunnel"}  # fmt: skip
_STATES = {
    0x01: ("Incomplete", "Unreachable"), 0x02: ("Reachable",), 0x04: ("Stale",), 0x08: ("Delay",), 0x10: ("Probe",),
    0x20: ("Failed", "Unreachable"), 0x40: ("NoArp",), 0x80: ("Permanent",),
}  # fmt: skip
_STATIC = 0x80 | 0x40
_ROUTER = 0x80
_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable",
          8: "prohibit", 9: "throw", 10: "nat"}  # fmt: skip
_NOWHERE = frozenset({6, 7, 8})
_PROTOCOLS = {0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt",
              11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted",
              18: "keepalived", 42: "babel", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip",
              192: "eigrp"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    name: str
    kind: str
    """Ethernet, Loopback, Tunnel, Infiniband, PPP, Other."""
    physical: str
    """Its hardware address as 02:ab:...; empty if it has none."""


@dataclass(frozen=True, slots=True)
class Own:
    """An address of a device."""

    device: int
    address: str
    six: bool
    prefix: int
    is_global: bool
    """Or only of its link?"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who has which hardware address."""

    device: int
    address: str
    six: bool
    physical: str
    state: tuple[str, ...]
    is_static: bool
    is_router: bool


@dataclass(frozen=True, slots=True)
class Route:
    """Where packets to a network go."""

    network: IPv4Network | IPv6Network
    kind: str
    protocol: str
    devices: tuple[int, ...]
    gateways: tuple[str, ...]
    metric: int
    mtu: int
    """0 if the route does not say it."""
    flags: str
    """As route(8) shows them."""

    @property
    def is_default(self) -> bool:
        """Does it lead everywhere?"""
        return self.network.prefixlen == 0 and self.kind == "unicast"


def links(netlink: Netlink) -> dict[int, Link]:
    """The network devices by their numbers; OSError or ActionFailed if the kernel will not say."""
    payloads = islice(netlink.dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0)), MAX_LINKS)
    return dict(one for payload in payloads for one in parse_link(payload))


def own_addresses(netlink: Netlink) -> Iterator[Own]:
    """The addresses of the network devices; OSError or ActionFailed."""
    for payload in netlink.dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
        yield from parse_own(payload)


def neighbours(netlink: Netlink) -> Iterator[Neighbour]:
    """The neighbours that the kernel knows, of IPv4 and IPv6; OSError or ActionFailed."""
    for payload in netlink.dump(_GET_NEIGHBOUR, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
        yield from parse_neighbour(payload)


def routes(netlink: Netlink) -> Iterator[Route]:
    """The routes of all tables, of IPv4 and IPv6; OSError or ActionFailed."""
    for payload in netlink.dump(_GET_ROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        yield from parse_route(payload)


def parse_link(payload: bytes) -> Iterator[tuple[int, Link]]:
    """Number and device; nothing if the message makes no sense."""
    with suppress(struct.error, StanchError):
        _family, kind, index, _flags, _change = _LINK.unpack_from(payload)
        found = attributes(payload[_LINK.size :])
        name = found.get(_LINK_NAME, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
        yield index, Link(name[:200], _KINDS.get(kind, "Other"), _physical(found.get(_LINK_MAC, b"")))


def parse_own(payload: bytes) -> Iterator[Own]:
    """The address; nothing if the message makes no sense."""
    with suppress(struct.error, StanchError, ValueError):
        family, prefix, _flags, scope, index = _ADDRESS.unpack_from(payload)
        found = attributes(payload[_ADDRESS.size :])
        address = _address(family, found.get(_ADDRESS_LOCAL, found.get(_ADDRESS_PEER, b"")))
        yield Own(index, str(address), family == socket.AF_INET6, prefix, scope < _SCOPE_LINK)


def parse_neighbour(payload: bytes) -> Iterator[Neighbour]:
    """The neighbour; nothing if the message makes no sense, or is of another family."""
    with suppress(struct.error, StanchError, ValueError):
        family, index, state, flags, _type = _NEIGHBOUR.unpack_from(payload)
        found = attributes(payload[_NEIGHBOUR.size :])
        yield Neighbour(
            device=index,
            address=str(_address(family, found.get(_TO, b""))),
            six=family == socket.AF_INET6,
            physical=_physical(found.get(_PHYSICAL, b"")),
            state=_STATES.get(state, (f"0x{state:02x}",)),
            is_static=bool(state & _STATIC),
            is_router=bool(flags & _ROUTER),
        )


def parse_route(payload: bytes) -> Iterator[Route]:
    """The route; nothing if the message makes no sense, is of another family, or is no route but a memory of one."""
    with suppress(struct.error, StanchError, ValueError):
        family, length, _from, _tos, _table, protocol, _scope, kind, flags = _ROUTE.unpack_from(payload)
        if flags & _CLONED:
            return
        found = attributes(payload[_ROUTE.size :])
        network = _network(family, found.get(_DESTINATION), length)
        gateways = tuple(dict.fromkeys(_gateways(family, found)))[:MAX_HOPS]
        yield Route(
            network=network,
            kind=_TYPES.get(kind, str(kind)),
            protocol=_PROTOCOLS.get(protocol, str(protocol)),
            devices=tuple(dict.fromkeys(_devices(found)))[:MAX_HOPS],
            gateways=gateways,
            metric=_number(found.get(_PRIORITY)),
            mtu=_number(attributes(found.get(_METRICS, b"")).get(_METRIC_MTU)),
            flags=_flags_of(kind, network, gateway=bool(gateways)),
        )


def _flags_of(kind: int, network: IPv4Network | IPv6Network, *, gateway: bool) -> str:
    up = "!" if kind in _NOWHERE else "U"
    host = "H" if network.prefixlen == network.max_prefixlen else ""
    return up + ("G" if gateway else "") + host


def _gateways(family: int, found: dict[int, bytes]) -> Iterator[str]:
    if _GATEWAY in found:
        yield str(_address(family, found[_GATEWAY]))
    if _VIA in found:  # an IPv4 route over an IPv6 gateway
        (other,) = struct.unpack_from("=H", found[_VIA])
        yield str(_address(other, found[_VIA][2:]))
    for _index, inside in _hops(found):
        yield from _gateways(family, inside)


def _devices(found: dict[int, bytes]) -> Iterator[int]:
    if _OUT in found:
        yield _number(found[_OUT])
    for index, _inside in _hops(found):
        yield index


def _hops(found: dict[int, bytes]) -> Iterator[tuple[int, dict[int, bytes]]]:
    """The device and the rest of each next hop of a route over several."""
    data = found.get(_MULTIPATH, b"")
    while len(data) >= _HOP.size:
        length, _flags, _count, index = _HOP.unpack_from(data)
        if not _HOP.size <= length <= len(data):
            return
        inside = attributes(data[_HOP.size : length])
        inside.pop(_MULTIPATH, None)
        yield index, inside
        data = data[(length + 3) & ~3 :]


def _network(family: int, raw: bytes | None, length: int) -> IPv4Network | IPv6Network:
    address = _address(family, raw if raw is not None else bytes(4 if family == socket.AF_INET else 16))
    return ip_network((address, length), strict=False)


def _address(family: int, raw: bytes) -> IPv4Address | IPv6Address:
    """An address of this family; ValueError if it is none, or of another family."""
    if family == socket.AF_INET:
        return IPv4Address(raw)
    if family == socket.AF_INET6:
        return IPv6Address(raw)
    raise ValueError(f"got family {family}, expected IPv4 or IPv6")


def _number(raw: bytes | None) -> int:
    return int(_U32.unpack_from(raw)[0]) if raw else 0


def _physical(raw: bytes) -> str:
    return raw[:32].hex(":")
