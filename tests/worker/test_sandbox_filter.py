"""The filter as a program, run here step by step."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.sandbox_filter import MACHINES, Machine, program

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050001
MANY = st.integers(0, 2**32 - 1)


def verdict(machine: Machine, number: int, *, architecture: int, third: int = 0) -> int:
    """What the kernel would do with a system call: the six instructions that the filter uses, by their manual."""
    data = struct.pack("=IIQQQQ", number, architecture, 0, 0, 0, third)
    code = list(struct.iter_unpack("=HBBI", program(machine)))
    at, value = 0, 0
    while True:
        kind, yes, no, constant = code[at]
        at += 1
        match kind:
            case 0x20:
                value = int.from_bytes(data[constant : constant + 4], "little")
            case 0x15:
                at += yes if value == constant else no
            case 0x45:
                at += yes if value & constant else no
            case 0x35:
                at += yes if value >= constant else no
            case _:
                return constant


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@given(number=MANY, third=MANY)
def test_only_what_is_listed_is_allowed(machine: Machine, number: int, third: int) -> None:
    """Everything else fails, or ends the process where numbers have another meaning."""
    found = verdict(machine, number, architecture=machine.audit, third=third)
    if number >= 0x40000000:
        assert found == KILL
    elif number in machine.allowed:
        assert found == ALLOW
    elif number in machine.mapping:
        assert found == (EPERM if third & 4 else ALLOW)
    else:
        assert found == EPERM


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_each_listed_call_gets_through(machine: Machine) -> None:
    """No jump misses its mark, from the first number to the last."""
    assert {verdict(machine, n, architecture=machine.audit) for n in (*machine.allowed, *machine.mapping)} == {ALLOW}
    assert {verdict(machine, n, architecture=machine.audit, third=5) for n in machine.mapping} == {EPERM}


@given(architecture=MANY)
def test_another_architecture_ends_the_process(architecture: int) -> None:
    """There the same numbers are other calls."""
    machine = MACHINES["x86_64"]
    expected = ALLOW if architecture == machine.audit else KILL
    assert verdict(machine, 0, architecture=architecture) == expected


def test_no_call_is_listed_that_reaches_outside() -> None:
    """Neither opening, connecting, starting nor tracing, on either kind of machine."""
    outside = {
        "x86_64": {2, 41, 42, 53, 56, 57, 58, 59, 62, 101, 257, 322, 424, 425, 435, 437},
        "aarch64": {56, 117, 129, 198, 203, 220, 221, 281, 424, 425, 435, 437},
    }
    for name, machine in MACHINES.items():
        assert not outside[name] & {*machine.allowed, *machine.mapping}
