"""What a frame on a wire is, for the observer. Standard library only, and nothing of Stanch."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

ETHERNET, IPV4, IPV6 = 14, 20, 40
ETH_IPV4, ETH_ARP, ETH_IPV6, ETH_VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmp"}
FIN, SYN, RST, ACK = 1, 2, 4, 16
_EXTENSIONS = frozenset({0, 43, 60})
"""Headers that may stand between IPv6 and its content: hop-by-hop options, routing, destination options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame, as far as it could be read; what could not be is None."""

    target_mac: bytes
    source_mac: bytes
    ethertype: int
    length: int
    body: bytes
    source: IPv4Address | IPv6Address | None = None
    target: IPv4Address | IPv6Address | None = None
    protocol: int | None = None
    hops: int = 0
    source_port: int | None = None
    target_port: int | None = None
    kind: int | None = None
    """Type of an ICMP message."""
    flags: int = 0
    """Of TCP."""

    @property
    def word(self) -> str:
        """tcp, udp, icmp, or a number."""
        return NAMES.get(self.protocol or 0, str(self.protocol))

    @property
    def stream(self) -> str:
        """What the frame is counted under: who says what to whom."""
        if self.source is None or self.target is None:
            return f"raw {self.ethertype:#06x}"
        return f"{self.source} {self.word} {self.target}"

    def __str__(self) -> str:
        head = f"ethertype {self.ethertype:#06x}"
        if self.source is None:
            macs = f"{self.source_mac.hex(':')} -> {self.target_mac.hex(':')}"
            return f"{head} {macs} {self.length} bytes: {self.body[:24].hex()}"
        ports = f" port {self.source_port} -> {self.target_port}" if self.source_port is not None else ""
        kind = f" type {self.kind}" if self.kind is not None else ""
        flags = f" flags {self.flags:#04x}" if self.protocol == TCP else ""
        return f"{head} {self.source} -> {self.target} {self.word}{ports}{kind}{flags} {self.length} bytes"


def read(data: bytes, length: int) -> Frame:
    """The frame in these bytes, of which there were `length` on the wire."""
    ethertype = int.from_bytes(data[12:14], "big")
    known = {"target_mac": data[:6], "source_mac": data[6:12], "length": length, "body": data[ETHERNET:]}
    if ethertype == ETH_IPV4 and len(data) >= ETHERNET + IPV4 and data[ETHERNET] >> 4 == 4:
        return Frame(ethertype=ethertype, **known, **_ipv4(data[ETHERNET:]))
    if ethertype == ETH_IPV6 and len(data) >= ETHERNET + IPV6 and data[ETHERNET] >> 4 == 6:
        return Frame(ethertype=ethertype, **known, **_ipv6(data[ETHERNET:]))
    return Frame(ethertype=ethertype, **known)


def _ipv4(data: bytes) -> dict:
    content = data[4 * (data[0] & 15) :]
    first = int.from_bytes(data[6:8], "big") & 0x1FFF == 0  # of a fragmented packet only the first piece has ports
    ends = {"source": IPv4Address(data[12:16]), "target": IPv4Address(data[16:20])}
    return {**ends, "protocol": data[9], "hops": data[8], **(_content(data[9], content) if first else {})}


def _ipv6(data: bytes) -> dict:
    protocol, content = data[6], data[IPV6:]
    while protocol in _EXTENSIONS and len(content) >= 8:
        protocol, content = content[0], content[8 * (content[1] + 1) :]
    ends = {"source": IPv6Address(data[8:24]), "target": IPv6Address(data[24:40])}
    return {**ends, "protocol": protocol, "hops": data[7], **_content(protocol, content)}


def _content(protocol: int, content: bytes) -> dict:
    if protocol in {TCP, UDP} and len(content) >= 4:
        source, target = struct.unpack("!HH", content[:4])
        flags = content[13] if protocol == TCP and len(content) >= 14 else 0
        return {"source_port": source, "target_port": target, "flags": flags}
    if protocol in {ICMP, ICMPV6} and content:
        return {"kind": content[0]}
    return {}
