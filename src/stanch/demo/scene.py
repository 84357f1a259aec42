"""What every act of the story works with: the stage, what the acts tell each other, and how things are seen."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stanch.core.errors import StanchError, Unavailable
from stanch.core.isolation import IsolationStatus
from stanch.core.network import IsolationState
from stanch.core.rest import DetectionView, EndpointView, TaskView
from stanch.demo.lab import HOSTNAME
from stanch.demo.program import wait_until
from stanch.demo.questions import Span
from stanch.demo.report import expect
from stanch.demo.responder import monotonic_of
from stanch.demo.stage import Stage

BEACONS = ("tcp4", "tcp6", "udp4", "udp6")
PINGS = ("ping4", "ping6")
CLIENT = ("client4", "client6")
SHOP = (*CLIENT, "shop")
"""The client's questions as the shop hears them, and its frames on the cable."""

FORBIDDEN = (*BEACONS, *PINGS, *SHOP, "other")
"""What must not be seen of an isolated endpoint; `other` is every frame that nobody can account for."""

IPV4, IPV6 = FAMILIES = (4, 6)
FLOWING = 3
"""So many of a kind show that it goes on."""

QUIET_SECONDS = 1.0
"""Ten beacons of each kind, if they came."""

READ_SECONDS = 0.15
"""A listener may note a beacon this much later than it came."""

WAIT_SECONDS = 30.0
RETURN_SECONDS = 120.0
"""An agent without its server tries again ever more rarely."""

RESUME_SECONDS = 2.0
"""The client asks again at least this often, answered or not."""

Chapter = tuple[str, Callable[[], str]]


@dataclass(frozen=True, slots=True)
class Reference:
    """When an order was given, and when its task was done, on the outside's clock."""

    ordered: float
    done: float

    @classmethod
    def of(cls, task: TaskView) -> "Reference":
        """By the server's own record."""
        return cls(monotonic_of(task.created), monotonic_of(task.changed))

    @property
    def silent(self) -> float:
        """From when on nothing may be heard, if it was an isolation."""
        return self.done + READ_SECONDS


@dataclass(slots=True)
class Plot:
    """What one act learns and another needs."""

    who: str = ""
    """The responder's account."""

    pids: dict[str, int] = field(default_factory=dict)
    """Role in the attack to pid on the endpoint."""

    root: dict[str, Any] = field(default_factory=dict)
    """The root of its tree, as the process list has it."""

    isolated: Reference = Reference(0, 0)
    silent: float = 0.0
    """Since when no beacon has been heard."""


class Scene:
    """The stage as the acts see it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.responder = stage.responder
        self.plot = Plot()

    # --- from outside ------------------------------------------------------------------------------------------------

    def seen(self, since: float = 0.0, until: float | None = None) -> Span:
        """What the outside has seen."""
        return self.stage.world.seen(since=since, until=until)

    def flows(self, kinds: Collection[str], since: float, *, at_least: int = FLOWING) -> bool:
        """Wait until each of these kinds was seen so often; whether they were."""
        return wait_until(lambda: enough(self.seen(since), kinds, at_least), within=WAIT_SECONDS)

    def expect_silence(self, since: float, *, until: float | None = None, but: Collection[str] = ()) -> None:
        """Nothing was seen that an isolated endpoint must not send, `but` what was excluded."""
        seen = self.seen(since, until)
        got = {name: seen.count(name) for name in FORBIDDEN if name not in but and seen.count(name)}
        strays = seen.strays[-3:] if "other" in got else ()
        expect(not got, "The isolated endpoint is heard outside", got=f"{got} {' | '.join(strays)}".strip())

    def falls_silent(self, since: float) -> float:
        """Wait until nothing has been heard for a while; when the last of it was heard, or `since`."""
        quiet = wait_until(lambda: self._last(since) + QUIET_SECONDS <= time.monotonic(), within=WAIT_SECONDS)
        expect(quiet, "The endpoint does not fall silent", got=counts(self.seen(since)))
        return self._last(since)

    def _last(self, since: float) -> float:
        return self.seen(since).last(*FORBIDDEN) or since

    # --- by the responder's commands ---------------------------------------------------------------------------------

    def view(self) -> EndpointView:
        """What `stanch endpoint show` says."""
        return self.responder.one(EndpointView, "endpoint", "show", HOSTNAME)

    def told(self, state: IsolationState, *, repaired: bool = False) -> IsolationStatus:
        """The isolation as the server tells it, once it is in this state, and once it tells of a repair, if asked."""
        found: list[IsolationStatus | None] = [None]

        def tells() -> bool:
            status = found[0] = self.view().isolation
            if status is None or status.state is not state:
                return False
            return not repaired or (status.tampered is not None and status.tampered.repaired)

        held = wait_until(tells, within=WAIT_SECONDS)
        status = found[0]
        if status is None or not held:
            wanted = f"{state}, after a repair" if repaired else state
            raise Unavailable("The server tells another state", got=status, expected=wanted)
        return status

    def detected(self, *kinds: str, since: datetime) -> dict[str, DetectionView]:
        """The newest detection of each of these kinds which the server heard of since then."""
        found: dict[str, DetectionView] = {}

        def look() -> bool:
            listed = self.responder.listed(DetectionView, "detections", "--endpoint", HOSTNAME)
            found.update({one.kind: one for one in reversed(listed) if one.received >= since and one.kind in kinds})
            return len(found) == len(kinds)

        expect(wait_until(look, within=WAIT_SECONDS), "It was not detected", got=sorted(found), expected=kinds)
        return found

    def online(self, *, links: int, within: float = WAIT_SECONDS) -> EndpointView:
        """Wait until an agent that had reached the server so often has done so again, and the server agrees."""
        # The log is looked at first, because asking the server starts a process each time.
        wait_until(lambda: self.stage.links > links, within=within)
        found: list[EndpointView] = []

        def is_online() -> bool:
            with suppress(StanchError):
                found[:] = [self.view()]
            return bool(found) and found[0].online

        if not wait_until(is_online, within=WAIT_SECONDS):
            raise Unavailable("The agent does not come online", got=self.stage.program("agent").said()[-1000:])
        return found[0]


def enough(seen: Span, kinds: Collection[str], at_least: int) -> bool:
    """Was each of these kinds seen so often?"""
    return all(seen.count(kind) >= at_least for kind in kinds)


def counts(seen: Span) -> dict[str, int]:
    """What was seen how often."""
    return {name: stream["count"] for name, stream in seen.streams.items() if stream["count"]}


def ms(since: float, at: float | None) -> str:
    """How long after, in words."""
    return "never" if at is None else f"{round((at - since) * 1000)} ms"


def offset(order: float, at: float | None) -> str:
    """When something came, seen from an order."""
    late = round(((at or 0.0) - order) * 1000)
    return "never" if at is None else f"{abs(late)} ms {'after' if late >= 0 else 'before'} it"


def in_words(parts: Collection[object]) -> str:
    """`a, b and c`."""
    *first, last = map(str, parts)
    return f"{', '.join(first)} and {last}" if first else last
