"""The threads of a scan: one walks, some look, and one watches that none of them hangs.

A thread that a file system keeps waiting cannot be ended: it is given up, named and counted, and another takes its
place with the rest of its work. Between two objects each thread passes a gate, which is shut while the scan is paused.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from stanch.core.scan_wire import AT_SLOT, AT_SLOTS
from stanch.worker.scan.telling import EVERY, Telling
from stanch.worker.scan.walking import Batch, Place, Walker

WAITING: Final = 64
"""Batches that wait to be looked at."""
MAX_HUNG: Final = 16
"""Threads that hang, at most: then the scan ends."""
HANGS: Final = 30.0
"""Seconds without any progress after which a thread is given up, besides the time that an object may take."""


class Looks(Protocol):
    """Looks at a file, as `looking.Looker`."""

    def look(self, folder: Place, name: bytes, /) -> None:
        """At one file."""
        ...


class Gate:
    """Open, or shut while the scan is paused."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._since: float | None = None
        self._waited = 0.0

    @property
    def shut(self) -> bool:
        """Does it wait?"""
        return not self._open.is_set()

    def pause(self) -> None:
        """Shut it."""
        if self._since is None:
            self._since = time.monotonic()
        self._open.clear()

    def resume(self) -> None:
        """Open it."""
        if self._since is not None:
            self._waited += time.monotonic() - self._since
            self._since = None
        self._open.set()

    def through(self) -> None:
        """Wait until it is open."""
        if not self._open.is_set():
            self._open.wait()

    def waited(self) -> float:
        """Seconds for which it was shut, so far."""
        since = self._since
        return self._waited + (0.0 if since is None else time.monotonic() - since)


class Slots:
    """Tells the agent what each thread is at: in shared memory, or by messages where there is none."""

    def __init__(self, memory: "memoryview | None", send: Callable[[Sequence[str]], None]) -> None:
        self._memory = memory
        self._send = send
        self._names: dict[int, str] = {}

    def at(self, slot: int, name: bytes) -> None:
        """This thread is about to look at it; nothing for none."""
        if self._memory is not None:
            if slot < AT_SLOTS:
                name = name[: AT_SLOT - 2]
                begin = slot * AT_SLOT
                self._memory[begin : begin + 2] = b"\0\0"
                self._memory[begin + 2 : begin + 2 + len(name)] = name
                self._memory[begin : begin + 2] = len(name).to_bytes(2, "little")
        elif name:
            self._names[slot] = name.decode("utf-8", "surrogateescape")
            self._send(list(self._names.values()))


class _Hand:
    """One thread that looks."""

    def __init__(self, slot: int, rest: deque[tuple[Place, bytes]]) -> None:
        self.slot = slot
        self.rest = rest
        self.busy: tuple[float, bytes] | None = None
        self.given_up = False

    def alive(self) -> None:
        """It got on."""
        busy = self.busy
        if busy is not None:
            self.busy = (time.monotonic(), busy[1])


class Crew:
    """All of them. `start`, then `wait` until everything was looked at or the scan is to stop."""

    def __init__(
        self,
        *,
        threads: int,
        walker: Callable[[Callable[[Batch], None]], Walker],
        looker: Callable[[Callable[[], None]], Looks],
        telling: Telling,
        gate: Gate,
        slots: Slots,
        patience: float,
    ) -> None:
        self._threads = threads
        self._batches: queue.Queue[Batch | None] = queue.Queue(WAITING)
        self._walker = walker(self._put)
        self._looker = looker
        self._telling = telling
        self._gate = gate
        self._slots = slots
        self._patience = patience
        self._hands: list[_Hand] = []
        self._hung = 0
        self._next_slot = 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._walking = True

    @property
    def walker(self) -> Walker:
        """Whom to tell what is to be looked at."""
        return self._walker

    def start(self) -> None:
        """Begin."""
        self._thread(self._walk)
        for _ in range(self._threads):
            self._hire(deque())

    def wait(self) -> None:
        """Until all is done; in the meantime, watch, and tell how far it is."""
        while not self._done.wait(EVERY) and not self._telling.stop.is_set():
            self._watch()
            self._telling.advance(paused=self._gate.shut, at=self._at())

    def _thread(self, work: Callable[[], None]) -> None:
        threading.Thread(target=self.guarded, args=(work,), daemon=True).start()

    def guarded(self, work: Callable[[], None]) -> None:
        """Do this: a defect of ours ends the scan, and says so; it is not to look like a clean one."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._telling.end(f"the scanner failed: {type(error).__name__}: {error}"[:500])

    # --- walking -----------------------------------------------------------------------------------------------------

    def _walk(self) -> None:
        if self._walker.run(self._telling.stop):
            self._walking = False
            self._telling.total = self._walker.found
            for _ in range(self._threads):
                self._batches.put(None)

    def _put(self, batch: Batch) -> None:
        while not self._telling.stop.is_set():
            try:
                self._batches.put(batch, timeout=1)
            except queue.Full:
                continue
            return

    # --- looking -----------------------------------------------------------------------------------------------------

    def _hire(self, rest: deque[tuple[Place, bytes]]) -> None:
        with self._lock:
            hand = _Hand(self._next_slot, rest)
            self._next_slot += 1
            self._hands.append(hand)
        self._thread(lambda: self._work(hand))

    def _work(self, hand: _Hand) -> None:
        looker = self._looker(hand.alive)
        while not hand.given_up and not self._telling.stop.is_set():
            if not hand.rest:
                batch = self._batches.get()
                if batch is None:
                    break
                hand.rest.extend((batch[0], name) for name in batch[1])
                del batch
            self._one(hand, looker)
        if not hand.given_up:
            self._leave(hand)

    def _one(self, hand: _Hand, looker: Looks) -> None:
        self._gate.through()
        folder, name = hand.rest.popleft()
        path = folder.of(name)
        hand.busy = (time.monotonic(), path)
        self._slots.at(hand.slot, path)
        looker.look(folder, name)
        if not hand.given_up:
            self._slots.at(hand.slot, b"")
            hand.busy = None

    def _leave(self, hand: _Hand) -> None:
        with self._lock:
            self._hands.remove(hand)
            if not self._hands:
                self._done.set()

    # --- watching ----------------------------------------------------------------------------------------------------

    def _at(self) -> bytes:
        return next((busy[1] for hand in self._hands if (busy := hand.busy) is not None), b"")

    def _watch(self) -> None:
        late = time.monotonic() - self._patience
        for hand in list(self._hands):
            busy = hand.busy
            if busy is not None and busy[0] < late:
                self._give_up(hand, busy[1])
        busy = self._walker.hangs_since()
        if self._walking and busy is not None and busy[0] < late and self._walker.give_up(busy[0]):
            self.hangs(busy[1])
            self._thread(self._walk)

    def _give_up(self, hand: _Hand, path: bytes) -> None:
        hand.given_up = True
        rest, hand.rest = hand.rest, deque()
        with self._lock:
            self._hands.remove(hand)
        self.hangs(path)
        self._hire(rest)

    def hangs(self, path: bytes | str) -> None:
        """One more thread is given up over this."""
        self._hung += 1
        self._telling.skip(path, "hangs")
        self._telling.missing("a file system does not answer")
        if self._hung >= MAX_HUNG:
            self._telling.end("file systems do not answer")
