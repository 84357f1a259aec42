"""Are the lines of the kernel's tables of sockets read as netstat reads them?"""

import os
import socket
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import items_sockets
from stanch.agent.host.items_sockets import Owners, Tables, owners, parse_row, parse_unix, rows, socket_number
from tests.netns import netns

LISTENS = b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0"
MAPPED = (
    b"   1: 0000000000000000FFFF00000100000A:0050 0000000000000000FFFF00000200000A:C001 01 00000000:00000000 "
    b"00:00000000 00000000     0        0 4712 1"
)
UNIX = b"ffff8880: 00000002 00000000 00010000 0005 01 12345 /run/a b"


@pytest.fixture
def folder():
    """Our own folder below /proc."""
    made = os.open("/proc/self", os.O_RDONLY)
    yield made
    os.close(made)


def test_a_listener_has_no_other_side():
    """And its state is told in the words of Linux and of others."""
    row = parse_row("tcp", LISTENS)
    assert (row.local, row.remote, row.inode, row.six) == (("127.0.0.1", 8080), None, 4711, False)
    assert row.state == ("LISTEN", "LISTENING")
    assert row.words == "TCP 127.0.0.1:8080"


def test_ipv4_inside_ipv6_is_ipv4():
    """A server for both has connections of both."""
    row = parse_row("tcp6", MAPPED)
    assert (row.local, row.remote, row.six) == (("10.0.0.1", 80), ("10.0.0.2", 49153), False)
    assert row.words == "TCP 10.0.0.1:80 -> 10.0.0.2:49153"


def test_the_same_number_is_another_state_for_udp():
    """A UDP socket without a connection is not closed."""
    assert parse_row("udp", LISTENS.replace(b" 0A ", b" 07 ")).state == ("UNCONN",)
    assert parse_row("tcp", LISTENS.replace(b" 0A ", b" 07 ")).state == ("CLOSE",)


def test_a_unix_socket_may_have_a_path_with_spaces():
    """Everything behind the number is its path."""
    row = parse_unix(UNIX)
    assert (row.inode, row.path, row.type, row.state) == (12345, "/run/a b", "SEQPACKET", ("LISTEN", "LISTENING"))
    assert parse_unix(UNIX.rpartition(b" /run")[0]).path == ""


@given(st.sampled_from(["tcp", "udp6", "raw"]), st.binary())
def test_other_lines_are_refused_in_two_ways_only(table, line):
    """Whoever reads tables passes over ValueError and IndexError."""
    for read in (lambda: parse_row(table, line), lambda: parse_unix(line)):
        try:
            read()
        except (ValueError, IndexError):
            continue


def test_only_sockets_have_numbers():
    """A file may be called like a socket, but no path is without a slash."""
    assert socket_number(b"socket:[12]") == 12
    assert [socket_number(one) for one in (b"/socket:[12]", b"pipe:[12]", b"socket:[12]x", b"socket:[]")] == [0] * 4


def test_our_own_sockets_are_known_by_number_and_owner(folder):
    """The table of our namespace tells them, and we are among their owners."""
    one, other = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, one as pair, other:
        inodes = [os.fstat(one.fileno()).st_ino for one in (listener, pair)]
        known = Tables().of(folder, frozenset(inodes))
        assert known[inodes[0]].local == listener.getsockname()
        assert known[inodes[1]].protocol == "UNIX"
        assert any(row.inode == inodes[0] for row in rows(folder))
        *steps, last = owners("/proc", iter([os.getpid(), 4_194_305]))
        assert isinstance(last, Owners)
        assert steps == [None, None]
        assert last.by_inode[inodes[0]] == (os.getpid(),)
        assert list(last.networks.values()) == [(os.getpid(),)]


def test_a_table_is_read_again_when_it_is_old(folder, monkeypatch):
    """A socket that was made after the first look is found at the next that is late enough."""
    tables = Tables()
    tables.of(folder, frozenset())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        assert tables.of(folder, frozenset({inode})) == {}
        monkeypatch.setattr(items_sockets, "FRESH", 0)
        assert inode in tables.of(folder, frozenset({inode}))


@pytest.mark.root
def test_a_socket_of_another_namespace_is_known_once_that_was_read(folder):
    """A process may have been given one that was made elsewhere."""
    tables = Tables()
    with netns() as inside:
        listener = inside.listen("127.0.0.1", 4711)
        inode = os.fstat(listener.fileno()).st_ino
        assert tables.of(folder, frozenset({inode})) == {}
        child = inside.call(subprocess.Popen, ["sleep", "100"])
        try:
            there = os.open(f"/proc/{child.pid}", os.O_RDONLY)
            assert tables.of(there, frozenset()) == {}
            os.close(there)
        finally:
            child.kill()
            child.wait()
        assert tables.of(folder, frozenset({inode}))[inode].local == ("127.0.0.1", 4711)


def test_no_more_sockets_are_kept_than_may_be(folder, monkeypatch):
    """What is beyond the bound is not known."""
    monkeypatch.setattr(items_sockets, "MAX_KEPT", 1)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        inodes = frozenset(os.fstat(listener.fileno()).st_ino for listener in (one, other))
        assert len(Tables().of(folder, inodes)) <= 1
