"""How the worker gives up everything but its input, its output and some memory; one way, for the rest of its life.

Each measure stands on its own and is best effort: an old kernel, or one without privileges for us, leaves out some of
them. What was done is told with each answer. Call it when everything is imported: afterwards no file can be opened.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Mapping

from stanch.worker.sandbox_filter import MACHINES, program

DONE = "yes"
CPU_SECONDS = 2
MEMORY = 512 * 2**20
NOBODY = 65_534

_SET_PDEATHSIG, _SET_NO_NEW_PRIVS, _SET_SECCOMP = 1, 38, 22
_SECCOMP_FILTER = 2
_NEW_USERS, _NEW_NETWORK = 0x10000000, 0x40000000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
"""System calls; the same number on every machine."""
_LANDLOCK_VERSION = 1
_BENEATH = 1
_READ_FILES, _LIST_FOLDERS = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Landlock's version to how many rights on files it knows; each is one bit."""
_NETWORK_SINCE, _NETWORK_RIGHTS = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11
"""Signals and abstract sockets to and from outside."""


def confine(*, cpu_seconds: int = CPU_SECONDS, memory: int = MEMORY) -> dict[str, str]:
    """Take every measure, in the order that lets the next one work; measure to `yes`, or why not."""
    libc = ctypes.CDLL(None, use_errno=True)
    measures: dict[str, Callable[[], None]] = {
        "network": lambda: _leave_network(libc),
        "user": _become_nobody,
        **no_way_back(libc),
        "landlock": lambda: _forbid_files(libc),
        "limits": lambda: _limit(cpu_seconds, memory),
        "seccomp": lambda: _filter_calls(libc),
    }
    return taken(measures)


def taken(measures: Mapping[str, Callable[[], None]]) -> dict[str, str]:
    """Take these measures in their order; measure to `yes`, or why not."""
    return {name: _tried(measure) for name, measure in measures.items()}


def no_way_back(libc: ctypes.CDLL) -> dict[str, Callable[[], None]]:
    """Measures that every worker takes: it dies with its parent, and no program gives it back what it gave up."""
    return {
        "dies_with_parent": lambda: die_with_parent(libc),
        "no_new_privileges": lambda: prctl(libc, _SET_NO_NEW_PRIVS, 1),
    }


def die_with_parent(libc: ctypes.CDLL | None = None) -> None:
    """Whoever started this process takes it with him. OSError."""
    prctl(libc or ctypes.CDLL(None, use_errno=True), _SET_PDEATHSIG, signal.SIGKILL)


def _tried(measure: Callable[[], None]) -> str:
    try:
        measure()
    except (OSError, ValueError, AttributeError) as error:
        return (getattr(error, "strerror", None) or str(error))[:200] or type(error).__name__
    return DONE


def _leave_network(libc: ctypes.CDLL) -> None:
    """A network namespace with nothing in it; whoever is not root needs one of users for that, too."""
    if os.geteuid() == 0:
        checked(libc.unshare(_NEW_NETWORK))
    else:
        checked(libc.unshare(_NEW_USERS | _NEW_NETWORK))


def _become_nobody() -> None:
    """Root only: anybody else has little to give up."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _forbid_files(libc: ctypes.CDLL) -> None:
    """Landlock: a set of rules that handles every right it knows, and grants none."""
    restrict_files(libc)


def restrict_files(libc: ctypes.CDLL, *, readable: str | None = None) -> None:
    """Landlock: nothing may be done with files but, if that is said, read what is below a folder and list it."""
    version = _call(libc, _LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    ruleset = b"".join(_landlock_attributes(version))
    descriptor = _call(libc, _LANDLOCK_CREATE, ruleset, len(ruleset), 0)
    try:
        if readable is not None:
            _grant(libc, descriptor, readable)
        _call(libc, _LANDLOCK_RESTRICT, descriptor, 0)
    finally:
        os.close(descriptor)


def _grant(libc: ctypes.CDLL, ruleset: int, folder: str) -> None:
    file = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _READ_FILES | _LIST_FOLDERS, file)  # struct landlock_path_beneath_attr, packed
        _call(libc, _LANDLOCK_ADD, ruleset, _BENEATH, rule, 0)
    finally:
        os.close(file)


def _landlock_attributes(version: int) -> Iterator[bytes]:
    yield struct.pack("=Q", (1 << _FILE_RIGHTS.get(version, max(_FILE_RIGHTS.values()))) - 1)
    if version >= _NETWORK_SINCE:
        yield struct.pack("=Q", _NETWORK_RIGHTS)
    if version >= _SCOPES_SINCE:
        yield struct.pack("=Q", _SCOPES)


def _limit(cpu_seconds: int, memory: int) -> None:
    """No new descriptor, process, file or core; some memory; a second after its time is up, the kernel ends it."""
    limits: Mapping[int, tuple[int, int]] = {
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (0, 0),
        resource.RLIMIT_NPROC: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    limit(limits)


def limit(limits: Mapping[int, tuple[int, int]]) -> None:
    """Set them, each as far as it is not tighter already."""
    for kind, (soft, hard) in limits.items():
        allowed = resource.getrlimit(kind)[1]
        most = hard if allowed == resource.RLIM_INFINITY else min(hard, allowed)
        resource.setrlimit(kind, (min(soft, most), most))  # a limit that was tighter before must not stop the others


def _filter_calls(libc: ctypes.CDLL) -> None:
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise ValueError(f"no filter for {platform.machine()}")
    install(libc, program(machine))


def install(libc: ctypes.CDLL, filter_: bytes) -> None:
    """Let the kernel run this filter on every system call of this thread, and of those that it starts."""
    if sys.byteorder != "little":
        raise ValueError(f"no filter for {platform.machine()}")
    code = ctypes.create_string_buffer(filter_)
    size = struct.calcsize("=HBBI")
    # struct sock_fprog: a count, padded to a pointer's alignment, and where the program is.
    head = ctypes.create_string_buffer(struct.pack("@HP", (len(code) - 1) // size, ctypes.addressof(code)))
    prctl(libc, _SET_SECCOMP, _SECCOMP_FILTER, ctypes.addressof(head))


def _call(libc: ctypes.CDLL, number: int, *arguments: bytes | int | None) -> int:
    full = (ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments)
    return checked(libc.syscall(ctypes.c_ulong(number), *full))


def prctl(libc: ctypes.CDLL, option: int, first: int, second: int = 0) -> None:
    """As the kernel has it; OSError."""
    checked(libc.prctl(option, *map(ctypes.c_ulong, (first, second, 0, 0))))


def checked(answer: int) -> int:
    """What a call of the library answered, if that is no failure; OSError."""
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer
