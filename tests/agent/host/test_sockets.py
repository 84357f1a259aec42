"""sock_diag: packing, parsing what may be hostile, and the kernel's real list."""

import errno
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.firewall import forbidden
from stanch.agent.host.sockets import (
    SOCK_DESTROY,
    Open,
    connected,
    destroy,
    open_netlink,
    pack_request,
    parse_message,
)
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.network import IsolationRules, Peer


def message(
    *, family: int = socket.AF_INET, state: int = 1, local="10.0.0.1", remote="10.0.0.2", ports=(40000, 443), inode=7
) -> bytes:
    """What the kernel writes."""
    sides = b"".join(ip_address(one).packed.ljust(16, b"\0") for one in (local, remote))
    return (
        struct.pack("=BBBB", family, state, 0, 0)
        + struct.pack("!HH", *ports)
        + sides
        + bytes(12)
        + struct.pack("=IIIII", 0, 0, 0, 1000, inode)
    )


def test_a_message_is_read_field_by_field():
    """Addresses, ports, state and inode come from their places; the identity stays as it came."""
    raw = message()
    one = parse_message("tcp", raw)
    assert (one.local, one.local_port) == (IPv4Address("10.0.0.1"), 40000)
    assert (one.remote, one.remote_port) == (IPv4Address("10.0.0.2"), 443)
    assert (one.state, one.inode, one.id) == (1, 7, raw[4:52])
    shown = one.shown()
    assert (shown.local, shown.remote, shown.state) == ("10.0.0.1:40000", "10.0.0.2:443", "established")


def test_a_mapped_peer_is_an_ipv4_peer():
    """An IPv6 socket that talks IPv4 is judged by the IPv4 address, and destroyed as the IPv6 socket that it is."""
    one = parse_message("tcp", message(family=socket.AF_INET6, local="::ffff:10.0.0.1", remote="::ffff:10.0.0.2"))
    assert (one.family, one.remote) == (socket.AF_INET6, IPv4Address("10.0.0.2"))


def test_an_ipv6_endpoint_is_shown_in_brackets():
    """Port and address can be told apart."""
    one = parse_message("udp", message(family=socket.AF_INET6, local="fd00::1", remote="fd00::2"))
    assert one.shown().remote == "[fd00::2]:443"
    assert one.remote == IPv6Address("fd00::2")


@given(st.binary(max_size=200), st.sampled_from(["tcp", "udp"]))
def test_any_payload_is_a_socket_or_an_error(payload, protocol):
    """A short message, or one of an unknown family, is an error of ours."""
    try:
        one = parse_message(protocol, payload)
    except ActionFailed:
        return
    assert len(payload) >= 72
    assert len(one.id) == 48
    assert one.shown().protocol == protocol


@given(st.integers(0, 255), st.sampled_from(["tcp", "udp"]), st.binary(min_size=48, max_size=48))
def test_a_request_has_the_kernel_s_layout(family, protocol, identity):
    """56 bytes: family, protocol, two fields of nothing, states, identity."""
    raw = pack_request(family, protocol, states=6, identity=identity)
    assert struct.unpack("=BBBBI48s", raw) == (family, {"tcp": 6, "udp": 17}[protocol], 0, 0, 6, identity)


# --- which are forbidden ---------------------------------------------------------------------------------------------


def opened(remote: str, *, port: int = 443, local_port: int = 40000, protocol: str = "tcp", state=1, inode=7) -> Open:
    return parse_message(protocol, message(local="10.0.0.1", remote=remote, ports=(local_port, port), state=state,
                                           inode=inode))  # fmt: skip


RULES = IsolationRules(servers=(Peer(address=IPv4Address("10.0.0.9"), port=443),))


@pytest.mark.parametrize(
    ("one", "is_forbidden"),
    [
        (opened("10.0.0.2"), True),
        (opened("10.0.0.9"), False),
        (opened("10.0.0.9", port=444), True),
        (opened("10.0.0.9", protocol="udp"), True),
        (opened("127.0.0.1"), False),
        (opened("10.0.0.1"), False),
        (opened("10.0.0.2", protocol="udp", local_port=68, port=67), False),
        (opened("10.0.0.2", protocol="tcp", local_port=68, port=67), True),
        (opened("10.0.0.2", state=5, inode=0), False),
        (opened("10.0.0.2", state=5, inode=7), True),
        (opened("10.0.0.2", state=4, inode=0), True),
    ],
)
def test_what_is_forbidden(one, is_forbidden):
    """Only the server by TCP, this host itself, DHCP, and what is finished anyway, are left."""
    assert bool(forbidden([one], RULES, own={IPv4Address("10.0.0.1")})) is is_forbidden


# --- the kernel ------------------------------------------------------------------------------------------------------


class Kernel:
    """A netlink connection that refuses everything."""

    def __init__(self, code: int) -> None:
        self.error = OSError(code, os.strerror(code))

    def dump(self, kind, payload):
        raise self.error

    def do(self, kind, payload):
        assert kind == SOCK_DESTROY
        raise self.error


def test_the_kernel_lists_a_connection_of_ours():
    """A connected pair on the loopback is found, each side with the other as peer; a listener is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as call:
        with open_netlink() as netlink:
            found = {(one.local_port, one.remote_port) for one in connected(netlink) if one.protocol == "tcp"}
        ports = call.getsockname()[1], listener.getsockname()[1]
        assert {ports, ports[::-1]} <= found
        assert not {pair for pair in found if pair == (ports[1], 0)}


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EPERM])
def test_a_kernel_that_cannot_destroy_says_so(code):
    """What the kernel or our rights do not allow is unsupported here, with the way out as hint."""
    with pytest.raises(Unsupported) as raised:
        destroy(Kernel(code), [opened("10.0.0.2")])
    assert raised.value.hint


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPERM])
def test_a_kernel_that_cannot_list_says_so(code):
    """Without sock_diag nothing can be verified: unsupported, not an empty list."""
    with pytest.raises(Unsupported):
        list(connected(Kernel(code)))


def test_a_socket_that_is_gone_is_not_counted():
    """A connection that ended by itself meanwhile is no failure and was not destroyed by us."""
    assert destroy(Kernel(errno.ENOENT), [opened("10.0.0.2")]) == 0


def test_another_refusal_is_a_failure():
    """An unexpected error of the kernel is no success."""
    with pytest.raises(ActionFailed):
        destroy(Kernel(errno.ENOMEM), [opened("10.0.0.2")])
