"""Containers for tests: control groups of the test's own with its own children in it, and a /proc that is made up."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.agent.host.cgroups import hierarchy
from tests.fakes.waiting import wait_until

FLEES = "import os, time\nwhile True:\n    if os.fork():\n        os._exit(0)\n    time.sleep(0.002)"
"""A program that is another process each time one looks."""

SLEEPS = "import time\ntime.sleep(600)"


@dataclass(frozen=True, slots=True)
class RealContainer:
    """A control group that is named like a container."""

    id: str
    path: str
    """Below the root of version 2."""
    folder: Path
    children: Sequence[subprocess.Popen]

    @property
    def pids(self) -> list[int]:
        """Who is in it now."""
        return [int(one) for one in (self.folder / "cgroup.procs").read_text().split()]

    def says(self, name: str) -> str:
        """What the kernel has in a file of the group."""
        return (self.folder / name).read_text()


def _enter(folder: Path):
    # The child puts itself in: whoever it starts is in it from the beginning.
    return lambda: (folder / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def real_container(*programs: str, name: str = "docker-{}.scope") -> Iterator[RealContainer]:
    """A group of our own below the root of version 2, with these Python programs in it; gone afterwards."""
    root = hierarchy().root
    number = secrets.token_hex(32)
    above = root / f"stanch-test-{secrets.token_hex(4)}"
    folder = above / name.format(number)
    folder.mkdir(parents=True)
    children = []
    try:
        for program in programs or (SLEEPS, SLEEPS):
            child = [sys.executable, "-S", "-c", program]
            children.append(
                subprocess.Popen(child, preexec_fn=_enter(folder), stdin=subprocess.DEVNULL)  # noqa: PLW1509 - it writes one line
            )
        yield RealContainer(number, str(folder.relative_to(root)), folder, children)
    finally:
        (folder / "cgroup.kill").write_text("1")
        for child in children:
            child.wait(10)
        wait_until(lambda: "populated 0" in (folder / "cgroup.events").read_text())
        below = folder
        while below != root:
            below.rmdir()
            below = below.parent


def end(pid: int) -> None:
    """End a child of ours."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def add_process(proc: Path, pid: int, *lines: str, inner: int = 0, state: str = "S", started: int = 500) -> None:
    """A process in a /proc that is made up, in these control groups."""
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text("".join(f"{line}\n" for line in lines))
    fields = [state, "1", "1", "1", "0", "-1", "0", *["0"] * 10, "1", "0", str(started), "0", "0"]
    (folder / "stat").write_text(f"{pid} (x) {' '.join(fields)}")
    inside = f"\t{inner}" if inner else ""
    (folder / "status").write_text(f"Name:\tx\nPPid:\t1\nNSpid:\t{pid}{inside}\n")
