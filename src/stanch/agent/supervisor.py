"""Keep the agent alive: `python -m stanch.agent.supervisor`. Standard library only.

This process is what an attacker would have to end first, and what must work when a dependency is broken, so it imports
nothing that could fail and does three things: it starts the agent again when it dies, it ends an agent that has stopped
beating (a hung event loop looks alive to everybody else), and it passes on a request to stop.

The two processes cannot outlive each other: the agent is told by the kernel when its supervisor dies
(PR_SET_PDEATHSIG), and two supervisors cannot run on one state folder (a lock that the kernel drops at death).
"""

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

DEFAULT_STATE = "/var/lib/stanch/agent"
"""The same as in stanch.agent.settings, which this file does not import; a test compares them."""

BEAT_VARIABLE = "STANCH_AGENT_BEAT"
"""Tells the agent the descriptor into which it writes a byte every few seconds."""

LOCK_FILE = "supervisor.lock"

EXIT_IN_USE = 75
"""EX_TEMPFAIL: another supervisor runs on this state folder."""

EXIT_NOT_ENROLLED = 78
"""EX_CONFIG: the agent says that starting it again is of no use until somebody enrols or repairs it."""

_KEPT_VARIABLES = ("PATH", "LANG", "TZ", "STANCH_AGENT_CONFIG", "STANCH_AGENT_STATE", "STANCH_AGENT_SOCKET")
"""All that the agent sees of our environment: whoever starts a root daemon must not steer it by variables."""

_MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "262144"}
"""The C library's way of keeping freed memory for later: without these, an agent that has once sent a file stays 40 MB
larger for ever."""

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds."""

    silence: float = 60.0
    """An agent that does not beat for so long is ended. Longer than any single step of its event loop may take."""
    first_restart: float = 0.5
    longest_restart: float = 30.0
    healthy: float = 60.0
    """An agent that lived for so long is restarted quickly again."""
    goodbye: float = 10.0
    """What a running agent gets after SIGTERM before SIGKILL."""


def restart_delay(failures: int, patience: Patience) -> float:
    """Seconds until the next start after so many short lives in a row."""
    return min(patience.first_restart * 2.0 ** min(failures, 16), patience.longest_restart)


class Supervisor:
    """Starts one program again and again until it is told to stop."""

    def __init__(self, command: Sequence[str], *, patience: Patience, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._patience = patience
        self._environment = dict(environment)
        self._wake_read, self._wake_write = _pipe()
        self._stopping = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """End the agent gracefully, then return from `run`. Safe in a signal handler."""
        self._stopping = True
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # enough wake-ups are waiting already

    def run(self) -> int:
        """Keep the agent alive until `stop`; the exit code for this process."""
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            code = self._one_life()
            if code == EXIT_NOT_ENROLLED and not self._stopping:
                say("agent-gave-up", code=code, hint="The agent's own last line says what to repair.")
                return code
            failures = 0 if time.monotonic() - began > self._patience.healthy else failures + 1
            self._pause(restart_delay(failures, self._patience))
        return 0

    def _one_life(self) -> int:
        """Start the agent and stay until it has ended, one way or the other; its exit code."""
        beat_read, beat_write = _pipe()
        try:
            child = self._start(beat_write)
        finally:
            os.close(beat_write)
        try:
            code = self._watch(child, beat_read)
        except BaseException:
            end(child, within=0.0)
            raise
        finally:
            os.close(beat_read)
        say("agent-ended", pid=child.pid, code=code)
        return code

    def _start(self, beat: int) -> "subprocess.Popen[bytes]":
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            pass_fds=(beat,),
            env={**self._environment, BEAT_VARIABLE: str(beat)},
            preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - this process has one thread, so it is safe
        )
        say("agent-started", pid=child.pid)
        return child

    def _watch(self, child: "subprocess.Popen[bytes]", beat: int) -> int:
        """Return when the agent has died, has been silent too long (and was killed), or was told to stop."""
        last = time.monotonic()
        with _pidfd(child.pid) as ended:
            while True:
                left = last + self._patience.silence - time.monotonic()
                ready, _, _ = select.select([ended, beat, self._wake_read], [], [], max(left, 0.0))
                if ended in ready:
                    return child.wait()
                if self._stopping:
                    return end(child, within=self._patience.goodbye)
                if beat in ready and os.read(beat, 4096):
                    last = time.monotonic()
                elif left <= 0.0:
                    say("agent-silent", pid=child.pid, seconds=self._patience.silence)
                    return end(child, within=0.0)
                elif beat in ready:
                    # The agent closed its end without dying: nothing will ever come, so wait for its death or silence.
                    _wait_readable(ended, self._wake_read, within=left)

    def _pause(self, delay: float) -> None:
        if not self._stopping:
            select.select([self._wake_read], [], [], delay)


def end(child: "subprocess.Popen[bytes]", *, within: float) -> int:
    """SIGTERM, then SIGKILL after `within` seconds (at once for 0), by the process's own pid; its exit code."""
    if within > 0.0:
        child.terminate()
        try:
            return child.wait(within)
        except subprocess.TimeoutExpired:
            say("agent-killed", pid=child.pid, seconds=within)
    child.kill()
    return child.wait()


def die_with_parent(parent: int) -> Callable[[], None]:
    """What the child does before exec: ask the kernel to kill it when its parent dies.

    SIGKILL, because an orphan whose event loop hangs would share the state folder with its successor; the agent's
    journal is made for sudden ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died between fork and prctl: nobody will tell us any more
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return before_exec


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state folder for this process; BlockingIOError if another one holds it. The kernel frees it at death."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def say(event: str, *, to: IO[str] | None = None, **facts: object) -> None:
    """One line of JSON, as the agent writes them too."""
    print(json.dumps({"event": event, "logger": "supervisor", **facts}), file=to or sys.stderr, flush=True)


def _pipe() -> tuple[int, int]:
    """A pipe that never blocks the writer."""
    ends = os.pipe()
    for one in ends:
        os.set_blocking(one, False)
    return ends


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    file = os.pidfd_open(pid)
    try:
        yield file
    finally:
        os.close(file)


def _wait_readable(*files: int, within: float) -> None:
    select.select(files, [], [], within)


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Supervise the agent in this process; its exit code."""
    # -I: the working folder and PYTHON* variables must not decide what a root daemon imports.
    command = [sys.executable, "-I", "-m", "stanch.agent.main"]
    kept = {name: environ[name] for name in _KEPT_VARIABLES if name in environ}
    supervisor = Supervisor(command, patience=Patience(), environment=_MEMORY | kept)
    for one in _SIGNALS:
        signal.signal(one, supervisor.stop)
    try:
        with locked(Path(environ.get("STANCH_AGENT_STATE") or DEFAULT_STATE)):
            return supervisor.run()
    except OSError as error:
        in_use = error.errno == errno.EWOULDBLOCK
        say("supervisor-failed", got="another supervisor holds this state folder" if in_use else str(error))
        return EXIT_IN_USE if in_use else 1


if __name__ == "__main__":
    sys.exit(main())
