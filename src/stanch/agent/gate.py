"""The one way for an envelope into the agent: authentic, for us, in time, newer than what it replaces."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stanch.agent.clock import AgentClock
from stanch.agent.journal import Journal
from stanch.agent.trust import TrustedKeys
from stanch.core.envelope import VERSIONED, AddressesBody, Envelope, Kind, OrderBody, verify
from stanch.core.errors import Expired

ENTRY = "versions"
SET_BACK_FAR = 300.0
"""Seconds that the clock may be set back without anybody being told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """An envelope that is authentic and ours."""

    envelope: Envelope
    late: Expired | None = None
    """The validity of this order was over when it arrived: it must be answered, not done."""
    set_back: float = 0.0
    """Seconds by which it set the clock back, if that is far."""


class Gate:
    """Checks envelopes and learns the time from them."""

    def __init__(self, endpoint: str, *, keys: TrustedKeys, clock: AgentClock, journal: Journal) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._clock = clock
        self._journal = journal
        kept = journal.get(ENTRY) or {}
        self._versions = {kind: int(kept[kind]) for kind in Kind if kind in kept}

    def admit(self, token: str, *, nonce: str | None) -> Admitted:
        """Verify an envelope and observe its time.

        Args:
            token: the compact JWS as received.
            nonce: what our hello on this link said, so that the answer to it may also set the time back.

        Raises VerificationFailed or Invalid. An order that is merely late comes back as such.
        """
        late = None
        try:
            envelope = self._verify(token)
        except Expired as error:
            # Authentic, or the signature would have failed first. Whether its being late matters depends on what it
            # is: a late order must be answered, and the answer to our own hello proves that our clock is wrong.
            envelope = self._verify(token, late_too=True)
            late = error
        if late and not (isinstance(envelope.body, OrderBody) or _answers(envelope, nonce)):
            raise late
        back = -self._clock.observe(envelope.iat, fresh=_answers(envelope, nonce)).total_seconds()
        return Admitted(
            envelope=envelope,
            late=late if isinstance(envelope.body, OrderBody) else None,
            set_back=back if back >= SET_BACK_FAR else 0.0,
        )

    def accepted(self, envelope: Envelope) -> None:
        """Refuse this version of its kind from now on; on the disk with the journal's next transaction."""
        if envelope.kind in VERSIONED and envelope.version is not None:
            self._versions[envelope.kind] = envelope.version
            self._journal.stage(ENTRY, {str(kind): version for kind, version in self._versions.items()})

    def _verify(self, token: str, *, late_too: bool = False) -> Envelope:
        return verify(
            token,
            keys=self._keys.by_kid,
            endpoint=self._endpoint,
            now=self._clock.now(),
            versions=self._versions,
            late_too=late_too,
        )


class Refusals:
    """How many refused envelopes are told to the server: somebody who sends rubbish must not fill the spool."""

    def __init__(self, per_minute: int, seconds: Callable[[], float]) -> None:
        self._told: deque[float] = deque(maxlen=per_minute)
        self._per_minute = per_minute
        self._seconds = seconds
        self._suppressed = 0

    def count(self) -> int | None:
        """One more; how many were suppressed before it, or None if it must not be told either."""
        now = self._seconds()
        if len(self._told) == self._per_minute and now - self._told[0] < 60:  # noqa: PLR2004 - a minute
            self._suppressed += 1
            return None
        self._told.append(now)
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def _answers(envelope: Envelope, nonce: str | None) -> bool:
    """Is it the server's answer to this hello of ours?"""
    return nonce is not None and isinstance(envelope.body, AddressesBody) and envelope.body.nonce == nonce
