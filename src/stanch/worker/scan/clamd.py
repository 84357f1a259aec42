"""ClamAV's daemon asked about open files, over a socket that somebody else has connected.

One session (`IDSESSION`) for the whole scan: a confined process can make no second socket. Each file goes as its
descriptor (`FILDES`, with SCM_RIGHTS), so that the daemon, which runs as a user of its own, needs no right to its path,
and looks at the very file that we hold. The daemon reads by the descriptor's own offset: whoever else uses it must
read with `pread`.

Replies carry the number of their request. So one that comes after its time is over does no harm: it is dropped when it
comes. The daemon closes a session that is silent for half a minute (`CommandReadTimeout`): call `keep` in between.
"""

import hashlib
import os
import re
import select
import socket
import threading
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_REPLY: Final = 4096
"""Bytes."""
MAX_LATE: Final = 8
"""Requests that may be unanswered before the daemon is given up."""
KEEP_EVERY: Final = 10.0
"""Seconds of silence after which `keep` says something."""
MAX_NAME: Final = 200

_REPLY: Final = re.compile(r"(\d{1,10}): (?:(?:fd\[\d+\]|stream|instream\([^)]*\)): )?(.*)", re.DOTALL)
_MORE: Final = re.compile(r"\([0-9a-f]{32,64}:\d+\)$")
"""Hash and size, which some daemons write behind a name."""
CONFIGS: Final = ("/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf")
LARGEST: Final = 100 * 2**20
"""Bytes of a file that the daemon looks into, if its configuration does not say otherwise."""
MOST: Final = 2**31 - 1
"""Bytes that it looks into, whatever its configuration says."""
MAX_CONFIG: Final = 262_144

_SETTING: Final = re.compile(rb"^[ \t]*MaxFileSize[ \t]+(\d{1,15})([KkMmGg]?)[ \t\r]*$", re.MULTILINE)
_UNITS: Final = {b"": 1, b"k": 2**10, b"m": 2**20, b"g": 2**30}
_NO_MALWARE: Final = "Heuristics.Limits.Exceeded"
"""It says "found" of what it did not look into."""


class Verdict(StrEnum):
    """What the daemon says of a file."""

    CLEAN = "clean"
    FOUND = "found"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one file."""

    verdict: Verdict
    text: str = ""
    """The name of the malware, or why there is no verdict."""


class _GoneError(Exception):
    """The session is of no use any more; says why."""


class _LateError(Exception):
    """No answer in time."""


class Clamd:
    """One session. Several threads may use it, one after another."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: a connected AF_UNIX stream socket, which belongs to this object from now on."""
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._turn = threading.Lock()
        self._buffer = bytearray()
        self._asked = 0
        self._open: set[int] = set()
        """Requests without an answer."""
        self._spoke = time.monotonic()
        self._gone = ""

    @property
    def gone(self) -> str:
        """Why it cannot be asked any more; empty while it can."""
        return self._gone

    def begin(self, *, within: float = 10.0) -> str:
        """Open the session; the version of the daemon, or empty if it does not answer: then `gone` says why."""
        with self._turn:
            try:
                self._send(b"zIDSESSION\0", None, time.monotonic() + within)
                return self._ask(b"VERSION", None, within)[:MAX_NAME]
            except _LateError:
                self._close("the daemon does not answer")
            except _GoneError:
                pass
            return ""

    def scan(self, file: int, *, within: float = 60.0) -> Answer:
        """What it says of an open regular file; never raises."""
        with self._turn:
            try:
                return _verdict(self._ask(b"FILDES", file, within))
            except _LateError:
                return Answer(Verdict.ERROR, f"no answer within {within:g} s")
            except _GoneError as error:
                return Answer(Verdict.ERROR, str(error))

    def keep(self, *, within: float = 10.0) -> None:
        """Say something if nothing was said for a while, so that it does not close the session; never raises."""
        if self._gone or time.monotonic() - self._spoke < KEEP_EVERY or not self._turn.acquire(blocking=False):
            return  # whoever has its turn is speaking
        try:
            self._ask(b"PING", None, within)
        except (_LateError, _GoneError):
            pass  # `gone` says so, or the next request finds out
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the session."""
        self._close("the scan is over")

    # --- the protocol --- (with the turn held)

    def _ask(self, command: bytes, file: int | None, within: float) -> str:
        """What it answers to this; _LateError, _GoneError."""
        if self._gone:
            raise _GoneError(self._gone)
        if len(self._open) >= MAX_LATE:
            raise self._close(f"{MAX_LATE} requests are unanswered")
        until = time.monotonic() + within
        self._asked += 1
        self._open.add(self._asked)
        self._send(b"z" + command + b"\0", file, until)
        while True:
            number, text = self._reply(until)
            if number == self._asked:
                return text

    def _send(self, command: bytes, file: int | None, until: float) -> None:
        """The command, and in a message of its own the descriptor, as the daemon's own clients do it."""
        self._spoke = time.monotonic()
        try:
            rest = memoryview(command)
            while rest:
                self._wait(select.POLLOUT, until)
                rest = rest[self._socket.send(rest) :]
            if file is not None:
                self._wait(select.POLLOUT, until)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file]))
                self._socket.sendmsg([b"\0"], [rights])
        except TimeoutError:
            # Half a command may be on its way: whatever came next would be taken for the rest of it.
            raise self._close("the daemon takes no request") from None
        except (OSError, ValueError) as error:  # the latter of a socket that is closed meanwhile
            raise self._close(f"the connection broke: {error}") from None

    def _reply(self, until: float) -> tuple[int, str]:
        """The next one, with the number of its request; one to an earlier request, too."""
        while b"\0" not in self._buffer:
            if len(self._buffer) > MAX_REPLY:
                raise self._close(f"it answered with more than {MAX_REPLY} bytes")
            self._receive(until)
        line, _, rest = bytes(self._buffer).partition(b"\0")
        self._buffer[:] = rest
        found = _REPLY.fullmatch(line.decode("utf-8", "replace"))
        if found is None or int(found[1]) not in self._open:
            raise self._close(f"it answered nonsense: {_shown(line.decode('utf-8', 'replace'))}")
        self._open.remove(int(found[1]))
        return int(found[1]), found[2].strip()

    def _receive(self, until: float) -> None:
        try:
            self._wait(select.POLLIN, until)
            data = self._socket.recv(MAX_REPLY)
        except TimeoutError:
            raise _LateError from None
        except (OSError, ValueError) as error:  # the latter of a socket that is closed meanwhile
            raise self._close(f"the connection broke: {error}") from None
        if not data:
            raise self._close("the daemon closed the connection")
        self._buffer += data

    def _wait(self, event: int, until: float) -> None:
        """Until that is possible; TimeoutError. Not by the socket's own timeout: setting one is forbidden by then."""
        left = until - time.monotonic()
        waiting = select.poll()
        waiting.register(self._socket, event)
        if left <= 0 or not waiting.poll(left * 1000):
            raise TimeoutError

    def _close(self, why: str) -> _GoneError:
        """Speak no more; an error to raise."""
        self._gone = self._gone or why
        self._socket.close()
        return _GoneError(self._gone)


class Client:
    """The session as a scan uses it: it opens it, keeps it open, and gets a name, nothing, or an OSError."""

    def __init__(self, clamd: Clamd, *, largest: int = LARGEST) -> None:
        """`largest`: bytes of a file that the daemon looks into."""
        self._clamd = clamd
        self._largest = largest
        self.version = clamd.begin()
        """As the daemon tells it; empty if it does not answer: then no file gets an answer either."""
        name = f"{self.version} {largest}".encode() if self.version else os.urandom(16)
        self.key = hashlib.blake2b(name, digest_size=16).digest()
        """Names the engine, its data and its bound: what is clean under one of these is not under the next."""
        self._keeper = threading.Lock()
        self._kept = False

    def scan(self, file: int, *, within: float = 60.0) -> str | None:
        """What is in the open file, None for nothing. OSError if there was no answer."""
        self._keep_open()
        if os.fstat(file).st_size > self._largest:
            raise OSError(f"not looked into: larger than its MaxFileSize of {self._largest} bytes")
        answer = self._clamd.scan(file, within=within)
        if answer.verdict is Verdict.ERROR:
            raise OSError(answer.text)
        return answer.text if answer.verdict is Verdict.FOUND else None

    def _keep_open(self) -> None:
        """In a thread that begins with the first file: one that began earlier would not be confined."""
        with self._keeper:
            if not self._kept:
                self._kept = True
                threading.Thread(target=self._keep, name="clamd", daemon=True).start()

    def _keep(self) -> None:
        while not self._clamd.gone:
            time.sleep(KEEP_EVERY)
            self._clamd.keep()


def client(descriptor: int) -> Client:
    """Open a session over this connected socket, which belongs to the client from now on.

    Reads the daemon's configuration, so not after the process has confined itself.
    """
    return Client(Clamd(descriptor), largest=largest())


def largest(configs: Sequence[str] = CONFIGS) -> int:
    """Bytes of a file that the daemon looks into, as the first configuration that can be read has it.

    Of a larger one it says that it is clean, without a look at it, unless `AlertExceedsMax` is on.
    """
    for config in configs:
        with suppress(OSError), open(config, "rb", opener=_at_once) as file:
            found = _SETTING.findall(file.read(MAX_CONFIG))
            if not found:
                return LARGEST
            size = int(found[-1][0]) * _UNITS[found[-1][1].lower()]
            return min(size or MOST, MOST)  # 0 means no bound
    return LARGEST


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _verdict(text: str) -> Answer:
    if text == "OK":
        return Answer(Verdict.CLEAN)
    if text.endswith(" FOUND"):
        name = _shown(_MORE.sub("", text.removesuffix(" FOUND").strip()))
        if name.startswith(_NO_MALWARE):
            return Answer(Verdict.ERROR, f"not looked into: {name}")
        return Answer(Verdict.FOUND, name or "unnamed")
    return Answer(Verdict.ERROR, _shown(text.removesuffix(" ERROR")) or "an empty answer")


def _shown(text: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text[:MAX_NAME])
