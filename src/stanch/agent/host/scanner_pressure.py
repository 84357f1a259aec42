"""Step back while others wait: what Linux says of pressure (PSI), and when a scan waits because of it.

PSI says how much of the time somebody waited for processor, disk or memory; it does not say who. A scan alone on a slow
disk makes pressure by itself. So it tries: when the pressure is high, it pauses and looks again. If the pressure goes
on without it, others wait, and it stays back until they do not. If it is gone, it was the scan's own: it goes on, and
does not try again so soon. Each pause is bounded, and followed by work for at least as long; and all pauses together
are bounded by the work before them: a scan takes at most twice its time, whatever the others do. One that has hardly
done anything yet does not wait at all: four files disturb nobody, and whoever waits for them is somebody, too.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

PRESSURE: Final = Path("/proc/pressure")
HIGH: Final[Mapping[str, float]] = {"cpu": 0.6, "io": 0.5, "memory": 0.1}
"""Share of the time in which somebody waited, above which the scan tries a pause."""
LEAST: Final = 0.9
"""Seconds between two looks that are compared: in less, nothing can be told."""
LOW: Final = 0.5
"""Of that share: below, nobody waits any more."""
LOOK: Final = 2.0
"""Seconds of a pause after which it can be told who made the pressure."""
LONGEST: Final = 60.0
"""Seconds of one pause."""
SHORT: Final = 3.0
"""Seconds that it may wait besides as long as it has worked: a try, and a look."""
LITTLE_PROCESSOR, LITTLE_BYTES, LITTLE_TIME = 0.3, 8 * 2**20, 5.0
"""Seconds of the processor, bytes that were read, and seconds of work, up to which it has hardly done anything."""
FIRST_REST, LONGEST_REST = 30.0, 480.0
"""Seconds without another try, after the pressure was the scan's own; doubled each time."""

_TICKS: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of one."""
_USER_TIME, _CHILDREN_SYSTEM_TIME = 11, 14
"""Fields of /proc/PID/stat behind the name, from the first time to the last."""
_MAX_FORKED: Final = 32
"""Processes of a worker that are counted."""
_TOTAL = re.compile(rb"^some .*\btotal=(\d{1,19})$", re.MULTILINE)
_MICROSECONDS = 1e6
_MAX_BYTES = 4096

Totals = Mapping[str, int]
"""Resource to microseconds since boot in which somebody waited."""


def read_totals(folder: Path = PRESSURE) -> Totals:
    """What the kernel says; nothing where it has no PSI. Blocks, shortly."""
    found = {}
    for resource in HIGH:
        total = _TOTAL.search(_read(folder / resource))
        if total is not None:
            found[resource] = int(total[1])
    return found


def processor_time(pid: int, proc: Path = Path("/proc")) -> float:
    """Seconds of the processor that a worker and those that it has forked have used; 0 of whoever is gone. Blocks."""
    found, asked = [pid], 0
    used = 0.0
    while found and asked < _MAX_FORKED:
        one, asked = found.pop(), asked + 1
        times = _read(proc / str(one) / "stat").rpartition(b")")[2].split()[_USER_TIME : _CHILDREN_SYSTEM_TIME + 1]
        used += sum(map(int, filter(bytes.isdigit, times))) * _TICKS
        found += map(int, _read(proc / str(one) / "task" / str(one) / "children").split())
    return used


def _read(path: Path) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, _MAX_BYTES)
    except OSError:  # PSI that is compiled in and switched off
        return b""
    finally:
        os.close(file)


class State(Enum):
    """What the scan does."""

    WORKS = "works"
    TRIES = "tries"
    """Paused, to see whether the pressure goes on."""
    WAITS = "waits"
    """Paused, as it does go on."""


@dataclass
class Patient:
    """When to wait. `tell` it the time (monotonic seconds) and the totals every second or so."""

    state: State = State.WORKS
    pauses: int = 0
    waited: float = 0.0
    """Seconds, all pauses together."""
    worked: float = 0.0
    """Seconds, without them."""
    why: set[str] = field(default_factory=set)
    """Resources for which others waited."""
    _since: float | None = None
    """When the state began."""
    _before: tuple[float, Totals] | None = None
    _at_pause: tuple[float, Totals] | None = None
    _resource: str = ""
    _rest: float = FIRST_REST
    _not_before: float = 0.0

    @property
    def resource(self) -> str:
        """What others wait for, or have waited for last."""
        return self._resource

    @property
    def paused(self) -> bool:
        """Should the scan wait now?"""
        return self.state is not State.WORKS

    def forget(self) -> None:
        """The scan has waited for another reason: what was measured before says nothing of now."""
        self._before = None
        if self.paused:
            self.state = State.WORKS

    def has_done_little(self, processor: float, bytes_read: int) -> bool:
        """Has it hardly done anything, if it has used so many seconds of the processor, and read so much?"""
        return processor < LITTLE_PROCESSOR and bytes_read < LITTLE_BYTES and self.worked < LITTLE_TIME

    def tell(self, now: float, totals: Totals, *, little: bool = False) -> bool:
        """What is so now; `paused` afterwards. `little`: it has hardly done anything, and tries no pause."""
        before = self._before
        if before is not None and now - before[0] < LEAST:
            return self.paused
        shares = self._shares(before, now, totals)
        self._before = (now, totals)
        self._count(max(0.0, now - before[0]) if before is not None else 0.0)
        if self._since is None:
            self._since = now
        match self.state:
            case State.WORKS:
                if not little:
                    self._work(now, totals, shares)
            case State.TRIES:
                self._try(now, totals)
            case State.WAITS:
                self._wait(now, shares)
        return self.paused

    def _count(self, seconds: float) -> None:
        if self.paused:
            self.waited += seconds
        else:
            self.worked += seconds

    def _work(self, now: float, totals: Totals, shares: Mapping[str, float]) -> None:
        if now < self._not_before:
            return
        high = next((one for one, share in shares.items() if share > HIGH[one]), None)
        if high is not None:
            self._resource, self._at_pause = high, (now, totals)
            self.pauses += 1
            self._become(State.TRIES, now)

    def _try(self, now: float, totals: Totals) -> None:
        if now - (self._since or now) < LOOK:
            return
        share = self._shares(self._at_pause, now, totals).get(self._resource, 0.0)
        if share > HIGH[self._resource] * LOW:
            self.why.add(self._resource)
            self._rest = FIRST_REST
            self._become(State.WAITS, now)
        else:
            self._not_before, self._rest = now + self._rest, min(self._rest * 2, LONGEST_REST)
            self._become(State.WORKS, now)

    def _wait(self, now: float, shares: Mapping[str, float]) -> None:
        lasted = now - (self._since or now)
        enough = lasted >= LONGEST or self.waited >= self.worked + SHORT
        if enough or shares.get(self._resource, 0.0) < HIGH[self._resource] * LOW:
            self._not_before = now + lasted + LOOK  # as long as it has waited
            self._become(State.WORKS, now)

    def _become(self, state: State, now: float) -> None:
        self.state, self._since = state, now

    @staticmethod
    def _shares(before: tuple[float, Totals] | None, now: float, totals: Totals) -> Mapping[str, float]:
        """Share of the time since then in which somebody waited, for each resource."""
        if before is None or now <= before[0]:
            return {}
        then, old = before
        took = (now - then) * _MICROSECONDS
        return {one: max(0.0, totals[one] - old[one]) / took for one in HIGH if one in totals and one in old}
