"""What frames are taken for."""

import socket
import struct

import pytest

from tests.torture.frame import read

ETHER = b"\xff" * 6 + b"\x02\0\0\0\0\1"


def ipv4(protocol: int, content: bytes, target: str = "203.0.113.66", fragment: int = 0) -> bytes:
    ends = socket.inet_aton("192.0.2.10") + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 1, fragment, 64, protocol, 0) + ends
    return ETHER + b"\x08\x00" + head + content


def ipv6(following: int, content: bytes, target: str = "2001:db8:c2::66", hops: int = 64) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, "2001:db8:1::10") + socket.inet_pton(socket.AF_INET6, target)
    return ETHER + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(content), following, hops) + ends + content


def tcp(source: int, target: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", source, target, 1, 0, 0x50, flags, 1000, 0, 0)


@pytest.mark.parametrize("make", [ipv4, ipv6])
def test_ports_and_flags_are_read_from_both_versions(make):
    """A TCP segment is known by its addresses, ports and flags."""
    frame = read(make(6, tcp(5555, 4000, 2)), 60)
    assert (frame.word, frame.source_port, frame.target_port, frame.flags) == ("tcp", 5555, 4000, 2)
    assert "port 5555 -> 4000" in str(frame)


def test_the_content_is_found_behind_ipv6_options():
    """MLD comes with a hop-by-hop header, which must not hide what it is."""
    frame = read(ipv6(0, bytes([58, 0, 5, 2, 0, 0, 0, 0]) + b"\x8f\0\0\0"), 90)
    assert (frame.protocol, frame.kind) == (58, 143)


def test_a_later_fragment_has_no_ports():
    """Its first bytes are data, and must not be taken for ports that are allowed."""
    assert read(ipv4(6, tcp(1, 8444, 2), fragment=100), 60).target_port is None


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_what_is_cut_short_is_read_as_far_as_it_goes(length: int):
    """No frame, however short, stops the observer."""
    for whole in (ipv4(17, b"\0" * 40), ipv6(58, b"\0" * 40)):
        assert read(whole[:length], length).length == length
