"""The keeper of one program: what it does. Standard library only; `program_keeper.py` starts it.

It is the subreaper of all that it starts. So whatever forks twice, begins a session, closes its streams or clears its
environment stays below it, and the kernel says exactly when nothing is left: there is no child to wait for any more.
It outlives the agent: where the other end of its socket is closed, it ends everything, unless that was told to go on.

It reads what the program writes, keeps the first bytes and counts the rest, with memory that does not grow: a program
that floods is never held up, and one that leaves its streams to somebody else is not waited for.

    agent -> keeper   the order; then "begin"; "end", with a grace; "forget" what is still written
    keeper -> agent   "made" with pid and start time; "began" or "refused"; "output"; "ended"; "over"

Each message is a JSON object on a line. The descriptors come in fixed places.
"""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from stanch.agent.host.program_child import CONTROL, STDERR, STDOUT, become, prctl, write
from stanch.agent.host.program_tree import children, descendants, send, started

MAX_ORDER = 16 * 1_048_576
"""Bytes of a message from the agent."""

CHUNK = 65_536
PIPE_BYTES = 1_048_576
REPORT_EVERY = 0.2
LOOK_EVERY = 0.005
STUCK_AFTER = 10.0
"""Seconds after SIGKILL; whoever is still there waits inside the kernel."""

LEFT_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for what a program left behind, and for all of it when the agent is gone."""

_TAIL = 400
_ONE_LOOK = 0.5
_AT_ONCE = 2000
_BREATHS = 200
_SLOWEST = 1.0
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36


class Stream:
    """One of its streams: read as it comes, its first bytes kept."""

    def __init__(self, pipe: int, file: int, keep: int) -> None:
        self.pipe: int | None = pipe
        self._file = file
        self._room = keep
        self.written = 0
        self.kept = 0
        self.tail = b""

    def read(self, most: int = CHUNK) -> bool:
        """Read once, without waiting; False if there is nothing now."""
        if self.pipe is None:
            return False
        try:
            data = os.read(self.pipe, most)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self.written += len(data)
        self.tail = (self.tail + data)[-_TAIL:]
        self._keep(memoryview(data))
        return True

    def _keep(self, data: memoryview) -> None:
        rest = data[: self._room]
        try:
            while rest:
                done = os.write(self._file, rest)
                self.kept, self._room, rest = self.kept + done, self._room - done, rest[done:]
        except OSError:  # the disk is full: what was kept is kept
            self._room = 0

    def forget(self) -> None:
        """Keep nothing more."""
        self._room = 0

    def drain(self) -> None:
        """Read what is in the pipe now; whoever fills it meanwhile does not hold us."""
        for _ in range(2 * PIPE_BYTES // CHUNK):
            if not self.read():
                return

    def close(self) -> None:
        """Its writers are gone, or nobody listens."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None


class Keeper:
    """Makes a process, lets it begin, watches it and all below it, and ends them."""

    def __init__(self, control: socket.socket, order: Mapping[str, Any], wake: int) -> None:
        self._control: socket.socket | None = control
        self._order = order
        self._wake = wake
        self._group: str | None = order["group"]
        self._outlives = bool(order["outlives"])
        self._inbox, self._outbox = bytearray(), bytearray()
        self._streams: list[Stream] = []
        self._newest: Stream | None = None
        self._go = self._error = -1
        self._pid = 0
        self._held = True
        self._status: int | None = None
        self._began = self._lasted = 0.0
        self._term_until: float | None = None
        self._killing: float | None = None
        self._seen: set[tuple[int, int]] = set()
        self._pace = LOOK_EVERY
        self._left = 0
        self._told = 0.0
        self._counted = (-1, -1)
        self._said_ended = self._told_all = False
        self.over = False

    # --- the process -------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Fork the process, which waits before its first instruction."""
        go, self._go = os.pipe()
        self._error, error = os.pipe()
        pipes = [_pipe(), _pipe()]
        self._pid = os.fork()
        if self._pid == 0:
            become(self._order, go, error, [end for _, end in pipes], unwanted=self._go)
        for one in (go, error, *(end for _, end in pipes)):
            os.close(one)
        keep = int(self._order["keep"])
        self._streams = [Stream(pipes[0][0], STDOUT, keep), Stream(pipes[1][0], STDERR, keep)]
        try:
            if self._group is not None:
                write(f"{self._group}/cgroup.procs", str(self._pid).encode())
        except OSError as error:
            self._say({"refused": ["group", error.errno or 0]})
            self._kill_from_now()
            return
        self._say({"made": self._pid, "started": started(self._pid)})

    def _begin(self) -> None:
        if not self._held:
            return
        self._held, self._began = False, time.monotonic()
        with suppress(OSError):
            os.write(self._go, b"!")
        os.close(self._go)
        # The pipe closes when the program is executed, or tells why it cannot be; it takes no longer than that.
        told = b""
        while piece := os.read(self._error, 4096):
            told += piece
        os.close(self._error)
        if told:
            self._say({"refused": json.loads(told)})
            self._kill_from_now()
        elif self._status is None:
            self._say({"began": True})

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until nothing is left, or nothing is left to tell and it goes on by itself."""
        while not (self.over and (not self._outbox or self._control is None)):
            self._wait()
            self._listen()
            for one in self._streams:
                self._newest = one if one.read() else self._newest
            self._reap()
            self._decide()
            self._report()
            self._flush()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for stream in self._streams:
            if stream.pipe is not None:
                poll.register(stream.pipe, select.POLLIN)
        if self._control is not None:
            poll.register(self._control, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        poll.poll(self._pause())
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _pause(self) -> float | None:
        """Milliseconds until something is due by the clock; None for nothing."""
        if self._killing is not None:
            return 1000 * self._pace
        now, due = time.monotonic(), []
        if self._term_until is not None:
            due.append(self._term_until - now)
        if self._control is not None and self._counts() != self._counted:
            due.append(self._told + REPORT_EVERY - now)
        return 1000 * max(0.0, min(due)) + 1 if due else None

    def _decide(self) -> None:
        now = time.monotonic()
        if self._status is not None:
            self._begin()  # one that ended before it was told to has failed, and says why
        if self._status is not None and not self._said_ended and self._term_until is None and self._killing is None:
            self._left = len(descendants())
            if self._outlives:
                self._tell_end(left_ended=False)
            elif not self.over:
                self._terminate(LEFT_GRACE)
        if self._term_until is not None and now >= self._term_until and self._killing is None:
            self._kill_from_now()
        if self._killing is not None and not self.over:
            self._kill_all()
            if now - self._killing > STUCK_AFTER and not self._told_all:
                self._told_all = True
                self._tell_end(left_ended=False)
        if self.over:
            self._leave()

    def _leave(self) -> None:
        """Nothing is left."""
        if not self._said_ended:
            self._tell_end(left_ended=True)
        if not self._told_all:
            self._say({"over": True})
        self._told_all = True
        if self._group is not None:
            with suppress(OSError):
                os.rmdir(self._group)  # noqa: PTH106 - pathlib is megabytes in each keeper

    def _reap(self) -> None:
        """Ask how children ended; not all of them, where they end faster than they can be asked."""
        try:
            for _ in range(_AT_ONCE):
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    self._status, self._lasted = status, time.monotonic() - self._began
        except ChildProcessError:
            self.over = True

    # --- ending ------------------------------------------------------------------------------------------------------

    def _terminate(self, grace: float) -> None:
        """SIGTERM to all; a stopped one hears it when it goes on."""
        if self._killing is not None:
            return
        until = time.monotonic() + grace
        self._term_until = until if self._term_until is None else min(until, self._term_until)
        if grace > 0:
            for pid, ticks in descendants().items():
                send(pid, ticks, signal.SIGTERM)
                send(pid, ticks, signal.SIGCONT)

    def _kill_from_now(self) -> None:
        """It is a race from now on: the scheduler is asked for the first place, where we may ask."""
        if self._killing is None:
            self._killing = time.monotonic()
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, -20)
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))

    def _kill_all(self) -> None:
        """What a group holds dies at once. Otherwise it is a race, which is run in two ways.

        Those that replace themselves all the time are gone before anybody has looked through /proc. But their parents
        have ended, so they are our own children: those are told by the kernel at once, and ended in the same breath,
        over and over; and a pid of ours is given to nobody else until we have asked how it ended. Those that make more
        and more are made to stand still first, all of them, so that they cannot fork.
        """
        if self._group is not None:
            with suppress(OSError):
                write(f"{self._group}/cgroup.kill", b"1")
        self._kill_children()
        if self.over:
            return
        stopped: set[tuple[int, int]] = set()
        until = time.monotonic() + _ONE_LOOK
        while time.monotonic() < until:
            new = set(descendants().items()) - stopped
            for pid, ticks in new:
                send(pid, ticks, signal.SIGSTOP)
            stopped |= new
            if not new:
                break
        for pid, ticks in stopped:
            send(pid, ticks, signal.SIGKILL)
        self._reap()
        # Whoever waits inside the kernel is not asked all the time.
        self._pace = LOOK_EVERY if stopped != self._seen else min(2 * self._pace, _SLOWEST)
        self._seen = stopped

    def _kill_children(self) -> None:
        """Again and again, while there are others than before."""
        before: list[int] = []
        for _ in range(_BREATHS):
            self._reap()
            own = children()
            if self.over or own == before:
                return
            for pid in reversed(own):  # the youngest may still live; the others may have ended already
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            before = own

    # --- the agent ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._control is None:
            return
        try:
            data = self._control.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._inbox) > MAX_ORDER:
            self._alone()
            return
        self._inbox += data
        while b"\n" in self._inbox:
            line, _, rest = bytes(self._inbox).partition(b"\n")
            self._inbox[:] = rest
            self._obey(json.loads(line))

    def _obey(self, message: Mapping[str, Any]) -> None:
        if "begin" in message:
            self._begin()
        elif "end" in message:
            self._terminate(float(message["end"]))
        elif "forget" in message:
            self._alone(told=True)

    def _alone(self, *, told: bool = False) -> None:
        """Nobody waits any more: all of it ends, unless it has begun and goes on by itself."""
        if self._control is not None:
            self._control.close()
            self._control = None
        self._outbox.clear()
        for one in self._streams:
            one.forget()
        if self._held:
            self._kill_from_now()
        elif not self._outlives:
            self._terminate(0.0 if told else LEFT_GRACE)

    def _say(self, message: Mapping[str, Any]) -> None:
        if self._control is not None:
            self._outbox += json.dumps(message).encode() + b"\n"

    def _flush(self) -> None:
        """Never wait for an agent that does not read: its program must not be held up by it."""
        if self._control is None or not self._outbox:
            return
        try:
            sent = self._control.send(self._outbox)
            del self._outbox[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._alone()

    def _counts(self) -> tuple[int, int]:
        return self._streams[0].written, self._streams[1].written

    def _report(self) -> None:
        now = time.monotonic()
        if self._counts() == self._counted or self._outbox or now - self._told < REPORT_EVERY:
            return
        self._tell_output()

    def _tell_output(self) -> None:
        self._told, self._counted = time.monotonic(), self._counts()
        out, err = self._streams
        last = (
            "" if self._newest is None else last_line(self._newest.tail) or last_line(out.tail) or last_line(err.tail)
        )
        self._say({"output": [[out.written, out.kept], [err.written, err.kept]], "last": last})

    def _tell_end(self, *, left_ended: bool) -> None:
        for one in self._streams:
            one.drain()
        self._tell_output()
        self._said_ended = True
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        left = self._left if left_ended or self._outlives else len(descendants())
        told = {"ended": code, "seconds": self._lasted, "left": left, "left_ended": left_ended or not left}
        self._say(told)


def last_line(tail: bytes) -> str:
    r"""The last line that says something, odd bytes as `\xff`, what cannot be printed as `?`."""
    lines = [one for one in tail.splitlines() if one.strip(b" \t\0")]
    text = lines[-1].decode("utf-8", "backslashreplace") if lines else ""
    return "".join(one if one.isprintable() else "?" for one in text[-200:])


def _pipe() -> tuple[int, int]:
    """Ends of a pipe; reading never waits."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    return ends


# --- the start -------------------------------------------------------------------------------------------------------


def _woken_by_children() -> int:
    """A descriptor that can be read when a child has ended."""
    read, write = _pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    return read


def _first_line(control: socket.socket) -> bytes:
    """The order; nothing if the agent is gone."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= MAX_ORDER:
        data = control.recv(CHUNK)
        if not data:
            return b""
        line += data
    return bytes(line)


def keep() -> int:
    """Keep one program, by the order that comes first on the socket; an exit code."""
    os.setsid()
    os.closerange(STDERR + 1, 1_048_576)
    for number in range(CONTROL, STDERR + 1):
        os.set_inheritable(number, False)
    prctl(_PR_SET_NAME, b"stanch-keeper")
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake = _woken_by_children()
    control = socket.socket(fileno=CONTROL)
    line = _first_line(control)
    if line:
        control.setblocking(False)
        keeper = Keeper(control, json.loads(line), wake)
        keeper.make()
        keeper.run()
    return 0
