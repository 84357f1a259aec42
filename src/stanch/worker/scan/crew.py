"""Who does a scan: one thread walks, some processes look, or threads where those cannot be, and one watches them.

Whoever is kept waiting by a file system cannot be ended: he is given up, named and counted, and a thread takes his
place with the rest of his work. Between two objects each passes a gate, which is shut while the scan is paused.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from stanch.core.scan_wire import AT_SLOT, AT_SLOTS
from stanch.worker.scan.batches import Batches
from stanch.worker.scan.telling import EVERY, Telling
from stanch.worker.scan.walking import Batch, Folder, Place, Walker

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

    def flush(self) -> None:
        """What was learned is to outlive us."""
        ...


class Reported(Protocol):
    """What came of some files, as `hands.Reported`."""

    @property
    def done(self) -> int:
        """So many of the names are done; the others are for somebody else."""
        ...


class Process(Protocol):
    """Another process that looks at files, as `hands.Hand`."""

    def look(self, place: Place, names: Sequence[bytes], /) -> Reported:
        """At these, or the first of them."""
        ...

    def at(self) -> tuple[float, int | None] | None:
        """Since when it is at which of the names; None for the name before it has begun."""
        ...

    def end(self) -> None:
        """No more names come."""
        ...


Take = Callable[[Any], None]
"""Tells what a process reported."""


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
    """One thread that looks, or has a process look."""

    def __init__(self, slot: int, process: Process | None = None) -> None:
        self.slot = slot
        self.process = process
        self.given_up = False
        self._busy: tuple[float, bytes] | None = None
        self._batch: tuple[Place, Sequence[bytes]] | None = None

    def take(self, place: Place, names: Sequence[bytes]) -> None:
        """It is to look at these."""
        self._batch = (place, names)

    def turn(self, path: bytes | None) -> None:
        """It is at this file, or at none for the moment."""
        self._busy = None if path is None else (time.monotonic(), path)

    def alive(self) -> None:
        """It got on."""
        busy = self._busy
        if busy is not None:
            self._busy = (time.monotonic(), busy[1])

    def rest(self) -> None:
        """It is at nothing."""
        self._busy = self._batch = None

    @property
    def busy(self) -> tuple[float, bytes] | None:
        """Since when it is at which file; no name if that is not sure: a process that has not even begun."""
        batch, at = self._batch, None if self.process is None else self.process.at()
        if batch is None or at is None:
            return self._busy
        place, names = batch
        if at[1] is None and isinstance(place, Folder):
            return at[0], b""
        return at[0], place.of(names[min(at[1] or 0, len(names) - 1)])

    def leave(self, path: bytes) -> Batch | None:
        """It hangs over this one: what others must do in its place.

        What a process has not reported is done again, from the first of its names: it reports all at once.
        """
        self.given_up = True
        if self._batch is None:
            return None
        place, names = self._batch
        paths = [place.of(name) for name in names]
        left = names if self.process is not None else names[paths.index(path) :]
        return place, [name for name in left if place.of(name) != path]


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
        walking: float | None = None,
        processes: Sequence[Process] = (),
        take: Take = lambda _: None,
    ) -> None:
        """`patience`: seconds for one object; `walking`: for a folder, if that is less.

        `processes` look in place of threads; `take` tells what they report.
        """
        self._threads = threads
        self._batches = Batches(WAITING)
        self._walker = walker(self._put)
        self._looker = looker
        self._telling = telling
        self._gate = gate
        self._slots = slots
        self._patience = patience
        self._walking_patience = patience if walking is None else walking
        self._processes = processes
        self._take = take
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
        for process in self._processes:
            self._hire(process)
        for _ in range(0 if self._processes else self._threads):
            self._hire()

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
            self._batches.close()

    def _put(self, batch: Batch) -> None:
        while not self._telling.stop.is_set() and not self._batches.put(batch, within=1):
            continue

    # --- looking -----------------------------------------------------------------------------------------------------

    def _hire(self, process: Process | None = None) -> None:
        with self._lock:
            hand = _Hand(self._next_slot, process)
            self._next_slot += 1
            self._hands.append(hand)
        self._thread(lambda: self._work(hand))

    def _work(self, hand: _Hand) -> None:
        looks = self._looks_itself(hand) if hand.process is None else partial(self._has_looked, hand, hand.process)
        while not self._telling.stop.is_set() and (batch := self._batches.take()) is not None:
            hand.take(*batch)
            done = looks(*batch)
            place, names = batch
            del batch
            if not self._finished(hand, (place, names[done:]) if done < len(names) else None):
                return  # another one does it in its place
            del place  # a folder is closed with the last that knows it
        if hand.process is not None:
            hand.process.end()
        self._leave(hand)

    def _looks_itself(self, hand: _Hand) -> Callable[[Place, Sequence[bytes]], int]:
        looker = self._looker(hand.alive)

        def look(place: Place, names: Sequence[bytes]) -> int:
            for name in names:
                if not hand.given_up and not self._telling.stop.is_set():
                    self._one(hand, looker, place, name)
            return len(names)

        return look

    def _one(self, hand: _Hand, looker: Looks, place: Place, name: bytes) -> None:
        self._gate.through()
        path = place.of(name)
        if not self._turned(hand, path):
            return
        self._slots.at(hand.slot, path)
        try:
            looker.look(place, name)
        except MemoryError:  # another thread may have just taken all that there is
            self._telling.skip(path, "other", "there was no memory for it")
        if self._turned(hand, None):  # whoever waits while the scan is paused does not hang
            self._slots.at(hand.slot, b"")

    def _turned(self, hand: _Hand, path: bytes | None) -> bool:
        """It is at this file now, or at none for the moment; False if it was given up."""
        with self._lock:
            if not hand.given_up:
                hand.turn(path)
            return not hand.given_up

    def _has_looked(self, hand: _Hand, process: Process, place: Place, names: Sequence[bytes]) -> int:
        self._gate.through()
        report = process.look(place, names)
        with self._lock:
            if hand.given_up:
                return len(names)
            hand.rest()
        self._take(report)
        return report.done

    def _finished(self, hand: _Hand, rest: Batch | None) -> bool:
        """It has done its batch, or this is left of it; False if it was given up meanwhile."""
        with self._lock:
            if hand.given_up:
                return False
            hand.rest()
        self._batches.finished(rest)
        return True

    def _leave(self, hand: _Hand) -> None:
        with self._lock:
            if hand in self._hands:
                self._hands.remove(hand)
            if not self._hands:
                self._done.set()

    # --- watching ----------------------------------------------------------------------------------------------------

    def _at(self) -> bytes:
        return next((busy[1] for hand in self._hands if (busy := hand.busy) is not None), b"")

    def _watch(self) -> None:
        now = time.monotonic()
        late, lost = now - self._patience, now - self._walking_patience
        for hand in list(self._hands):
            busy = hand.busy
            if busy is not None and busy[0] < late:
                self._give_up(hand, busy)
        busy = self._walker.hangs_since()
        if self._walking and busy is not None and busy[0] < lost and self._walker.give_up(busy[0]):
            self.hangs(busy[1])
            self._thread(self._walk)

    def _give_up(self, hand: _Hand, busy: tuple[float, bytes]) -> None:
        path = busy[1]
        with self._lock:
            if hand not in self._hands or hand.busy != busy:
                return  # it got on in this very moment
            rest = hand.leave(path)
            self._hands.remove(hand)
        self.hangs(path)
        self._batches.finished(rest if rest is not None and rest[1] else None)
        self._hire()

    def hangs(self, path: bytes | str) -> None:
        """One more thread is given up over this; over nothing that is known if it is empty."""
        self._hung += 1
        if path:
            self._telling.skip(path, "hangs")
        self._telling.missing(f"{'a file system' if path else 'a process that looks at files'} does not answer")
        if self._hung >= MAX_HUNG:
            self._telling.end("file systems do not answer")
