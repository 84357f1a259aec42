"""Does the endpoint describe itself truthfully, within bounds, and whatever is missing or malformed?"""

import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import inventory as module
from stanch.agent.host.clock import boot_id
from stanch.agent.host.inventory import (
    capabilities,
    interfaces,
    parse_address,
    parse_link,
    parse_session,
    parse_utmp,
    pretty_name,
    read_inventory,
)
from stanch.agent.host.netlink import attributes
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.frames import Inventory


def utmp(kind, user):
    return struct.pack("=hxxi32s4s32s256s52x", kind, 1, b"pts/0", b"ts/0", user, b"host")


# --- the whole -------------------------------------------------------------------------------------------------------


def test_describes_this_machine():
    """Name, kernel and boot are those that the kernel tells; all of it fits into a frame."""
    found = read_inventory()
    assert (found.hostname, found.kernel) == (socket.gethostname(), os.uname().release)
    assert found.boot_id == boot_id() != ""
    assert found.os
    assert Inventory.model_validate_json(found.model_dump_json()) == found


def test_every_piece_may_be_missing(tmp_path, monkeypatch):
    """Without files and without netlink, there is still a name, a kernel and an operating system."""
    for name in ("_MACHINE_ID", "UTMP", "SESSIONS"):
        monkeypatch.setattr(module, name, tmp_path / "missing")
    monkeypatch.setattr(module, "_OS_RELEASE", (tmp_path / "missing",))
    monkeypatch.setattr(module, "interfaces", refuse)
    found = read_inventory()
    assert (found.machine_id, found.interfaces, found.users, found.os) == ("", (), (), "Linux")


def refuse():
    raise ActionFailed("The kernel's netlink answer makes no sense")


def test_every_file_may_be_garbage(tmp_path, monkeypatch):
    """Random bytes in each file, and folders in their place, change nothing but their own piece."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(bytes(range(256)) * 20_000)
    for name in ("_MACHINE_ID", "UTMP", "SESSIONS"):
        monkeypatch.setattr(module, name, garbage)
    monkeypatch.setattr(module, "_OS_RELEASE", (tmp_path, garbage))
    assert len(read_inventory().machine_id) == 64


def test_the_machine_id_is_hashed_with_the_identity(tmp_path, monkeypatch):
    """It is stable, does not show, and differs from one identity to the next."""
    path = tmp_path / "machine-id"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr(module, "_MACHINE_ID", path)
    one, again, other = (read_inventory(identity=identity).machine_id for identity in ("a", "a", "b"))
    assert one == again != other
    assert "0123456789abcdef" not in one


def test_a_host_name_that_is_no_text_is_escaped(monkeypatch):
    """The kernel takes any bytes as a name."""
    odd = os.uname_result(("Linux", os.fsdecode(b"web\xff"), "6.1", "#1", "x86_64"))
    monkeypatch.setattr(module.os, "uname", lambda: odd)
    assert read_inventory().hostname == r"web\xff"


# --- pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n', "Debian GNU/Linux 12 (bookworm)"),
        ("PRETTY_NAME=Plain\n", "Plain"),
        ('PRETTY_NAME="never closed\n', ""),
        ("PRETTY_NAME=\n", ""),
        ("", ""),
        (f"PRETTY_NAME={'x' * 1000}", "x" * 200),
    ],
)
def test_reads_the_name_of_the_distribution(text, name):
    """Quoted as a shell would, bounded, nothing if it is malformed."""
    assert pretty_name(text) == name


@given(st.text(max_size=300))
def test_no_os_release_makes_it_fail(text):
    """Whatever the file holds."""
    assert len(pretty_name(f"PRETTY_NAME={text}")) <= 200


def test_reads_who_is_logged_in():
    """Logins only, not boots or dead sessions; a record that is cut off is left out."""
    raw = utmp(7, b"alice") + utmp(8, b"gone") + utmp(2, b"reboot") + utmp(7, b"b\xffb") + utmp(7, b"cut")[:-1]
    assert list(parse_utmp(raw)) == ["alice", r"b\xffb"]


@given(st.binary(max_size=2000))
def test_no_utmp_makes_it_fail(raw):
    """Whatever the file holds, names are bounded text."""
    assert all(len(name) <= 4 * 32 for name in parse_utmp(raw))


def test_reads_sessions_of_people():
    """Greeters and managers are nobody."""
    assert parse_session("UID=1000\nUSER=alice\nTYPE=tty\nCLASS=user\n") == ["alice"]
    assert parse_session("UID=42\nUSER=gdm\nCLASS=greeter\n") == []


def test_users_of_all_sources_are_told_once(tmp_path, monkeypatch):
    """Sorted, without repetition; the FIFO beside a session is not waited for."""
    (tmp_path / "utmp").write_bytes(utmp(7, b"bob") + utmp(7, b"alice"))
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "1").write_text("USER=alice\nCLASS=user\n")
    os.mkfifo(tmp_path / "sessions" / "1.ref")
    monkeypatch.setattr(module, "UTMP", tmp_path / "utmp")
    monkeypatch.setattr(module, "SESSIONS", tmp_path / "sessions")
    assert read_inventory().users == ("alice", "bob")


# --- network ---------------------------------------------------------------------------------------------------------


def test_devices_are_those_of_the_kernel():
    """Names and hardware addresses agree with the kernel's other interface; the loopback is left out."""
    names = {name for _, name in socket.if_nameindex()} - {"lo"}
    found = interfaces()
    assert {one.name for one in found} == names
    for one in found:
        shown = Path(f"/sys/class/net/{one.name}/address")
        assert not shown.exists() or one.mac == shown.read_text().strip()


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_reads_addresses():
    """Its own address on a point-to-point device, not the peer's; other families are none."""
    head = struct.Struct("=BBBBI")
    four = head.pack(2, 24, 0, 0, 3) + attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([10, 0, 0, 1]))
    six = head.pack(10, 64, 0, 0, 4) + attribute(1, b"\xfe\x80" + bytes(13) + b"\x01")
    assert list(parse_address(four)) == [(3, "10.0.0.1")]
    assert list(parse_address(six)) == [(4, "fe80::1")]
    assert list(parse_address(head.pack(5, 0, 0, 0, 3) + attribute(1, b"1234"))) == []
    assert list(parse_address(head.pack(2, 0, 0, 0, 3) + attribute(1, b"12345"))) == []


@given(st.binary(max_size=200))
def test_no_message_makes_it_fail_in_another_way(payload):
    """A malformed message is left out, or is the netlink parser's own error."""
    try:
        attributes(payload[16:])
        attributes(payload[8:])
    except ActionFailed:
        return
    assert len(list(parse_link(payload))) <= 1
    assert len(list(parse_address(payload))) <= 1


# --- capabilities ----------------------------------------------------------------------------------------------------


def test_each_ability_is_there_or_has_a_reason():
    """`root` and `pidfd` can be told from outside."""
    found = capabilities()
    assert set(found) == {"root", "nftables", "sock-destroy", "pidfd"}
    assert all(found.values())
    assert (found["root"] == "yes") == (os.geteuid() == 0)
    assert found["pidfd"] == "yes"


@pytest.mark.root
def test_root_has_all_of_them_where_the_tests_need_them():
    """What the other tests of this folder use is reported as there."""
    assert set(capabilities().values()) == {"yes"}


def test_a_missing_program_is_a_reason(monkeypatch):
    """The reason says what to install."""

    def missing(_program):
        raise Unsupported("The program nft is not installed", hint="apt-get install nftables")

    monkeypatch.setattr(module, "find", missing)
    assert "apt-get install nftables" in capabilities()["nftables"]


def test_a_kernel_without_it_is_a_reason(monkeypatch):
    """The refusal of the kernel is explained."""

    def refuse_to_destroy(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.Netlink, "do", refuse_to_destroy)
    assert "CONFIG_INET_DIAG_DESTROY" in capabilities()["sock-destroy"]
