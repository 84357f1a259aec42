"""How a worker that scans is confined: it can read any file, and write none, start none, and reach nobody.

It becomes nobody, with the right to read and search all (CAP_DAC_READ_SEARCH), to take leases (CAP_LEASE: without it
nothing can be remembered), and, if processes are looked into, to read their memory (CAP_SYS_PTRACE: then Landlock has
to be left out, since it forbids that). CAP_FOWNER is kept only where the filter of system calls is in force: it takes
O_NOATIME, so that a scan does not wipe out when files were read last; what else it would allow (chmod, utimes,
unlink, ...) are calls that the filter refuses. Whoever is not root keeps his user, and can read what he can read.

All that is mounted is read-only to it, and its devices cannot be opened: the engine opens the files that a process has
mapped by their names, and who puts a device there in that instant would have it opened (/dev/watchdog starts a clock
that ends in a reboot).
"""

import ctypes
import os
import platform
import resource
import struct
from typing import TYPE_CHECKING, Final

from stanch.worker.confinement import (
    DONE,
    NOBODY,
    checked,
    install,
    limit,
    no_way_back,
    prctl,
    restrict_files,
    taken,
)
from stanch.worker.sandbox_filter import MACHINES, SCANNING, scanning_program
from stanch.worker.scan.remembered import MAX_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable

DATA: Final = 1024 * 2**20
"""Bytes of memory of its own; mapped files do not count. A file can be made so that rules take all of it (see `rules`):
the less it is, the better for others."""
DESCRIPTORS: Final = 4096

_NEW_NETWORK, _NEW_MOUNTS = 0x40000000, 0x00020000
_MOUNT_SETATTR, _HERE, _RECURSIVE = 442, -100, 0x8000
_READ_ONLY, _NO_SETUID, _NO_DEVICES = 1, 2, 4
_FOLLOWS: Final = 1 << 19
"""MS_SLAVE: what is mounted and unmounted outside is so here, and not the other way round."""
_KEEP_CAPS, _CAPBSET_DROP, _CAP_AMBIENT, _AMBIENT_CLEAR = 8, 24, 47, 4
_LAST_CAPABILITY: Final = 63
_FOWNER, _DAC_READ_SEARCH, _SYS_PTRACE, _LEASE = 3, 2, 19, 28
_CAPABILITIES_3: Final = 0x20080522


def confine_scan(*, memory: bool, clamd: bool, hands: bool = False) -> dict[str, str]:
    """Take every measure; measure to `yes`, or why not. Before any thread is started.

    `hands`: it may fork, until it is sealed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    keep = {_DAC_READ_SEARCH, _LEASE, _FOWNER, *((_SYS_PTRACE,) if memory else ())}
    measures: dict[str, Callable[[], None]] = {
        "network": lambda: _leave_network(libc),
        "mounts": lambda: _no_devices(libc),
        "user": lambda: _become_nobody(libc, keep),
        **no_way_back(libc),
        "landlock": lambda: _read_only(libc, memory=memory),
        "limits": _limit,
        "seccomp": lambda: _filter_calls(libc, messages=clamd or hands, forks=hands),
    }
    told = taken(measures)
    if told["seccomp"] != DONE and os.geteuid() == NOBODY:
        told["user"] = taken({"user": lambda: _hold(libc, keep - {_FOWNER})})["user"]
    return told


def _leave_network(libc: ctypes.CDLL) -> None:
    """Only root: in a namespace of users of its own, anybody else would no longer see whose files are."""
    if os.geteuid() != 0:
        raise ValueError("only root can leave it and still see the owners of files")
    checked(libc.unshare(_NEW_NETWORK))


def _no_devices(libc: ctypes.CDLL) -> None:
    """A namespace of mounts of its own, in which all of them are without devices; what is unmounted goes here, too."""
    if os.geteuid() != 0:
        raise ValueError("only root can have mounts of its own")
    checked(libc.unshare(_NEW_MOUNTS))
    attributes = struct.pack("=4Q", _READ_ONLY | _NO_SETUID | _NO_DEVICES, 0, _FOLLOWS, 0)  # struct mount_attr
    number, here, size = ctypes.c_long(_MOUNT_SETATTR), ctypes.c_long(_HERE), ctypes.c_ulong(len(attributes))
    checked(libc.syscall(number, here, b"/", ctypes.c_ulong(_RECURSIVE), attributes, size))


def _become_nobody(libc: ctypes.CDLL, keep: set[int]) -> None:
    if os.geteuid() != 0:
        raise ValueError("not root: it keeps its user, and reads what that may read")
    for number in set(range(_LAST_CAPABILITY + 1)) - keep:
        if libc.prctl(_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break  # the kernel knows no more of them
    prctl(libc, _KEEP_CAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _hold(libc, keep)


def _hold(libc: ctypes.CDLL, keep: set[int]) -> None:
    """These capabilities and no others; never to be inherited."""
    bits = sum(1 << number for number in keep)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    head = struct.pack("=Ii", _CAPABILITIES_3, 0)
    checked(libc.capset(head, struct.pack("=6I", low, low, 0, high, high, 0)))
    prctl(libc, _CAP_AMBIENT, _AMBIENT_CLEAR)


def _read_only(libc: ctypes.CDLL, *, memory: bool) -> None:
    if memory:
        raise ValueError("it would forbid to look into processes")
    restrict_files(libc, readable="/")


def _limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    limit(
        {
            resource.RLIMIT_DATA: (DATA, DATA),
            resource.RLIMIT_FSIZE: (MAX_WRITTEN * 2, MAX_WRITTEN * 2),
            resource.RLIMIT_NOFILE: (most, most),
            resource.RLIMIT_CORE: (0, 0),
        }
    )


def seal() -> None:
    """No more processes: for each that was let fork. Nothing if there is no filter of calls. Before any thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    taken({"seccomp": lambda: _filter_calls(libc, messages=True, forks=False)})


def _filter_calls(libc: ctypes.CDLL, *, messages: bool, forks: bool) -> None:
    machine, scanning = MACHINES.get(platform.machine()), SCANNING.get(platform.machine())
    if machine is None or scanning is None:
        raise ValueError(f"no filter for {platform.machine()}")
    install(libc, scanning_program(machine, scanning, messages=messages, forks=forks))
