"""The seccomp filters of the workers: which system calls an interpreter still needs that only computes and writes.

One that scans needs more: `Scanning` is what, and each call of it that could do more than read is let through only with
arguments that do not.

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
_FIRST_ARGUMENT, _SECOND_ARGUMENT, _THIRD_ARGUMENT = 16, 24, 32
"""Their lower halves, on a little-endian machine: the flags of clone; the command of fcntl; the flags of openat, the
protection of mmap and mprotect."""
_PROT_EXEC = 4
_ENOSYS = 0x00050026
_WRITES = 0o1 | 0o2 | 0o100 | 0o1000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC."""
_CLONE_THREAD = 0x10000
_FORKS = (0x1200011, 17)
"""The flags of fork as glibc and as musl have them: SIGCHLD, and where the kernel notes the number of the child."""
_PRCTL = (1, 22)
"""PR_SET_PDEATHSIG, PR_SET_SECCOMP: to end with the parent, and to give up more."""
_FCNTL = (1, 2, 3, 1024, 1025, 1030)
"""F_GETFD, F_SETFD, F_GETFL, F_SETLEASE, F_GETLEASE, F_DUPFD_CLOEXEC: nothing that sends signals to others."""
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


@dataclass(frozen=True, slots=True)
class Scanning:
    """What a worker needs besides that reads files, has threads, and looks into the memory of others."""

    reading: tuple[int, ...]
    openat: int
    clone: int
    clone3: int
    """Answered with ENOSYS: its flags are in memory, where a filter cannot look; the library takes clone then."""
    fcntl: int
    messages: tuple[int, ...]
    """On a socket that it was given: only for clamd, and between the processes of the worker."""
    prctl: int
    wait: int


_SCANNING_X86_64 = Scanning(
    (
        *(17, 19, 295, 327, 7, 271),  # pread64, readv, preadv, preadv2, poll, ppoll
        *(
            4,
            6,
            262,
            332,
            138,
            89,
            267,
            217,
        ),  # stat, lstat, newfstatat, statx, fstatfs, readlink, readlinkat, getdents64
        *(35, 230, 96, 201),  # nanosleep, clock_nanosleep, gettimeofday, time
        *(273, 334, 204, 99, 63),  # set_robust_list, rseq, sched_getaffinity, sysinfo, uname
        *(102, 104, 107, 108, 110),  # getuid, getgid, geteuid, getegid, getppid
        *(221, 310, 434),  # fadvise64, process_vm_readv, pidfd_open
    ),
    257,
    56,
    435,
    72,
    (44, 45, 46, 47),  # sendto, recvfrom, sendmsg, recvmsg
    157,
    61,
)
_SCANNING_AARCH64 = Scanning(
    (
        *(67, 65, 69, 286, 73),  # pread64, readv, preadv, preadv2, ppoll
        *(79, 291, 44, 78, 61),  # newfstatat, statx, fstatfs, readlinkat, getdents64
        *(101, 115, 169),  # nanosleep, clock_nanosleep, gettimeofday
        *(99, 293, 123, 179, 160),  # set_robust_list, rseq, sched_getaffinity, sysinfo, uname
        *(174, 176, 175, 177, 173),  # getuid, getgid, geteuid, getegid, getppid
        *(223, 270, 434),  # fadvise64, process_vm_readv, pidfd_open
    ),
    56,
    220,
    435,
    25,
    (206, 207, 211, 212),  # sendto, recvfrom, sendmsg, recvmsg
    167,
    260,
)
SCANNING: Mapping[str, Scanning] = {"x86_64": _SCANNING_X86_64, "aarch64": _SCANNING_AARCH64}
"""By what `uname -m` says."""


def program(machine: Machine) -> bytes:
    """The filter for this machine, as an array of `struct sock_filter`."""
    return b"".join(_instructions(machine, ()))


def scanning_program(machine: Machine, scanning: Scanning, *, messages: bool, forks: bool = False) -> bytes:
    """The filter of a worker that scans; `messages` lets it talk to sockets that it has.

    `forks` lets it become several processes, and take another filter then, which is without that.
    """
    return b"".join(_instructions(machine, tuple(_scanning(scanning, messages=messages, forks=forks))))


def _scanning(scanning: Scanning, *, messages: bool, forks: bool) -> Iterator[bytes]:
    allow, refuse = _instruction(_RETURN, _ALLOW), _instruction(_RETURN, _EPERM)
    yield from _answer((scanning.wait, *scanning.reading, *(scanning.messages if messages else ())), (allow,))
    writes = (_instruction(_LOAD, _THIRD_ARGUMENT), _instruction(_ANY_BIT, _WRITES, no=1), refuse, allow)
    yield from _answer((scanning.openat,), writes)
    fork = tuple(_answer(_FORKS, (allow,))) if forks else ()
    thread = (_instruction(_ANY_BIT, _CLONE_THREAD, yes=1), refuse, allow)
    yield from _answer((scanning.clone,), (_instruction(_LOAD, _FIRST_ARGUMENT), *fork, *thread))
    if forks:
        options = tuple(_answer(_PRCTL, (allow,)))
        yield from _answer((scanning.prctl,), (_instruction(_LOAD, _FIRST_ARGUMENT), *options, refuse))
    yield from _answer((scanning.clone3,), (_instruction(_RETURN, _ENOSYS),))
    commands = tuple(_answer(_FCNTL, (allow,)))
    yield from _answer((scanning.fcntl,), (_instruction(_LOAD, _SECOND_ARGUMENT), *commands, refuse))


def _instructions(machine: Machine, more: Sequence[bytes]) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_EQUAL, machine.audit, yes=1)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER)
    yield _instruction(_AT_LEAST, _X32, no=1)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield from _answer(machine.allowed, (_instruction(_RETURN, _ALLOW),))
    yield from more
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
