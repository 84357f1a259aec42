"""What a fork of the keeper does up to the first instruction of the program that it becomes. Standard library only."""

import ctypes
import errno
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

CONTROL, PROGRAM, INTERPRETER, FOLDER, STDOUT, STDERR = range(3, 9)
"""The socket to the agent; the program; what a script is run by; where it starts; where its output is kept."""

_PR_SET_PDEATHSIG = 1


def become(order: Mapping[str, Any], go: int, error: int, streams: list[int], *, unwanted: int) -> NoReturn:
    """Turn this fork of the keeper into the program."""
    stage, keeper = "start", os.getppid()
    try:
        os.close(unwanted)  # else it would not see that the keeper is gone
        os.setsid()
        _settle(streams)
        if os.read(go, 1) != b"!":
            os._exit(1)
        stage = "user"
        if order["user"] is not None:
            uid, gid, groups = order["user"]
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        # Not before: it does not survive another user.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        stage = "folder"
        os.fchdir(FOLDER)
        stage = "execute"
        _execute(order)
    except OSError as failed:
        os.write(error, json.dumps([stage, failed.errno or 0]).encode())
    finally:
        os._exit(127)


def _settle(streams: list[int]) -> None:
    """An empty input, its streams, the default of every signal, and no favour when memory is short."""
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    for number, one in enumerate([nothing, *streams]):
        os.dup2(one, number, inheritable=True)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    with suppress(OSError):
        write("/proc/self/oom_score_adj", b"0")


def _execute(order: Mapping[str, Any]) -> None:
    """Execute what is held; by its path only if that still leads to it.

    The agent says `by_path` only where nobody but root can give the path to another file. Otherwise the descriptor is
    executed, and a script is handed to its interpreter as one.
    """
    arguments, environment = order["arguments"], order["environment"]
    same = not order["by_path"] or os.path.samestat(os.lstat(order["path"]), os.fstat(PROGRAM))
    if not same or _state(PROGRAM) != order["state"]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    if order["by_path"]:
        os.execve(order["path"], arguments, environment)  # noqa: S606 - what this file is for
    if order["script"]:
        os.set_inheritable(PROGRAM, True)
        os.execve(INTERPRETER, [*order["script"], f"/proc/self/fd/{PROGRAM}", *arguments[1:]], environment)  # noqa: S606 - see above
    os.execve(PROGRAM, arguments, environment)  # noqa: S606 - see above


def _state(file: int) -> list[int]:
    """What changes with the content of a file."""
    found = os.fstat(file)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def prctl(option: int, value: int | bytes) -> None:
    """OSError if the kernel says no."""
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def write(path: str, data: bytes) -> None:
    """Write to a file that the kernel makes up. OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, data)
    finally:
        os.close(file)
