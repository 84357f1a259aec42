"""Processes that look at files for the worker: Python runs one thread at a time, whatever threads there are.

Two threads that hash small files are slower than one (measured: they hand the interpreter to and fro some ten times for
each file); two processes are twice as fast. So each *hand* is a fork of the worker, confined as it is. They are forked
before any thread is there. The first one waits, as it is, until the first files come; then it makes ready what takes
long (rules are compiled once, and only if a file must be searched) and forks the others, which share its memory.

The worker sends a hand some names and their open folder, and hears in reports what came of them. What takes over a hand
has all that would take over the worker, and no more. A hand that dies takes the worker with it: the agent then leaves
out what it was at.
"""

import fcntl
import gc
import json
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from stanch.core.ioc.items import Item
from stanch.worker.confinement import die_with_parent
from stanch.worker.scan.crew import Looks, Slots
from stanch.worker.scan.engines import Judging
from stanch.worker.scan.mounts import Origin
from stanch.worker.scan.walking import Folder, Given, Place

DIED: Final = 70
"""Exit status of a worker of which a hand died; of a signal, 128 and its number instead, as a shell has it."""
PAUSED_LOOK: Final = 0.02
"""Seconds between two looks whether the scan is still paused."""
MOST: Final = 200
"""Events and items that are reported together."""
MOST_BYTES: Final = 2**20
"""Of what is reported together; one find or item may be larger."""
TURN: Final = 0.05
"""Seconds after which a hand reports, and leaves the rest to whoever is free: at the end none is to work on alone."""
PREPARING: Final = 600.0
"""Seconds that the first hand may take to make ready: rules that compile are no file system that does not answer."""
DYING: Final = 2.0
"""Seconds to wait for the end of a hand that has let go of its line."""
_SIZE: Final = struct.Struct("=I")
_PIECE: Final = 2**20
_PAUSED, _READY, _FIRST, _EACH = 0, 1, 2, 2
"""Places on the board: is it paused; before when nobody is late; then for each hand since when it is at something, and
at which of its names (from 1; 0 before it has begun)."""

Skipped = tuple[str, str, str, bool]
"""As `Telling.skip` takes it: a name, the reason, more about that, and whether indicators had it all the same."""


class Report:
    """What came of some files since it was sent last. As `telling.Telling` for whoever looks at them."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.done = self.files = self.remembered = self.bytes = 0
        self.items = Counter[str]()
        self.skips: list[Skipped] = []
        self.findings: list[Mapping[str, Any]] = []
        self.seen: list[Item] = []
        """Items that match, or that can together with others: the worker's judge must have them."""
        self._size = 0

    def looked(self, *, size: int, remembered: bool, skipped: bool = False) -> None:
        """As `Telling.looked`."""
        self.done += 1
        self.files += not skipped
        self.bytes += size
        self.remembered += remembered

    def judged(self, document: str, count: int = 1) -> None:
        """As `Telling.judged`."""
        self.items[document] += count

    def skip(self, name: bytes | str, reason: str, detail: str = "", *, judged: bool = False) -> None:
        """As `Telling.skip`."""
        self.skips.append((os.fsdecode(name), reason, detail, judged))

    def finding(self, finding: Mapping[str, Any]) -> None:
        """As `Telling.finding`."""
        self.findings.append(finding)
        self._size += len(json.dumps(finding))

    def see(self, item: Item) -> None:
        """The worker's judge must have this."""
        self.seen.append(item)
        self._size += sum(len(one) for some in item.values.values() for one in some if isinstance(one, str))

    @property
    def is_full(self) -> bool:
        """Is it time to send it?"""
        return self._size >= MOST_BYTES or len(self.skips) + len(self.findings) + len(self.seen) >= MOST

    def take(self, done: int, error: str = "") -> bytes:
        """Pack it, and begin anew; so many of the names are done."""
        seen = [(one.document, one.name, dict(one.values), dict(one.about)) for one in self.seen]
        numbers = (self.done, self.files, self.remembered, self.bytes)
        data = json.dumps((done, numbers, self.items, self.skips, self.findings, seen, error)).encode("ascii")
        self._begin()
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report, as the worker has it."""

    done: int
    """So many of the names are; the others are for somebody else."""
    numbers: tuple[int, int, int, int]
    """Files that are done, those of them that were looked at, those of them that are remembered; bytes read."""
    items: Mapping[str, int]
    skips: Sequence[Skipped]
    findings: Sequence[Mapping[str, Any]]
    seen: Sequence[Item]
    error: str
    """Why the hand cannot go on; empty for nothing."""


def unpacked(data: bytes) -> Reported:
    """What `Report.take` packed."""
    done, numbers, items, skips, findings, seen, error = json.loads(data)
    again = [
        Item(document=kind, name=name, values={path: tuple(some) for path, some in values.items()}, about=about)
        for kind, name, values, about in seen
    ]
    return Reported(
        done=done, numbers=tuple(numbers), items=items, skips=skips, findings=findings, seen=again, error=error
    )


class Noting:
    """A judge in a hand: the worker's own must hear of whatever can matter together with other things."""

    def __init__(self, judge: Judging, report: Report) -> None:
        self._judge = judge
        self._report = report

    def concerns(self, item: Item) -> bool:
        """As `Judge.concerns`."""
        return self._judge.concerns(item)

    def needs(self, item: Item) -> frozenset[str]:
        """As `Judge.needs`."""
        return self._judge.needs(item)

    def see(self, item: Item) -> Sequence[Any]:
        """As `Judge.see`; whatever is found is told by the worker."""
        if not self._judge.concerns(item):
            return ()
        self._report.see(item)
        return self._judge.see(item)


class Board:
    """Memory that the worker and its hands share: where each is, and whether it is to wait."""

    def __init__(self, hands: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 8 * (_FIRST + _EACH * hands))).cast("Q")

    def pause(self, *, on: bool) -> None:
        """Hands wait before the next file, or do not."""
        self._numbers[_PAUSED] = on

    def paused(self) -> bool:
        """Is it to wait?"""
        return bool(self._numbers[_PAUSED])

    def ready(self, *, within: float = 0.0) -> None:
        """Nobody is late before so many seconds from now."""
        self._numbers[_READY] = time.monotonic_ns() + int(within * 1e9)

    def send(self, hand: int) -> None:
        """It is given names, and has not begun."""
        self._set(hand, 0)

    def begin(self, hand: int, number: int) -> None:
        """It is at this one of its names."""
        self._set(hand, number + 1)

    def _set(self, hand: int, number: int) -> None:
        place = _FIRST + _EACH * hand
        self._numbers[place + 1] = number
        self._numbers[place] = time.monotonic_ns()

    def alive(self, hand: int) -> None:
        """It gets on, if it has something to do."""
        place = _FIRST + _EACH * hand
        if self._numbers[place]:
            self._numbers[place] = time.monotonic_ns()

    def rest(self, hand: int) -> None:
        """It has nothing to do."""
        self._numbers[_FIRST + _EACH * hand] = 0

    def at(self, hand: int) -> tuple[float, int | None] | None:
        """Since when (monotonic) it is at which of its names, None before it began; None if it has none."""
        place = _FIRST + _EACH * hand
        since, number = self._numbers[place], self._numbers[place + 1]
        return (max(since, self._numbers[_READY]) / 1e9, number - 1 if number else None) if since else None


class Hand:
    """One of them, as the worker sees it; for one thread."""

    def __init__(self, number: int, line: socket.socket, board: Board, first: int) -> None:
        self.board = board
        self.number = number
        self._line = line
        self._first = first
        """Process id of the first hand, whose children the others are."""

    def look(self, place: Place, names: Sequence[bytes]) -> Reported:
        """Let it look at these, or as many of them as its turn is long; what came of it. If it dies, so do we."""
        data = json.dumps((_what(place), list(map(os.fsdecode, names)))).encode("ascii")
        self.board.send(self.number)  # here: should it not even begin, that is seen
        try:
            socket.send_fds(self._line, [_SIZE.pack(len(data))], [place.fd])
            self._line.sendall(data)
            report = _received(self._line)
        except OSError:
            report = None
        if report is None:
            self._died()
        self.board.rest(self.number)
        if isinstance(place, Given):
            os.close(place.fd)  # whoever looks at it closes it, and the hand has only closed its own
        return unpacked(report)

    def at(self) -> tuple[float, int | None] | None:
        """As `Board.at`."""
        return self.board.at(self.number)

    def end(self) -> None:
        """No more names come."""
        self._line.close()

    def _died(self) -> NoReturn:
        """The agent sees what we were at, leaves it out, and tells that we ended like this."""
        status = self._status()
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            _complain(f"a process that looks at files was ended by {signal.Signals(number).name}")
            os._exit(128 + number)
        _complain("a process that looks at files has ended")
        os._exit(DIED)

    def _status(self) -> int | None:
        """How the first hand ended; None if it lives, or somebody else has asked before."""
        until = time.monotonic() + (0 if self.number else DYING)
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(self._first, os.WNOHANG)
                if pid or time.monotonic() > until:
                    return status if pid else None
                time.sleep(PAUSED_LOOK)
        return None


def _what(place: Place) -> dict[str, Any]:
    if isinstance(place, Given):
        label, path = os.fsdecode(place.label), os.fsdecode(place.path)
        return {"label": label, "path": path, "pid": place.pid, "started": place.started}
    return {"path": os.fsdecode(place.path), "place": place.place.hex()}


def _place(file: int, what: Mapping[str, Any]) -> Place:
    path = os.fsencode(what["path"])
    if "label" in what:
        return Given(file, os.fsencode(what["label"]), path, what["pid"], what["started"])
    return Folder(file, path, (0, 0), Origin.LOCAL, bytes.fromhex(what["place"]))


def _received(line: socket.socket, head: bytes = b"") -> bytes | None:
    """A message, of which its head may be there; None if no more come."""
    whole = _exactly(line, _SIZE.size, head)
    return None if whole is None else _exactly(line, _SIZE.unpack(whole)[0])


def _exactly(line: socket.socket, size: int, begin: bytes = b"") -> bytes | None:
    """So many bytes. The kernel may hand over fewer, whatever it was asked for: if we were stopped meanwhile."""
    data = bytearray(begin)
    while len(data) < size:
        piece = line.recv(min(size - len(data), _PIECE), socket.MSG_WAITALL)
        if not piece:
            return None
        data += piece
    return bytes(data)


# --- their own side --------------------------------------------------------------------------------------------------

MakesLooker = Callable[[Report, Callable[[], None]], Looks]
"""Makes whoever looks at files: he tells in the report, and calls the other whenever he got on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hiring:
    """The lines to hands that are not there yet. To be made before the worker confines itself."""

    board: Board
    lines: Sequence[tuple[socket.socket, socket.socket]]
    """The worker's end of each, and the hand's."""

    @classmethod
    def of(cls, hands: int) -> "Hiring":
        """For so many. OSError."""
        return cls(board=Board(hands), lines=[socket.socketpair() for _ in range(hands)])

    def fork(
        self, makes_looker: MakesLooker, prepare: Callable[[], None], slots: Slots, seal: Callable[[], None]
    ) -> list[Hand]:
        """The hands; none if no process can be had: then threads must do. The worker may have no thread yet.

        `prepare` is done once, when the first files come; `seal` by each when it needs no more processes.
        """
        gc.freeze()  # whatever is there stays shared: nobody looks through it again
        worker = os.getpid()
        try:
            first = os.fork()
        except OSError:
            for one in (end for line in self.lines for end in line):
                one.close()
            return []
        if first == 0:
            _Staff(self, makes_looker, slots).live(worker, prepare, seal)
        for _, other in self.lines:
            other.close()
        return [Hand(n, line, self.board, first) for n, (line, _) in enumerate(self.lines)]


class _Staff:
    """A hand in its own process; the first one is all of them, until it has forked the others."""

    def __init__(self, hiring: Hiring, makes_looker: MakesLooker, slots: Slots) -> None:
        self._board = hiring.board
        self._slots = slots
        self._lines = {n: other for n, (_, other) in enumerate(hiring.lines)}
        self._theirs = [line for line, _ in hiring.lines]
        self._number = 0
        self._report = Report()
        self._makes_looker = makes_looker

    def live(self, worker: int, prepare: Callable[[], None], seal: Callable[[], None]) -> NoReturn:
        """From the fork to the end of the process."""
        status = DIED
        try:
            _let_go(worker)
            for one in self._theirs:
                one.close()
            self._serve(prepare, seal)
            _wait_for_all()
            status = 0
        except Exception as error:  # noqa: BLE001 - whatever it is: the worker ends with us, and this is why
            _complain(f"{type(error).__name__}: {error}"[:500])
        finally:
            os._exit(status)

    def _serve(self, prepare: Callable[[], None], seal: Callable[[], None]) -> None:
        self._polled().poll()
        self._board.ready(within=PREPARING)
        prepare()
        self._board.ready()
        self._fork_the_others()
        seal()
        looker, poll = self._makes_looker(self._report, self._alive), self._polled()
        while self._lines:
            ready = {file for file, _ in poll.poll()}
            for number, line in [one for one in self._lines.items() if one[1].fileno() in ready]:
                if not self._answer(number, line, looker):
                    poll.unregister(line)
                    self._lines.pop(number).close()

    def _polled(self) -> select.poll:
        poll = select.poll()
        for line in self._lines.values():
            poll.register(line, select.POLLIN)
        return poll

    def _fork_the_others(self) -> None:
        """Each other line goes to a process of its own, or stays here if there can be none.

        Nobody keeps the line of another: the worker hears of the end of a hand by the end of its line.
        """
        gc.freeze()
        here = os.getpid()
        for number in list(self._lines)[1:]:
            try:
                pid = os.fork()
            except OSError:
                continue
            if pid == 0:
                _let_go(here)
                for other in self._lines.keys() - {number}:
                    self._lines.pop(other).close()
                return
            self._lines.pop(number).close()

    def _answer(self, number: int, line: socket.socket, looker: Looks) -> bool:
        """Look at some names; False if no more come."""
        head, files, _, _ = socket.recv_fds(line, _SIZE.size, 1)
        data = _received(line, head)
        if data is None:
            return False
        what, names = json.loads(data)
        self._number = number
        try:
            if len(files) != 1:
                raise OSError("no descriptor is left for a folder")
            self._look(line, looker, _place(files[0], what), list(map(os.fsencode, names)))
        except Exception as error:  # noqa: BLE001 - a defect of ours ends the scan, and says so
            _send(line, self._report.take(len(names), f"{type(error).__name__}: {error}"[:500]))
        return True

    def _look(self, line: socket.socket, looker: Looks, place: Place, names: Sequence[bytes]) -> None:
        number, done, until = self._number, 0, time.monotonic() + TURN
        for n, name in enumerate(names):
            while self._board.paused():
                self._alive()
                time.sleep(PAUSED_LOOK)
            path = place.of(name)
            self._alive()
            self._board.begin(number, n)
            self._slots.at(number, path)
            try:
                looker.look(place, name)
            except MemoryError:  # another file may just have taken all that there is
                self._report.skip(path, "other", "there was no memory for it")
            self._slots.at(number, b"")
            done = n + 1
            if self._report.is_full or time.monotonic() > until:
                break
        looker.flush()
        _send(line, self._report.take(done))

    def _alive(self) -> None:
        """Whoever waits for us, too, is not to be taken for one that hangs."""
        for number in self._lines:
            self._board.alive(number)


def _let_go(parent: int) -> None:
    """End with the parent, and leave to it what it says and hears: whoever waits for its end must not wait for us."""
    die_with_parent()
    if os.getppid() != parent:
        os._exit(DIED)
    for file in (0, 1):
        os.close(file)
        fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 0)  # what modules of the engine print is a complaint


def _wait_for_all() -> None:
    """The others end with whoever forked them, so he is the last to go."""
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _send(line: socket.socket, data: bytes) -> None:
    line.sendall(_SIZE.pack(len(data)) + data)


def _complain(words: str) -> None:
    """The agent keeps the last line of it."""
    with suppress(OSError):
        os.write(2, words.encode("ascii", "backslashreplace") + b"\n")
