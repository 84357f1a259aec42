"""The endpoint as a machine: starting anew and switching off.

A part of `core.host`, which says what these protocols are for.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol


class Ending(StrEnum):
    """How a machine is brought down."""

    REBOOT = "reboot"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Something that bringing the machine down would break or disturb."""

    what: str
    """In words."""

    grave: bool
    """Is the machine likely to be damaged (an update is under way), rather than somebody disturbed?"""


class Machine(Protocol):
    """This machine; bound to its pid namespace, and refusing any other."""

    async def boot_id(self) -> str:
        """Identifies this boot; ActionFailed where the kernel does not tell."""
        ...

    def up_for(self) -> timedelta:
        """How long this boot lasts, time in suspend included; no clock that anybody can set."""
        ...

    async def why_not(self) -> str | None:
        """Why it cannot be brought down from here (a container, say), or None."""
        ...

    async def hindrances(self) -> tuple[Hindrance, ...]:
        """What would be broken or disturbed: updates under way, inhibitors."""
        ...

    async def bring_down(self, ending: Ending) -> None:
        """Begin; the agent is ended by it soon. Returns once init has taken the request. Repeating it is harmless."""
        ...

    async def await_end(self, *, within: timedelta) -> None:
        """Wait for the end, which is the agent's own; comes back only if the machine is still up after that time."""
        ...
