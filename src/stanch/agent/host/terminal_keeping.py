"""The keeper of one terminal: what it does. Standard library only; `terminal_keeper.py` starts it.

It is the subreaper of the shell: who forks twice, begins a session of its own or ignores SIGHUP is still below it, and
is found. If the agent dies, its end of the socket closes, and all of it is ended at once. It has one thread, so it may
fork, which the agent may not.

Messages, whose bounds the socket keeps

    from the agent    what to run, as JSON ▸ `go` ▸ `hang-up SECONDS`, any number of times
    to the agent      `pid NUMBER` ▸ `running`, or `failed ERRNO TEXT` ▸ `exit STATUS`, negative for a signal ▸ the end
"""

import fcntl
import json
import os
import select
import signal
import socket
import termios
import time
from contextlib import suppress
from typing import TypedDict

from stanch.agent.host.program_child import prctl, write
from stanch.agent.host.program_tree import descendants, send

MAX_MESSAGE = 65_536
LEFT_SECONDS = 1.0
"""How long what the shell leaves running may take to end by SIGHUP."""

FINAL_SECONDS = 10.0
"""For what takes no signal: it waits inside the kernel, and is left there."""

LOOK_EVERY = 0.05
_ROUNDS = 10
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_UMASK = 0o022
_CANNOT_RUN = 126


class What(TypedDict):
    """What to run, as the agent says it."""

    programs: list[tuple[str, str]]
    """Path, and the name that it is called by: the first that can be run."""
    arguments: list[str]
    environment: dict[str, str]
    uid: int
    gid: int
    groups: list[int]
    folder: str
    folder_must: bool
    """Is it no use to begin anywhere else?"""
    group: str | None
    """The folder of the control group that it belongs into."""


class Keeper:
    """The shell, what is below it, and the agent's end of the socket."""

    def __init__(self, agent: socket.socket, terminal: int) -> None:
        self._agent = agent
        self._terminal = terminal
        self._shell = 0
        self._end_at: float | None = None
        """When what still runs is killed."""

    def run(self) -> None:
        """Start the shell when told to, and stay until nothing of it runs."""
        first = self._next()
        if not first:
            return
        what: What = json.loads(first)
        go, begin = os.pipe()
        report, told = os.pipe()
        self._shell = os.fork()
        if self._shell == 0:
            os.close(begin)
            _become(what, self._terminal, go, told)
        for one in (go, told, self._terminal):
            os.close(one)
        self._say(f"pid {self._shell}")
        if self._next() == b"go":
            os.write(begin, b"!")
        os.close(begin)  # without a word in it, the child ends
        with os.fdopen(report, "rb") as file:
            failed = file.read(MAX_MESSAGE)
        self._say(f"failed {failed.decode('utf-8', 'replace')}" if failed else "running")
        self._stay()

    def _stay(self) -> None:
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        listen = [wake, self._agent.fileno()]
        gives_up: float | None = None
        while self._reap():
            late = self._end_at is not None and time.monotonic() >= self._end_at
            if late:
                gives_up = gives_up or time.monotonic() + FINAL_SECONDS
                if time.monotonic() > gives_up:
                    return
                kill_below()
            ready, _, _ = select.select(listen, [], [], self._patience(late=late))
            if wake in ready:
                with suppress(BlockingIOError):
                    os.read(wake, MAX_MESSAGE)
            if self._agent.fileno() in ready and not self._hear():
                listen = [wake]

    def _patience(self, *, late: bool) -> float | None:
        if self._end_at is None:
            return None
        return LOOK_EVERY if late else max(0.0, self._end_at - time.monotonic())

    def _hear(self) -> bool:
        """Do what the agent says; False if it has nothing more to say."""
        word, _, seconds = self._next().decode("ascii", "replace").partition(" ")
        self._hang_up(float(seconds) if word == "hang-up" else 0.0)
        return bool(word)

    def _next(self) -> bytes:
        """What the agent says next; nothing if it has gone, with or without having heard us to the end."""
        try:
            return self._agent.recv(MAX_MESSAGE)
        except OSError:
            return b""

    def _hang_up(self, seconds: float) -> None:
        now = time.monotonic()
        self._end_at = min(self._end_at or now + seconds, now + seconds)
        if seconds > 0:
            for pid, ticks in descendants().items():
                for number in (signal.SIGHUP, signal.SIGCONT):
                    send(pid, ticks, number)

    def _reap(self) -> bool:
        """Take the exit status of whoever ended; False if nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._shell:
                self._say(f"exit {os.waitstatus_to_exitcode(status)}")
                self._hang_up(LEFT_SECONDS)

    def _say(self, text: str) -> None:
        with suppress(OSError):  # the agent has gone: then it is noticed at the next look
            self._agent.send(text.encode("utf-8", "replace")[:MAX_MESSAGE])


# --- the shell -------------------------------------------------------------------------------------------------------


def _become(what: What, terminal: int, go: int, told: int) -> None:
    """In the child: wait, and become the shell; never returns."""
    try:
        os.setsid()
        if what["group"] is not None:
            write(f"{what['group']}/cgroup.procs", b"0")
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        if not os.read(go, 1):
            os._exit(0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, a shell must not
            signal.signal(number, signal.SIG_DFL)
        with suppress(OSError):  # no favour when memory is short, as the agent has it
            write("/proc/self/oom_score_adj", b"0")
        _own(terminal, what)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # not before: it does not survive another account
        for standard in (0, 1, 2):
            os.dup2(terminal, standard)
        _go_home(what)
        _execute(what)
    except OSError as error:
        os.write(told, f"{error.errno} {error.strerror}: {error.filename or 'the account'}".encode("utf-8", "replace"))
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not go on as a second keeper
        os.write(told, f"0 {type(error).__name__}: {error}".encode("utf-8", "replace"))
    finally:
        os._exit(_CANNOT_RUN)


def _own(terminal: int, what: What) -> None:
    """Give the terminal to the account, and to nobody else, and become that."""
    os.umask(_UMASK)
    if os.geteuid() == 0 and what["uid"] != 0:
        os.fchown(terminal, what["uid"], -1)
    os.fchmod(terminal, 0o600)
    if (os.geteuid(), os.getegid()) != (what["uid"], what["gid"]) or os.geteuid() == 0:
        os.setgroups(what["groups"])
        os.setresgid(what["gid"], what["gid"], what["gid"])
        os.setresuid(what["uid"], what["uid"], what["uid"])


def _go_home(what: What) -> None:
    """To the folder that was asked for; or to the home, as far as it can be entered."""
    try:
        os.chdir(what["folder"])
    except OSError:
        if what["folder_must"]:
            raise
        os.chdir("/")


def _execute(what: What) -> None:
    """The first of the programs that can be run; OSError if none can."""
    for left, (path, name) in reversed(list(enumerate(reversed(what["programs"])))):
        login = {"SHELL": path} if name.startswith("-") else {}
        try:
            os.execve(path, [name, *what["arguments"]], {**what["environment"], **login})
        except OSError:
            if not left:
                raise


# --- the end ---------------------------------------------------------------------------------------------------------


def kill_below() -> None:
    """SIGKILL to everything below this process, held still first so that it cannot grow meanwhile."""
    stopped = set[tuple[int, int]]()
    for _ in range(_ROUNDS):
        new = set(descendants().items()) - stopped
        if not new:
            break
        for pid, ticks in new:
            send(pid, ticks, signal.SIGSTOP)
        stopped |= new
    for pid, ticks in stopped:
        send(pid, ticks, signal.SIGKILL)


def keep() -> int:
    """Keep the terminal that is descriptor 1, for the agent at descriptor 0; an exit code."""
    agent = socket.socket(fileno=os.dup(0))
    terminal = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for one in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        if one not in {0, 1, 2, agent.fileno(), terminal}:
            with suppress(OSError):  # the listing's own is closed by now
                os.close(one)
    os.chdir("/")
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    Keeper(agent, terminal).run()
    return 0
