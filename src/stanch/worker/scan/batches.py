"""Files that wait to be looked at, in batches; whoever took one may give back what he did not come to."""

import threading
from collections import deque

from stanch.worker.scan.walking import Batch


class Batches:
    """At most so many that wait; any thread may put and take."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Batch] = deque()
        self._taken = 0
        self._idle = 0
        """Threads that wait for one."""
        self._closed = False
        self._changed = threading.Condition()

    def put(self, batch: Batch, *, within: float) -> bool:
        """Add one; False if there was no room for it for so many seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiting) < self._most, within):
                return False
            self._waiting.append(batch)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """No new ones come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> Batch | None:
        """The next one, to be `finished`; None if there are no more. Waits until that is sure.

        The last one is divided with whoever waits, too.
        """
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or (self._closed and not self._taken))
            self._idle -= 1
            if not self._waiting:
                return None
            self._taken += 1
            place, names = self._waiting.popleft()
            half = (len(names) + 1) // 2
            if self._idle and not self._waiting and half < len(names):
                self._waiting.append((place, names[half:]))
                names = names[:half]
            self._changed.notify_all()
            return place, names

    def finished(self, rest: Batch | None = None) -> None:
        """One that was taken is done; of it, this is for somebody else."""
        with self._changed:
            self._taken -= 1
            if rest is not None:
                self._waiting.appendleft(rest)
            self._changed.notify_all()
