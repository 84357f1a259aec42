"""Records of logins: as login programs write them, and whatever else the bytes may be."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.login_records import (
    Record,
    Type,
    address_in,
    ends,
    last_login,
    lastlog_size,
    record_size,
    records,
)

MACHINES = ("x86_64", "aarch64")


def packed(
    kind: int,
    *,
    line: str = "",
    user: str = "",
    host: str = "",
    time: int = 0,
    pid: int = 0,
    address: bytes = b"",
    machine: str = "x86_64",
) -> bytes:
    """A record as utmp(5) has it."""
    times = "iii" if machine == "x86_64" else "qqq"
    texts = (line.encode(), b"id", user.encode(), host.encode())
    made = struct.pack(f"=h2xi32s4s32s256shh{times}16s", kind, pid, *texts, 0, 0, 0, time, 5, address)
    return made.ljust(record_size(machine), b"\0")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_record_is_read(machine: str) -> None:
    """All its fields, whatever the size of its times."""
    raw = packed(
        7, line="pts/1", user="alice", host="h.example", time=1_700_000_000, pid=42, address=bytes((192, 0, 2, 1)),
        machine=machine,
    )  # fmt: skip
    (one,) = records(raw, machine=machine)
    assert one == Record(
        type=7, pid=42, line="pts/1", user="alice", host="h.example", time=1_700_000_000, address="192.0.2.1"
    )
    assert one.type_name == "USER_PROCESS"


def test_the_sizes_are_those_of_the_c_library() -> None:
    """384 and 400 bytes; of lastlog 292 and 296."""
    assert [record_size(one) for one in MACHINES] == [384, 400]
    assert [lastlog_size(one) for one in MACHINES] == [292, 296]


def test_addresses() -> None:
    """Of both versions; one of version 4 within version 6 is one of version 4; a host may be one itself."""
    six, mapped = IPv6Address("2001:db8::1"), IPv6Address("::ffff:192.0.2.7")
    addresses = [next(records(packed(7, time=1, address=one.packed))).address for one in (six, mapped)]
    assert addresses == ["2001:db8::1", "192.0.2.7"]
    assert next(records(packed(7, time=1, host="192.0.2.9"))).address == "192.0.2.9"
    assert next(records(packed(7, time=1, address=IPv4Address(0).packed))).address == ""
    assert (address_in("fe80::1%eth0"), address_in("192.0.2.1 via mosh [3]")) == ("fe80::1", "192.0.2.1")
    assert address_in("name") == ""


@pytest.mark.parametrize(
    ("kind", "host", "remote"),
    [(7, "h", True), (7, ":0", False), (7, "", False), (7, "tmux(12).%0", False), (2, "6.1.0", False), (6, "h", True)],
)
def test_logins_from_elsewhere(kind: int, host: str, *, remote: bool) -> None:
    """Neither from a display nor in a multiplexer; the kernel's version in a boot record is no host."""
    assert next(records(packed(kind, host=host, time=1))).is_remote is remote


def test_empty_records_are_left_out() -> None:
    """A new file of utmp is full of them; half a record is none."""
    assert list(records(bytes(384 * 3) + packed(7, user="a")[:100])) == []


def test_unknown_types_are_numbers() -> None:
    """Nobody has a name for them."""
    assert next(records(packed(99, user="a"))).type_name == "99"


def session(kind: Type, time: int, line: str = "pts/0", user: str = "alice") -> Record:
    """A record of a session."""
    return Record(type=kind, line=line, user=user, time=time)


def test_sessions_end_by_later_records() -> None:
    """Of their terminal, or of the machine; one that goes on has no end."""
    found = [
        session(Type.USER_PROCESS, 10),
        session(Type.USER_PROCESS, 11, "pts/1"),
        session(Type.DEAD_PROCESS, 20),
        session(Type.USER_PROCESS, 30),
        session(Type.USER_PROCESS, 40),
        session(Type.BOOT_TIME, 50, "~", "reboot"),
        session(Type.USER_PROCESS, 60),
    ]
    assert ends(found) == [20, 50, None, 40, 50, None, None]


def test_a_session_does_not_end_before_it_began() -> None:
    """When the clock was set back, nobody knows."""
    assert ends([session(Type.USER_PROCESS, 10), session(Type.DEAD_PROCESS, 5)]) == [None, None]


def test_a_shutdown_ends_all() -> None:
    """It is a change of the run level."""
    found = [session(Type.USER_PROCESS, 10), session(Type.RUN_LVL, 20, "~", "shutdown")]
    assert ends(found) == [20, None]
    assert ends([found[0], session(Type.RUN_LVL, 20, "~", "runlevel")]) == [None, None]


def test_the_last_login() -> None:
    """Of a row of lastlog; one that is cut off says nothing."""
    assert last_login(struct.pack("=i288x", 7), machine="x86_64") == 7
    assert last_login(struct.pack("=q288x", 7), machine="aarch64") == 7
    assert last_login(bytes(10)) == 0


@given(st.binary(max_size=1600), st.sampled_from(MACHINES))
def test_no_bytes_raise(raw: bytes, machine: str) -> None:
    """Every whole record is read, and there is an end for each or none."""
    found = list(records(raw, machine=machine))
    assert len(found) <= len(raw) // record_size(machine)
    assert len(ends(found)) == len(found)
    for one in found:
        assert one.time >= 0
        assert isinstance(one.is_remote, bool)
        assert one.type_name


@given(
    st.lists(st.tuples(st.sampled_from(list(Type)), st.integers(0, 9), st.sampled_from(["", "a", "b"])), max_size=20)
)
def test_an_end_is_never_before_its_beginning(made: list[tuple[Type, int, str]]) -> None:
    """Whatever the order of records is."""
    found = [session(kind, time, line) for kind, time, line in made]
    for one, end in zip(found, ends(found), strict=True):
        assert end is None or (one.type is Type.USER_PROCESS and end >= one.time)
