"""A child program of the demo: its own session, its output in a file, and never outliving the demo."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from stanch.core.errors import Unavailable

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.fspath(Path(__file__).parents[2]),
    }
)
"""What a program gets of ours: not the caller's variables, which may name proxies, servers and secrets."""

POLL_SECONDS = 0.02
STOP_SECONDS = 5.0


def wait_until(true: Callable[[], bool], *, within: float) -> bool:
    """Look again and again until it is true, at most `within` seconds; whether it became so."""
    end = time.monotonic() + within
    while not true():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def guarded(argv: Sequence[str]) -> tuple[str, ...]:
    """The command, killed by the kernel when this process dies, even if that was before it had begun."""
    still_there = '[ "$PPID" = "$0" ] || exit 1; exec "$@"'
    return ("setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", still_there, str(os.getpid()), *argv)


@dataclass(frozen=True, slots=True)
class Program:
    """A running program. As a context, it is stopped at the end."""

    process: subprocess.Popen[bytes]
    log: Path
    ends_on: int
    """The signal that asks it to end; `unshare` heeds only SIGKILL."""

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        ends_on: int = signal.SIGTERM,
    ) -> Self:
        """Start it; it dies with this thread, and a Ctrl-C on the terminal reaches us alone."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                guarded(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**ENVIRONMENT, **(env or {})},
                cwd="/",
                start_new_session=True,
            )
        return cls(process, log, ends_on)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self, *, within: float = STOP_SECONDS) -> None:
        """End it politely, and after `within` seconds for certain; safe to call twice."""
        if self.process.poll() is None:
            self.process.send_signal(self.ends_on)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(within)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def said(self) -> str:
        """All that it printed."""
        return self.log.read_text(errors="replace")

    def wait_for_line(self, start: str, *, within: float) -> str:
        """The first line of its output that begins like this; Unavailable if it ends or stays silent."""
        if not wait_until(lambda: self._line(start) is not None or self.process.poll() is not None, within=within):
            raise Unavailable(f"{self.log.name}: no line {start!r}", got=self.said()[-1000:], expected=f"in {within} s")
        line = self._line(start)
        if line is None:
            raise Unavailable(f"{self.log.name}: the program ended", got=self.said()[-1000:], expected=f"{start!r}")
        return line

    def _line(self, start: str) -> str | None:
        whole = self.said().rpartition("\n")[0].splitlines()
        return next((line for line in whole if line.startswith(start)), None)

    def only_child(self) -> int:
        """The pid of its one child."""
        (child,) = children_of(self.process.pid)
        return child


@dataclass(frozen=True, slots=True)
class Status:
    """What the kernel says about a process."""

    state: str
    parent: int
    started: int
    """Clock ticks since boot."""


def status_of(pid: int) -> Status | None:
    """The process with this pid; None if there is none."""
    with suppress(OSError):
        _, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
        fields = rest.split()
        return Status(fields[0], int(fields[1]), int(fields[19]))
    return None


def children_of(parent: int) -> list[int]:
    """The pids of a process's children."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    found = ((pid, status_of(pid)) for pid in pids)
    return [pid for pid, status in found if status is not None and status.parent == parent]
