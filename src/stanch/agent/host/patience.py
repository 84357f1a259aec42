"""Does one thing after another that may hang for ever, and goes on without those that do.

To read of a process means to wait for it: for the lock of its memory, which a process in the D state may hold for good,
or for its program's file on a server that is gone. Such a call cannot be broken off. It gets a thread that nobody waits
for, at exit neither; whatever hangs already is not asked again, so that threads do not pile up.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stanch.core.errors import ActionFailed

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_HANGING = 16
"""Threads that may hang at a time; when there are more, nothing new is begun."""

_LOOKS = 4
"""How often the time of patience is looked at while it passes."""


Do = Callable[[K, Callable[[], None]], V]
"""What is done for a key; it may give a sign of life through the second."""


class _Nothing:
    """No key is left."""


_NOTHING = _Nothing()


@dataclass(frozen=True, slots=True)
class Done(Generic[K, V]):
    """What came of it."""

    values: dict[K, V] = field(default_factory=dict)
    hanging: list[K] = field(default_factory=list)
    """Those that were given up, or not begun because they hang from before."""
    skipped: list[K] = field(default_factory=list)
    """Those that were not begun because too many others hang."""


class Patience(Generic[K]):
    """How long each may take, in seconds since it last gave a sign; and what hangs now."""

    def __init__(self, name: str, *, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._hanging: dict[K, threading.Thread] = {}
        self._lock = threading.Lock()

    def each(
        self,
        keys: Iterable[K],
        do: Do[K, V],
        *,
        stop: threading.Event,
        at_once: int = 1,
        told: Callable[[int], None] = lambda _done: None,
    ) -> Done[K, V]:
        """Do it for each key, until all are done or `stop` is set. Blocks; raises what one of them raised.

        `told` hears now and then, in this thread, how many are done.
        """
        hanging = self._alive()
        wanted = list(dict.fromkeys(keys))
        done: Done[K, V] = Done(hanging=[key for key in wanted if key in hanging])
        work = _Round((key for key in wanted if key not in hanging), do, done, stop)
        for _ in range(at_once):
            work.start(self._name)
        while not work.over.wait(self._seconds / _LOOKS):
            for thread, key in work.give_up(self._seconds):
                self._remember(thread, key)
                if len(self._alive()) >= MOST_HANGING:
                    work.leave_the_rest()
                work.start(self._name)
            told(work.count)
        if work.failed is not None:
            raise work.failed
        told(work.count)
        return done

    def _remember(self, thread: threading.Thread, key: K) -> None:
        with self._lock:
            self._hanging[key] = thread

    def _alive(self) -> frozenset[K]:
        """What hangs now."""
        with self._lock:
            self._hanging = {key: thread for key, thread in self._hanging.items() if thread.is_alive()}
            return frozenset(self._hanging)


class _Round(Generic[K, V]):
    """One call of `each`: the threads that work on it, and how far they are."""

    def __init__(self, keys: Iterator[K], do: Do[K, V], done: Done[K, V], stop: threading.Event) -> None:
        self._left = keys
        self._do = do
        self._done = done
        self._stop = stop
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        """Those that count: not the ones that were given up."""
        self._busy: dict[threading.Thread, tuple[K, float]] = {}
        """What each works on, and when it gave a sign last."""
        self.failed: Exception | None = None
        self.over = threading.Event()

    @property
    def count(self) -> int:
        return len(self._done.values)

    def start(self, name: str) -> None:
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the machine, or the agent's control group, has no thread to give
            self.failed = ActionFailed("A thread could not be started", got=str(error), hint="Is there a pids limit?")
            self._leave(thread)

    def give_up(self, seconds: float) -> list[tuple[threading.Thread, K]]:
        """Those that gave no sign for so long, and what they hang at: nobody waits for them any more."""
        now = time.monotonic()
        with self._lock:
            late = [(thread, key) for thread, (key, since) in self._busy.items() if now - since > seconds]
            for thread, key in late:
                del self._busy[thread]
                self._threads.discard(thread)
                self._done.hanging.append(key)
        return late

    def leave_the_rest(self) -> None:
        with self._lock:
            self._done.skipped.extend(self._left)

    def _work(self) -> None:
        me = threading.current_thread()
        while not isinstance(key := self._begin(me), _Nothing):
            try:
                value = self._do(key, lambda: self._sign(me))
            except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
                self._fail(me, error)
                break
            if not self._finish(me, key, value):
                return
        self._leave(me)

    def _begin(self, me: threading.Thread) -> "K | _Nothing":
        with self._lock:
            if self._stop.is_set() or self.failed is not None:
                return _NOTHING
            for key in self._left:
                self._busy[me] = (key, time.monotonic())
                return key
        return _NOTHING

    def _sign(self, me: threading.Thread) -> None:
        with self._lock:
            if me in self._busy:
                self._busy[me] = (self._busy[me][0], time.monotonic())

    def _finish(self, me: threading.Thread, key: K, value: V) -> bool:
        """False if it was given up meanwhile: its answer is not wanted any more."""
        with self._lock:
            if self._busy.pop(me, None) is None:
                return False
            self._done.values[key] = value
            return True

    def _fail(self, me: threading.Thread, error: Exception) -> None:
        with self._lock:
            if self._busy.pop(me, None) is not None:
                self.failed = error

    def _leave(self, me: threading.Thread) -> None:
        with self._lock:
            self._threads.discard(me)
            if not self._threads:
                self.over.set()
