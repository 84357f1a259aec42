"""Are the kernel's tables of sockets read as ss reads them?"""

import os
import socket
import sys
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import process_sockets as module
from stanch.agent.host.process_sockets import inodes_of, of_process, parse_end, parse_packets, parse_table, tables_of
from stanch.agent.host.procfs import opened
from stanch.core.processes import MAX_SOCKETS, OpenSocket

LINE = (
    b"   0: 0100007F:0016 0200000A:01BB %02X 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 100 0\n"
)
little = pytest.mark.skipif(sys.byteorder != "little", reason="the lines were taken on such a machine")


def kernels_form(address, port):
    """As the kernel prints it here."""
    raw = address.packed
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return f"{raw.hex().upper()}:{port:04X}".encode()


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses_are_read_back(address, port):
    """Both families, whatever the order of the machine's bytes; IPv4 in IPv6 is IPv4."""
    shown = getattr(address, "ipv4_mapped", None) or address
    expected = f"[{shown}]:{port}" if shown.version == 6 else f"{shown}:{port}"
    assert parse_end(kernels_form(address, port)) == expected


def test_ipv4_inside_ipv6_is_ipv4():
    """Programs that listen on both families show what people know."""
    assert parse_end(kernels_form(ip_address("::ffff:10.0.0.1"), 22)) == "10.0.0.1:22"


@little
@pytest.mark.parametrize(("number", "state"), [(1, "ESTAB"), (10, "LISTEN"), (7, "UNCONN"), (0x63, "63")])
def test_a_line_of_the_table(number, state):
    """Address, peer, state and number; a state that nobody knows is shown as it is."""
    assert list(parse_table("tcp", iter([LINE % number]), frozenset({4711}))) == [
        (4711, OpenSocket(protocol="tcp", local="127.0.0.1:22", remote="10.0.0.2:443", state=state))
    ]
    assert list(parse_table("tcp", iter([LINE % number]), frozenset({4712}))) == []


def test_a_socket_that_sees_every_packet():
    """What listens below IP is told with the frames that it wants and the device."""
    lines = [
        b"0000 3      3    0003   0     1 0      0      11    \n",
        b"0000 3      2    0800   2     1 0      0      12    \n",
        b"nonsense\n",
    ]
    found = dict(parse_packets(iter(lines), frozenset({11, 12})))
    assert {number: one.local for number, one in found.items()} == {11: "*:*", 12: "0x0800:2"}
    assert {one.protocol for one in found.values()} == {"packet"}


@given(st.lists(st.binary(max_size=120), max_size=5))
def test_garbage_is_passed_over(lines):
    """No bytes make the parsers fail."""
    assert not list(parse_table("tcp", iter(lines), frozenset({4711})))
    assert not list(parse_packets(iter(lines), frozenset({4711})))


def test_finds_our_own_sockets():
    """A listener of each kind that this test opens is found among our descriptors and in our tables."""
    kinds = ((socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1"), (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1"))
    ones = [socket.socket(family, kind) for family, kind, _ in kinds]
    try:
        for one, (_, kind, address) in zip(ones, kinds, strict=True):
            one.bind((address, 0))
            if kind == socket.SOCK_STREAM:
                one.listen()
        with opened(os.getpid()) as folder:
            numbers, _more = inodes_of("/proc/self/")
            found = of_process(numbers, tables_of(folder, numbers))
        tcp, udp = (f"127.0.0.1:{one.getsockname()[1]}" for one in ones)
        assert OpenSocket(protocol="tcp", local=tcp, remote="0.0.0.0:0", state="LISTEN") in found
        assert OpenSocket(protocol="udp", local=udp, remote="0.0.0.0:0", state="UNCONN") in found
    finally:
        for one in ones:
            one.close()


def test_of_nobody_there_are_none():
    """A process that has ended has no sockets."""
    assert inodes_of("/proc/4194304/") == (frozenset(), False)


def test_a_table_is_read_so_far(monkeypatch):
    """However many connections there are: memory and time are bounded."""
    monkeypatch.setattr(module, "MAX_TABLE", 10)
    with opened(os.getpid()) as folder:
        assert list(module._lines(folder, "net/tcp", lambda: None)) == []


def test_those_that_listen_are_told_first():
    """Of very many sockets, the ones that matter are not cut off."""
    talk = OpenSocket(protocol="tcp", local="10.0.0.1:1", remote="10.0.0.2:2", state="ESTAB")
    listen = OpenSocket(protocol="tcp", local="0.0.0.0:22", remote="0.0.0.0:0", state="LISTEN")
    known = {**dict.fromkeys(range(MAX_SOCKETS + 50), talk), 999: listen}
    found = of_process(frozenset(known), known)
    assert found[0] == listen
    assert len(found) == MAX_SOCKETS
