"""What was last listed of our tables, for as long as the kernel says that nothing has changed since.

The kernel counts the transactions of nf_tables: while the count stands, and the chains are there that were there (they
go with their devices, without a transaction), a listing of thousands of elements would say the same once more, but for
the time that is left. Whatever is in doubt is listed.
"""

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from stanch.agent.host.listing import Listed
from stanch.agent.host.netlink import attributes
from stanch.agent.host.owner import Looking, look
from stanch.agent.host.tablespec import Family, Parts
from stanch.core.errors import StanchError
from stanch.core.types import seconds

SETTLED = 2.0
"""Seconds for which the count must have stood before a listing counts: it is raised before a transaction is visible."""

LEAST = seconds(3)
"""When less time than this is left, the kernel is asked."""

_GET_GENERATION = 10 << 8 | 16
_GENERATION = 1

State = tuple[int, frozenset[tuple[tuple[Family, str], int, Parts]]]
Tables = tuple[Listed | None, Listed | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    tables: Tables
    at: float


def state_of(name: str, looking: Looking) -> State | None:
    """What must not have changed; None if the kernel does not tell."""
    try:
        with looking.opened() as netlink:
            payload = netlink.ask(_GET_GENERATION, bytes(4))
        raw = attributes(payload[4:]).get(_GENERATION, b"")
        there = look([name], looking)
        (number,) = struct.unpack(">I", raw)
    except (OSError, StanchError, struct.error):
        return None
    return number, frozenset((key, one.owner, one.parts) for key, one in there.items())


class Remembered:
    """The last listing of the tables of one name."""

    def __init__(
        self,
        state: Callable[[], State | None],
        *,
        port: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,  # as the kernel counts: not while the machine sleeps
    ) -> None:
        self._state = state
        self._port = port
        self._clock = clock
        self._seen: State | None = None
        self._since = 0.0
        self._kept: _Kept | None = None

    def get(self) -> Tables | None:
        """What a listing would say now; None if it has to be made. Then `keep` what it says."""
        now = self._state()
        if now != self._seen or now is None:
            self._seen, self._since, self._kept = now, self._clock(), None
        if now is not None and not now[1]:
            return (None, None)  # there is no table of ours at all
        return None if self._kept is None else _aged(self._kept.tables, self._clock() - self._kept.at)

    def keep(self, tables: Tables, *, began: float) -> None:
        """Remember a listing that was begun at that time of the clock, if it is sure that nothing changed meanwhile."""
        settled = began - self._since >= SETTLED or self._is_ours()
        if self._seen is not None and settled and self._state() == self._seen:
            self._kept = _Kept(tables=tables, at=began)

    def _is_ours(self) -> bool:
        """Do we own all of it, so that nobody else's transaction can be on its way?"""
        port = self._port()
        return port != 0 and self._seen is not None and all(owner == port for _key, owner, _parts in self._seen[1])

    def now(self) -> float:
        """The time of the clock."""
        return self._clock()


def _aged(tables: Sequence[Listed | None], passed: float) -> Tables | None:
    inet, netdev = (_older(one, timedelta(seconds=passed)) for one in tables)
    soon = any(one is not None and one.remaining is not None and one.remaining < LEAST for one in (inet, netdev))
    return None if soon else (inet, netdev)


def _older(one: Listed | None, passed: timedelta) -> Listed | None:
    return one if one is None or one.remaining is None else replace(one, remaining=one.remaining - passed)
