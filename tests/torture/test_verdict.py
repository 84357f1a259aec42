"""Which frames are leaks."""

from ipaddress import ip_address

import pytest

from tests.torture.frame import Frame, read
from tests.torture.test_frame import ETHER, ipv4, ipv6, tcp
from tests.torture.verdict import Exclusion, Seen, Span, judge

SERVER = {"since": 10.0, "until": 20.0, "servers": [["198.51.100.20", 8444]]}
UDP = b"\x15\xb3\x0f\xa0\x00\x08\x00\x00"


def span(**more: object) -> Span:
    return Span.of({**SERVER, **more})


def frame(data: bytes) -> Frame:
    return read(data, len(data))


def test_only_the_gateway_of_the_server_is_allowed():
    """TCP to its port may leave; another port, another protocol and another address may not."""
    assert not span().forbids(frame(ipv4(6, tcp(5, 8444, 2), "198.51.100.20")))
    assert span().forbids(frame(ipv4(6, tcp(5, 22, 2), "198.51.100.20")))
    assert span().forbids(frame(ipv4(17, UDP, "198.51.100.20")))
    assert span().forbids(frame(ipv4(6, tcp(5, 8444, 2))))


UPKEEP = {
    "ARP": ETHER + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04\x00\x01" + b"\0" * 20,
    "LACP": b"\x01\x80\xc2\x00\x00\x02" + ETHER[6:] + b"\x88\x09" + b"\1" * 40,
    "802.1X": ETHER + b"\x88\x8e" + b"\1" * 40,
    "neighbour solicitation": ipv6(58, b"\x87\0\0\0", "ff02::1:ff00:1", hops=255),
    "MLD": ipv6(0, bytes([58, 0, 5, 2, 0, 0, 0, 0]) + b"\x8f\0\0\0", "ff02::16", hops=1),
    "DHCP": ipv4(17, b"\x00\x44\x00\x43\x00\x08\x00\x00", "255.255.255.255"),
    "DHCPv6": ipv6(17, b"\x02\x22\x02\x23\x00\x08\x00\x00", "ff02::1:2"),
}


@pytest.mark.parametrize("name", UPKEEP)
def test_what_a_link_needs_is_no_leak(name: str):
    """An isolated host keeps its place on the link."""
    assert not span().forbids(frame(UPKEEP[name]))


DISGUISED = {
    "IPv4 that claims to be ARP": ETHER + b"\x08\x06" + ipv4(17, UDP)[14:],
    "neighbour solicitation from afar": ipv6(58, b"\x87\0\0\0", hops=64),
    "MLD to somebody": ipv6(58, b"\x8f\0\0\0", hops=1),
    "echo request": ipv6(58, b"\x80\0\0\0", hops=255),
    "DHCP to one server": ipv4(17, b"\x00\x44\x00\x43\x00\x08\x00\x00"),
    "another ethertype": ETHER + b"\x88\xb5" + b"leak" * 10,
    "cut short": ETHER,
}


@pytest.mark.parametrize("name", DISGUISED)
def test_what_only_looks_like_it_is_a_leak(name: str):
    """Whoever hides behind the exceptions is found."""
    assert span().forbids(frame(DISGUISED[name]))


@pytest.mark.parametrize(
    ("words", "flags", "open_"),
    [
        ({}, 2, True),
        ({"transport": "udp"}, 2, False),
        ({"transport": "tcp", "remote": [4000, 4001]}, 2, True),
        ({"transport": "tcp", "remote": [4001, 4002]}, 2, False),
        ({"transport": "tcp", "direction": "in", "local": [5, 5]}, 2, False),
        ({"transport": "tcp", "direction": "in", "local": [5, 5]}, 18, True),
        ({"transport": "tcp", "direction": "out", "remote": [4000, 4000]}, 2, True),
        ({"transport": "tcp", "direction": "out"}, 16, True),
        ({"transport": "tcp", "direction": "out"}, 18, False),
    ],
)
def test_an_exclusion_opens_what_it_says_and_no_more(words: dict, flags: int, *, open_: bool):
    """Protocol, ports and direction count; an answer is let out by an exclusion for calls from outside."""
    allow = [{"network": "203.0.113.0/24", **words}]
    assert span(allow=allow).forbids(frame(ipv4(6, tcp(5, 4000, flags)))) is not open_
    assert span(allow=allow).forbids(frame(ipv4(6, tcp(5, 4000, flags), "8.8.8.8")))


def test_a_block_forbids_one_network_to_those_whom_it_binds():
    """Everything else may leave, and so may others behind the same wire."""
    blocked = Span.of({"since": 0, "until": None, "only": {"network": "203.0.113.66"}, "sources": ["192.0.2.10"]})
    assert blocked.forbids(frame(ipv4(17, UDP)))
    assert not blocked.forbids(frame(ipv4(17, UDP, "203.0.113.67")))
    assert Exclusion.of({"network": "203.0.113.66"}).network.network_address == ip_address("203.0.113.66")


WINDOWS = [(11.9, 12.1, None, "flush"), (13.9, 14.1, "wire1", "device"), (19.5, None, "wire0", "reboot")]


def test_only_what_leaves_in_a_span_and_outside_of_every_window_is_a_leak():
    """Times decide: before, within, in a window of all devices or of another one, after."""
    bad = frame(ipv4(17, UDP))
    seen = [Seen(at, "wire0", bad) for at in (9.9, 10.0, 12.0, 12.2, 14.0, 19.9, 20.0)]
    found = judge(seen, [span()], WINDOWS)
    assert [one.at for one in found.leaks] == [10.0, 12.2, 14.0]
    assert (found.judged, found.in_windows) == (5, 2)
    assert found.widest == pytest.approx({"flush": 0.1, "reboot": 0.4})
