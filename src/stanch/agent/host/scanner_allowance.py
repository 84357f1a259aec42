"""How much the worker of a scan may say: one that a hostile file has taken over could say valid things for ever.

Each of its messages costs the agent time, and each find and skip ends on the server. An honest worker counts its finds
and skips, and tells how far it is a few times in a second; whoever says much more is none.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from stanch.agent.host.scanner_hearing import LooksAt, Message
from stanch.agent.host.scanner_worker import nonsense
from stanch.core.scanning import Finding, Loaded, Skip
from stanch.worker.scan.telling import EVERY, MAX_SKIPS

SLACK: Final = 1000
"""Finds and skips above the limits that are taken for a worker that has not counted yet, and not for nonsense."""
AT_FIRST: Final = 5000
"""Messages and events, besides those, that it may have said at any time."""
A_SECOND: Final = 4 / EVERY
"""As many more for each second: twice what is told by a worker that looks at files and at memory."""


class Allowance:
    """Of one worker, from its start on."""

    def __init__(self, findings: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._findings = findings + SLACK
        self._skips = MAX_SKIPS + SLACK
        self._others = 0
        self._now = now
        self._began = now()

    def take(self, message: Message) -> None:
        """It has said this; ActionFailed if that is more than an honest worker says."""
        events = message if isinstance(message, Sequence) else ()
        findings = sum(isinstance(one, Finding) for one in events)
        skips = sum(isinstance(one, Skip) for one in events)
        self._findings -= findings
        self._skips -= skips
        self._others += sum(not isinstance(one, Finding | Skip | Loaded) for one in events)
        if not isinstance(message, Sequence):
            self._others += 1 + (len(message.names) if isinstance(message, LooksAt) else 0)
        if self._findings < 0:
            raise nonsense("more findings than it may have")
        if self._skips < 0:
            raise nonsense("more skips than it tells")
        if self._others > AT_FIRST + A_SECOND * (self._now() - self._began):
            raise nonsense("more words than there is to tell")
