"""The network devices and addresses of the namespace, from rtnetlink: /sys may belong to another namespace."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from stanch.agent.host.netlink import NETLINK_ROUTE, Netlink, attributes
from stanch.agent.host.ruleset import Device
from stanch.core.errors import ActionFailed
from stanch.core.types import AnyAddress

LOOPBACK = 1
"""Index of the loopback device in every namespace, whatever its name."""

_GET_LINK, _GET_ADDRESS = 18, 22
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_NAME, _XDP, _XDP_ATTACHED = 3, 43, 2
_ADDRESS, _LOCAL = 1, 2
_AF_INET, _AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class Link:
    """A device, and whether an XDP program runs on it."""

    device: Device
    xdp: bool


def links() -> list[Link]:
    """Every device of the calling thread's namespace but the loopback, by index."""
    with Netlink(NETLINK_ROUTE) as netlink:
        found = [parse_link(payload) for payload in netlink.dump(_GET_LINK, _IFINFO.pack(0, 0, 0, 0, 0))]
    return sorted((one for one in found if one.device.index != LOOPBACK), key=lambda one: one.device)


def local_addresses() -> frozenset[AnyAddress]:
    """Every address of the calling thread's namespace: traffic to them never leaves it."""
    with Netlink(NETLINK_ROUTE) as netlink:
        return frozenset(
            address
            for payload in netlink.dump(_GET_ADDRESS, _IFADDR.pack(0, 0, 0, 0, 0))
            for address in parse_address(payload)
        )


def parse_link(payload: bytes) -> Link:
    """Read one RTM_NEWLINK message; ActionFailed if it is malformed."""
    if len(payload) < _IFINFO.size:
        raise ActionFailed("The kernel's list of devices makes no sense", got=f"{len(payload)} bytes")
    _family, _type, index, _flags, _change = _IFINFO.unpack_from(payload)
    found = attributes(payload[_IFINFO.size :])
    name = found.get(_NAME, b"").rstrip(b"\0").decode("utf-8", "backslashreplace")
    xdp = attributes(found.get(_XDP, b"")).get(_XDP_ATTACHED, b"\0")
    return Link(Device(index=index, name=name), xdp=xdp[:1] not in {b"", b"\0"})


def parse_address(payload: bytes) -> Iterator[AnyAddress]:
    """Read one RTM_NEWADDR message: its own address, if it is of IPv4 or IPv6; ActionFailed if it is malformed."""
    if len(payload) < _IFADDR.size:
        raise ActionFailed("The kernel's list of addresses makes no sense", got=f"{len(payload)} bytes")
    family = payload[0]
    found = attributes(payload[_IFADDR.size :])
    # On a point-to-point device ADDRESS is the peer's, and only LOCAL our own.
    raw = found.get(_LOCAL, found.get(_ADDRESS, b""))
    if family == _AF_INET and len(raw) == 4:  # noqa: PLR2004 - bytes of an IPv4 address
        yield IPv4Address(raw)
    if family == _AF_INET6 and len(raw) == 16:  # noqa: PLR2004 - bytes of an IPv6 address
        yield IPv6Address(raw)
