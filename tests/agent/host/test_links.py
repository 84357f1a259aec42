"""Devices and addresses of a namespace, read from the kernel and from anything else."""

import struct
import sys
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.links import Link, links, local_addresses, parse_address, parse_link
from stanch.agent.host.ruleset import Device
from stanch.core.errors import ActionFailed
from tests.netns import netns, wire


@given(st.binary(max_size=100))
def test_any_device_or_address_is_read_or_an_error(payload):
    """Messages about devices and addresses of any content are read, or an error of ours."""
    with suppress(ActionFailed):
        assert parse_link(payload).device.index == int.from_bytes(payload[4:8], sys.byteorder, signed=True)
    with suppress(ActionFailed):
        assert len(list(parse_address(payload))) <= 1


def test_the_loopback_address_is_our_own():
    """The kernel answers a real dump."""
    assert {str(one) for one in local_addresses()} >= {"127.0.0.1"}


@pytest.mark.root
def test_the_devices_of_a_namespace_are_listed_without_the_loopback():
    """A veth is listed by index and name, and its addresses are the namespace's own."""
    with netns() as left, netns() as right:
        made = wire(left, right, 1)
        assert left.call(links) == [Link(Device(1001, made.device), xdp=False)]
        own = left.call(local_addresses)
        assert {ip_address(made.left4), ip_address(made.left6)} <= own
        assert ip_address(made.right4) not in own


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_an_xdp_program_is_seen():
    """The nested attribute that says how a program is attached is read; 0 means that none is."""
    for attached in (0, 1, 2):
        xdp = _attribute(43, _attribute(2, bytes([attached])))
        payload = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + _attribute(3, b"eth0\0") + xdp
        assert parse_link(payload) == Link(Device(7, "eth0"), xdp=attached != 0)
