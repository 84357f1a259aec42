"""The seccomp filter of the worker: which system calls an interpreter still needs that only computes and writes.

A filter is a small program of the kernel's (classic BPF). Everything that is not listed fails with EPERM: open, socket,
execve, clone, ptrace and all that is yet to be invented. Memory cannot be made executable either: whoever takes the
interpreter over brings no code of his own.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL_PROCESS, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_NUMBER, _ARCHITECTURE = 0, 4
"""Where the kernel puts them in `struct seccomp_data`."""
_THIRD_ARGUMENT = 32
"""Its lower half, on a little-endian machine: the protection of mmap and mprotect."""
_PROT_EXEC = 4
_X32 = 0x40000000
"""x86-64 numbers from here on are of another ABI, with other meanings."""


@dataclass(frozen=True, slots=True)
class Machine:
    """System call numbers of a kind of machine."""

    audit: int
    """What the kernel calls it (AUDIT_ARCH_*)."""
    allowed: tuple[int, ...]
    mapping: tuple[int, ...]
    """Allowed unless they ask for executable memory."""


_X86_64 = Machine(
    0xC000003E,
    (
        *(0, 1, 3, 5, 8),  # read, write, close, fstat, lseek
        *(11, 12, 25, 28),  # munmap, brk, mremap, madvise
        *(13, 14, 15, 131),  # rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack
        *(24, 202, 219),  # sched_yield, futex, restart_syscall
        *(39, 186, 228, 318),  # getpid, gettid, clock_gettime, getrandom
        *(60, 231),  # exit, exit_group
    ),
    (9, 10),  # mmap, mprotect
)
_AARCH64 = Machine(
    0xC00000B7,
    (
        *(63, 64, 57, 80, 62),  # read, write, close, fstat, lseek
        *(215, 214, 216, 233),  # munmap, brk, mremap, madvise
        *(134, 135, 139, 132),  # rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack
        *(124, 98, 128),  # sched_yield, futex, restart_syscall
        *(172, 178, 113, 278),  # getpid, gettid, clock_gettime, getrandom
        *(93, 94),  # exit, exit_group
    ),
    (222, 226),  # mmap, mprotect
)
MACHINES: Mapping[str, Machine] = {"x86_64": _X86_64, "aarch64": _AARCH64}
"""By what `uname -m` says."""


def program(machine: Machine) -> bytes:
    """The filter for this machine, as an array of `struct sock_filter`."""
    return b"".join(_instructions(machine))


def _instructions(machine: Machine) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_EQUAL, machine.audit, yes=1)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER)
    yield _instruction(_AT_LEAST, _X32, no=1)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield from _answer(machine.allowed, (_instruction(_RETURN, _ALLOW),))
    yield from _answer(
        machine.mapping,
        (
            _instruction(_LOAD, _THIRD_ARGUMENT),
            _instruction(_ANY_BIT, _PROT_EXEC, yes=1),
            _instruction(_RETURN, _ALLOW),
        ),
    )
    yield _instruction(_RETURN, _EPERM)


def _answer(numbers: Sequence[int], then: Sequence[bytes]) -> Iterator[bytes]:
    """Run `then` if the call is one of these; otherwise go on after it. Jumps lead forward only."""
    for n, number in enumerate(numbers):
        left = len(numbers) - n - 1
        yield _instruction(_EQUAL, number, yes=left, no=0 if left else len(then))
    yield from then


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
