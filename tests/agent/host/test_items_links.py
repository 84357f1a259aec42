"""Are the kernel's messages about devices, neighbours and routes read as they are meant, and others passed over?"""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.items_links import parse_link, parse_neighbour, parse_own, parse_route
from stanch.agent.host.netlink import attribute

PARSERS = (parse_link, parse_own, parse_neighbour, parse_route)


@pytest.mark.parametrize("parse", PARSERS)
@given(payload=st.binary(max_size=200))
def test_whatever_comes_is_read_or_passed_over(parse, payload):
    """A message is at most one thing, and nothing in it raises."""
    assert len(list(parse(payload))) <= 1


@pytest.mark.parametrize("parse", PARSERS)
@given(
    head=st.binary(min_size=16, max_size=16),
    parts=st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=20)), max_size=8),
)
def test_whatever_stands_in_attributes_is_read_or_passed_over(parse, head, parts):
    """Attributes of wrong lengths and kinds raise nothing either."""
    for size in (8, 12, 16):
        assert len(list(parse(head[:size] + b"".join(attribute(*one) for one in parts)))) <= 1


def test_what_the_kernel_only_remembers_is_no_route():
    """A clone is passed over, and the same without that flag is read."""
    head = struct.pack("=BBBBBBBB", socket.AF_INET, 32, 0, 0, 254, 2, 0, 1)
    rest = attribute(1, socket.inet_aton("192.0.2.1")) + attribute(4, struct.pack("=I", 3))
    assert list(parse_route(head + struct.pack("=I", 0x200) + rest)) == []
    (route,) = parse_route(head + struct.pack("=I", 0) + rest)
    assert (str(route.network), route.devices, route.flags) == ("192.0.2.1/32", (3,), "UH")


def test_an_ipv4_route_over_an_ipv6_gateway_has_that_gateway():
    """Networks of today do so."""
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 186, 0, 1, 0)
    via = struct.pack("=H", socket.AF_INET6) + socket.inet_pton(socket.AF_INET6, "fe80::1")
    (route,) = parse_route(head + attribute(18, via))
    assert route.gateways == ("fe80::1",)
    assert route.protocol == "bgp"
    assert route.is_default


def test_neighbours_of_a_bridge_are_none():
    """Only addresses of IPv4 and IPv6 are told."""
    message = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, 2, 2, 0, 0) + attribute(2, bytes(6))
    assert list(parse_neighbour(message)) == []
