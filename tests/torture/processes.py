"""Processes of a sequence, forked with everything imported already; the kernel ends them with their parent."""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.demo.program import children_of, wait_until

CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWUTS = 0x40000000, 0x20000000, 0x00020000, 0x04000000
PR_SET_PDEATHSIG = 1
MAX_DESCRIPTOR = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Let the kernel end this process when its parent dies, even if that was before this call."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def enter(descriptor: int, kind: int) -> None:
    """Move this thread into a namespace."""
    if _libc.setns(descriptor, kind):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True, slots=True)
class Forked:
    """A child that runs a function of ours."""

    pid: int

    def kill(self) -> None:
        """End it at once and collect it; safe to call twice."""
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def wait(self) -> int:
        """Its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(work: Callable[[], None], *, netns: int, log: Path) -> Forked:
    """Run `work` in a child in this network namespace, its output in a file. Call it from the only thread."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return Forked(pid)
    status = 1
    try:
        die_with(parent)
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
        enter(netns, CLONE_NEWNET)
        redirect(log)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it was belongs in the log; nothing may return into the parent's code
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def redirect(log: Path) -> None:
    """Standard input from nowhere, output into a file, no other descriptor of the parent's."""
    nowhere, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nowhere, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, MAX_DESCRIPTOR)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def inside(init: int, work: Callable[[], None]) -> None:
    """Run `work` in the pid, mount and host name namespaces of another process, in a child; raises if it fails."""
    for name, kind in (("pid", CLONE_NEWPID), ("uts", CLONE_NEWUTS), ("mnt", CLONE_NEWNS)):
        descriptor = os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY)
        enter(descriptor, kind)
        os.close(descriptor)
    os.chdir("/")
    pid = os.fork()  # only a child is in the pid namespace
    if pid:
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError("it failed inside")
        return
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - see fork
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def descendant(pid: int, words: Sequence[str], *, within: float = 10.0) -> int:
    """The first descendant whose command line has all of these words; LookupError if none appears."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [one for one in _below(pid) if all(word in command_of(one) for word in words)]
        return bool(found)

    if not wait_until(look, within=within):
        raise LookupError(f"no process {' '.join(words)}")
    return found[0]


def _below(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(deeper for child in children for deeper in _below(child))]


def command_of(pid: int) -> str:
    """The command line; empty if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
