"""What a frame on the endpoint's cable is: pure, for the outside's observer. Standard library only."""

import ipaddress
import struct
from dataclasses import dataclass

from stanch.demo.attack import ETH_IPV4, ETH_IPV6, PING_MAGIC
from stanch.demo.client import SHOP_PORT

ETH_ARP = 0x0806
ETHERNET, IPV4, IPV6 = 14, 20, 40
ICMPV6, TCP, UDP = 58, 6, 17
NEIGHBOUR_TYPES = frozenset({133, 134, 135, 136, 137, 143})
"""Neighbour discovery, and the multicast reports without which switches do not forward it."""

DHCP_PORTS = frozenset({67, 68, 546, 547})


@dataclass(frozen=True, slots=True)
class Packet:
    """The part of an IP packet that tells where it goes."""

    source: str
    target: str
    protocol: int
    payload: bytes

    @property
    def ports(self) -> frozenset[int]:
        """Source and target port, if it is UDP."""
        whole = self.protocol == UDP and len(self.payload) >= 4  # noqa: PLR2004 - two ports of two bytes
        return frozenset(struct.unpack("!HH", self.payload[:4])) if whole else frozenset()

    @property
    def target_port(self) -> int:
        """Where a TCP packet goes; 0 if it is none."""
        whole = self.protocol == TCP and len(self.payload) >= 4  # noqa: PLR2004 - two ports of two bytes
        return int.from_bytes(self.payload[2:4], "big") if whole else 0

    @property
    def neighbour(self) -> bool:
        """IPv6 neighbour discovery?"""
        return self.protocol == ICMPV6 and self.payload[:1] != b"" and self.payload[0] in NEIGHBOUR_TYPES

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} protocol {self.protocol}"


def read_packet(kind: int, data: bytes) -> Packet | None:
    """The IP packet of a frame; None if it is cut short or no IP."""
    if kind == ETH_IPV4 and len(data) >= IPV4:
        head = (data[0] & 15) * 4
        source, target = (str(ipaddress.IPv4Address(end)) for end in (data[12:16], data[16:20]))
        return Packet(source, target, data[9], data[head:])
    if kind == ETH_IPV6 and len(data) >= IPV6:
        source, target = (str(ipaddress.IPv6Address(end)) for end in (data[8:24], data[24:40]))
        return Packet(source, target, data[6], data[IPV6:])
    return None


@dataclass(frozen=True, slots=True)
class Known:
    """Addresses by which the observer tells frames apart."""

    servers: frozenset[str] = frozenset()
    """Of the Stanch server."""

    shops: frozenset[str] = frozenset()
    """Of the harmless shop."""


def classify(frame: bytes, known: Known) -> tuple[str, str]:
    """A stream's name and a line about the frame. What an isolated endpoint may send is `link` or `server`."""
    if len(frame) < ETHERNET:
        return "other", f"{len(frame)} bytes"
    (kind,) = struct.unpack("!H", frame[12:14])
    packet = read_packet(kind, frame[ETHERNET:])
    if packet is None:
        return ("link", "ARP") if kind == ETH_ARP else ("other", f"ethertype {kind:#06x}")
    if PING_MAGIC in packet.payload:
        return "ping6" if kind == ETH_IPV6 else "ping4", str(packet)
    return _stream(packet, known), str(packet)


def _stream(packet: Packet, known: Known) -> str:
    if packet.neighbour or packet.ports & DHCP_PORTS:
        return "link"
    if packet.target in known.shops and packet.target_port == SHOP_PORT:
        return "shop"
    return "server" if packet.target in known.servers else "other"
