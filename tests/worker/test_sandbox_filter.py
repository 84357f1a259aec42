"""The filter as a program, run here step by step."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.sandbox_filter import MACHINES, SCANNING, Machine, program, scanning_program

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050001
MANY = st.integers(0, 2**32 - 1)


def verdict(machine: Machine, number: int, *, architecture: int, third: int = 0) -> int:
    """What the kernel would do with a system call of a worker."""
    return verdict_of(program(machine), number, architecture, (0, 0, third))


def verdict_of(program_: bytes, number: int, architecture: int, arguments: tuple[int, int, int]) -> int:
    """The six instructions that the filters use, by their manual."""
    data = struct.pack("=IIQQQQ", number, architecture, 0, *arguments)
    code = list(struct.iter_unpack("=HBBI", program_))
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


CLONE_THREAD, SIGCHLD = 0x10000, 17
FORK = 0x1200000 | SIGCHLD
ARGUMENTS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2, 4, 8, 15, SIGCHLD, 22, 38, CLONE_THREAD, FORK])


def scanning_verdict(name: str, number: int, arguments: tuple[int, int, int], *, forks: bool) -> int:
    """The same of a worker that scans."""
    code = scanning_program(MACHINES[name], SCANNING[name], messages=True, forks=forks)
    return verdict_of(code, number, MACHINES[name].audit, arguments)


@pytest.mark.parametrize("name", SCANNING)
@given(number=st.integers(0, 500), arguments=st.tuples(ARGUMENTS, ARGUMENTS, ARGUMENTS))
def test_who_may_fork_may_nothing_else(name: str, number: int, arguments: tuple[int, int, int]) -> None:
    """But to end with its parent, and to take another filter: all other calls are answered as without it."""
    first, scanning = arguments[0] & 0xFFFFFFFF, SCANNING[name]
    with_, without = (scanning_verdict(name, number, arguments, forks=forks) for forks in (True, False))
    if (number == scanning.clone and first in {SIGCHLD, FORK}) or (number == scanning.prctl and first in {1, 22}):
        assert (with_, without) == (ALLOW, EPERM)
    else:
        assert with_ == without


@pytest.mark.parametrize("name", SCANNING)
def test_each_call_that_forks_need_gets_through_until_it_is_sealed(name: str) -> None:
    """A namespace of its own, or memory in common, is no fork; another option of prctl is refused."""
    clone, prctl = SCANNING[name].clone, SCANNING[name].prctl
    asked = [*((clone, one) for one in (SIGCHLD, FORK)), *((prctl, one) for one in (1, 22))]
    others = [*((clone, FORK | one) for one in (0x100, 0x20000000, 0x10000000)), *((prctl, one) for one in (4, 8, 24))]
    assert {scanning_verdict(name, number, (one, 0, 0), forks=True) for number, one in asked} == {ALLOW}
    assert {scanning_verdict(name, number, (one, 0, 0), forks=False) for number, one in asked} == {EPERM}
    assert {scanning_verdict(name, number, (one, 0, 0), forks=True) for number, one in others} == {EPERM}
