"""The agent's time: the newest signed `iat` plus the boot time that has passed since.

The machine's own clock may be wrong, or set by an attacker, so it is never asked. CLOCK_BOOTTIME counts on through
suspend and cannot be set. Across a reboot the time goes on from what was written down last: a lower bound, until the
server signs something newer.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pydantic import Field, ValidationError

from stanch.agent.journal import Journal
from stanch.core.errors import Invalid
from stanch.core.model import LooseModel

ENTRY = "clock"

LATEST = 2**37
"""The year 6325: a later `iat` is a mistake, and would overflow what computes with it."""

EPOCH = datetime.fromtimestamp(0, UTC)


class Anchor(LooseModel):
    """At this boot time of this boot, it was at least this time."""

    time: float = Field(ge=0, le=2 * LATEST)
    """Seconds since 1970."""

    boot_seconds: float = Field(ge=0)
    """CLOCK_BOOTTIME then."""

    boot_id: str
    """Which boot."""


class AgentClock:
    """What time it is, as far as signed envelopes have told."""

    def __init__(self, journal: Journal, boot_seconds: Callable[[], float], boot_id: str) -> None:
        self._journal = journal
        self._anchor = self._of_this_boot(_load(journal), boot_id)
        self.boot_seconds = boot_seconds
        """CLOCK_BOOTTIME: seconds since this boot, suspend included."""
        self.boot_id = boot_id

    def now(self) -> datetime | None:
        """The agent's time; None before the first signed envelope was ever seen."""
        return None if self._anchor is None else datetime.fromtimestamp(self._seconds(self._anchor), UTC)

    def stamp(self) -> datetime:
        """The agent's time to write on something; 1970 where nobody knows it yet."""
        return self.now() or EPOCH

    def observe(self, iat: int, *, fresh: bool = False) -> timedelta:
        """Learn from the `iat` of a verified envelope, and return by how much the time was set (negative: back).

        Args:
            iat: seconds since 1970; Invalid if absurd.
            fresh: the envelope answers our own nonce, so that `iat` is *now*; only such a one may set the time back.
                Any other may be old, held back by somebody, and is but a lower bound.
        """
        if not 0 <= iat <= LATEST:
            raise Invalid("The envelope is from no possible time", got=iat, expected=f"iat from 0 to {LATEST}")
        if self._anchor is None:
            self._set(iat)
            return timedelta(0)
        # `iat` has whole seconds, cut: a difference of less than one says nothing.
        change = iat - self._seconds(self._anchor)
        if change > 0 or (fresh and change <= -1):
            self._set(iat)
            return timedelta(seconds=change)
        return timedelta(0)

    def checkpoint(self) -> None:
        """Write down what time it is, with the next transaction: after a reboot the time goes on from there."""
        if self._anchor is not None:
            self._set(self._seconds(self._anchor))

    def _set(self, time: float) -> None:
        self._anchor = Anchor(time=time, boot_seconds=self.boot_seconds(), boot_id=self.boot_id)
        self._journal.stage(ENTRY, self._anchor.model_dump())

    def _seconds(self, anchor: Anchor) -> float:
        return anchor.time + max(0.0, self.boot_seconds() - anchor.boot_seconds)

    @staticmethod
    def _of_this_boot(anchor: Anchor | None, boot_id: str) -> Anchor | None:
        """What was written before a reboot is true since the beginning of this boot."""
        if anchor is None or anchor.boot_id == boot_id:
            return anchor
        return Anchor(time=anchor.time, boot_seconds=0.0, boot_id=boot_id)


def _load(journal: Journal) -> Anchor | None:
    kept = journal.get(ENTRY)
    try:
        return None if kept is None else Anchor.model_validate(kept)
    except ValidationError:
        return None
