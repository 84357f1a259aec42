"""The observer's classification of frames."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from stanch.demo.attack import ETH_IPV4, ETH_IPV6, PING_MAGIC, checksum, echo_v4, echo_v6
from stanch.demo.client import SHOP_PORT
from stanch.demo.wire import ETH_ARP, Known, classify, read_packet

KNOWN = Known(
    servers=frozenset({"198.51.100.20", "2001:db8:2::20"}), shops=frozenset({"203.0.113.80", "2001:db8:c2::80"})
)
ADDRESSES = b"\xff" * 6 + b"\x02" * 6


def frame(kind: int, data: bytes) -> bytes:
    return ADDRESSES + struct.pack("!H", kind) + data


def v4(target: str, protocol: int, payload: bytes) -> bytes:
    packet = bytearray(echo_v4("192.0.2.10", target, b""))[:20]
    packet[9] = protocol
    return frame(ETH_IPV4, bytes(packet) + payload)


def v6(target: str, protocol: int, payload: bytes) -> bytes:
    packet = bytearray(echo_v6("2001:db8:1::10", target, b""))[:40]
    packet[6] = protocol
    return frame(ETH_IPV6, bytes(packet) + payload)


def test_each_kind_of_frame_has_its_stream():
    """ARP, neighbour discovery and DHCP are the link's, the server's traffic is the server's, the rest is other."""
    kinds = {
        "ARP": classify(frame(ETH_ARP, b"\0" * 28), KNOWN)[0],
        "neighbour solicitation": classify(v6("ff02::1:ff00:1", 58, bytes([135]) + b"\0" * 23), KNOWN)[0],
        "DHCP": classify(v4("255.255.255.255", 17, struct.pack("!HH", 68, 67) + b"\0" * 20), KNOWN)[0],
        "server 4": classify(v4("198.51.100.20", 6, b"\0" * 20), KNOWN)[0],
        "server 6": classify(v6("2001:db8:2::20", 6, b"\0" * 20), KNOWN)[0],
        "DNS": classify(v4("203.0.113.53", 17, struct.pack("!HH", 40000, 53) + b"\0" * 8), KNOWN)[0],
        "echo reply 6": classify(v6("2001:db8:c2::66", 58, bytes([129]) + b"\0" * 7), KNOWN)[0],
        "raw ping 4": classify(frame(ETH_IPV4, echo_v4("192.0.2.10", "203.0.113.66", PING_MAGIC)), KNOWN)[0],
        "raw ping 6": classify(frame(ETH_IPV6, echo_v6("2001:db8:1::10", "2001:db8:c2::66", PING_MAGIC)), KNOWN)[0],
        "unknown": classify(frame(0x88CC, b"\0" * 40), KNOWN)[0],
    }
    assert kinds == {
        "ARP": "link",
        "neighbour solicitation": "link",
        "DHCP": "link",
        "server 4": "server",
        "server 6": "server",
        "DNS": "other",
        "echo reply 6": "other",
        "raw ping 4": "ping4",
        "raw ping 6": "ping6",
        "unknown": "other",
    }


def ports(source: int, target: int) -> bytes:
    """The beginning of TCP and UDP."""
    return struct.pack("!HH", source, target) + b"\0" * 16


def test_only_the_shops_own_port_is_the_shop():
    """A frame to another port of the same host, by another protocol, or from the port is a stray like any other."""
    assert classify(v4("203.0.113.80", 6, ports(40000, SHOP_PORT)), KNOWN)[0] == "shop"
    assert classify(v6("2001:db8:c2::80", 6, ports(40000, SHOP_PORT)), KNOWN)[0] == "shop"
    strays = [
        v4("203.0.113.80", 6, ports(40000, 4444)),
        v4("203.0.113.80", 6, ports(SHOP_PORT, 4444)),
        v4("203.0.113.80", 17, ports(40000, SHOP_PORT)),
        v4("203.0.113.66", 6, ports(40000, SHOP_PORT)),
        v4("203.0.113.80", 6, b"\0\x50"),
    ]
    assert {classify(one, KNOWN)[0] for one in strays} == {"other"}


@given(st.binary(max_size=120), st.sampled_from([ETH_IPV4, ETH_IPV6, ETH_ARP, 0x88CC]))
def test_any_bytes_are_classified(data: bytes, kind: int):
    """Whatever a frame holds, it gets a stream and a line, and only what it may be is called harmless."""
    name, about = classify(frame(kind, data), KNOWN)
    assert name in {"link", "server", "shop", "ping4", "ping6", "other"}
    assert about


@given(st.binary(max_size=13))
def test_a_cut_frame_is_other(data: bytes):
    """A frame without a whole Ethernet header is counted, not trusted."""
    assert classify(data, KNOWN)[0] == "other"


@given(st.binary(min_size=1, max_size=300))
def test_a_checksum_makes_its_data_sum_to_zero(data: bytes):
    """Data of even length with its own checksum behind it checks to zero (RFC 1071)."""
    even = data + b"\0" * (len(data) % 2)
    assert checksum(even + struct.pack("!H", checksum(even))) == 0


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.binary(max_size=64))
def test_an_echo_request_reads_back(source, target, payload: bytes):
    """The packet that the attack builds has the ends it was given and checksums that hold."""
    packet = echo_v4(str(source), str(target), payload)
    read = read_packet(ETH_IPV4, packet)
    assert read is not None
    assert (read.source, read.target, read.protocol) == (str(source), str(target), 1)
    assert checksum(packet[:20]) == 0
    assert read.payload[8:] == payload
