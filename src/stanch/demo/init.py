"""Process 1 of the demo's endpoint: file systems of its own, and a home for orphans. Standard library only.

It hides the machine's run time state, temporary files, homes and package state behind empty file systems, so that
nothing on the endpoint can touch them, yet keeps whatever of them the running Python needs. Then it waits for its end.
"""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

HIDDEN = ("/run", "/tmp", "/home", "/var/lib", "/var/spool")  # noqa: S108 - hidden, not used
MS_BIND, MS_REC = 4096, 16384
MODES = {"/tmp": "1777"}  # noqa: S108 - hidden, not used

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, *, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    """Ask the kernel to mount; OSError if it refuses."""
    failed = _libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, options.encode())
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def needed_here() -> set[Path]:
    """Where the running Python and this package live, as named and as linked."""
    named = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent, Path(__file__).parents[2]}
    return named | {path.resolve() for path in named}


def kept_below(hidden: str, needed: set[Path]) -> set[Path]:
    """The folders right below a hidden one that must stay visible: whole, so that links inside them still lead."""
    depth = len(Path(hidden).parts) + 1
    return {Path(*path.parts[:depth]) for path in needed if path.is_relative_to(hidden) and len(path.parts) >= depth}


def hide(hidden: str, needed: set[Path]) -> None:
    """Put an empty file system over a folder, with what is needed still in it."""
    kept = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in sorted(kept_below(hidden, needed))]
    mount("tmpfs", hidden, kind="tmpfs", options=f"mode={MODES.get(hidden, '755')},size=256m")
    for path, descriptor in kept:
        path.mkdir(parents=True)
        mount(f"/proc/self/fd/{descriptor}", os.fspath(path), flags=MS_BIND | MS_REC)
        os.close(descriptor)


def end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave; the kernel ends everything else in the namespace."""
    os._exit(0)


def reap_for_ever() -> NoReturn:
    """Take every orphan that ends, so that no zombie looks like a survivor."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


def main() -> NoReturn:
    """Set the machine up, say `ready`, stay."""
    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    socket.sethostname(sys.argv[1])
    mount("sysfs", "/sys", kind="sysfs")
    needed = needed_here()
    for hidden in HIDDEN:
        hide(hidden, needed)
    os.chdir("/")
    print("ready", flush=True)  # noqa: T201 - the protocol with the lab
    reap_for_ever()


if __name__ == "__main__":
    main()
