"""An interactive terminal on an endpoint, for one person at a time: what an action asks for, and what is answered.

A part of `core.host`, which says what these protocols are for; `core.terminal_wire` has the words on the way.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from stanch.core.model import Model
from stanch.core.processes import ProcessId
from stanch.core.types import EndpointPath, Pid

Started = Callable[[ProcessId], Awaitable[None]]
"""Told which process the shell is, before that does anything; only when it returns, the shell begins."""


class Why(StrEnum):
    """Why a terminal was closed."""

    EXIT = "exit"
    """Its shell ended."""
    IDLE = "idle"
    """Nobody typed for too long."""
    TIME = "time"
    """Its time was over."""
    LEFT = "left"
    """The person went away and did not come back."""
    LINK = "link"
    """The server could not be reached for too long, or knew nothing of it any more."""
    CANCELLED = "cancelled"
    """Its task was cancelled, or the agent stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What to run in a terminal."""

    program: EndpointPath | None = None
    """None for the account's login shell, or /bin/sh where that lets nobody in."""
    arguments: Sequence[str] = ()
    user: str | None = None
    """Account name; None for root."""
    folder: EndpointPath | None = None
    """None for the account's home."""
    columns: int = 80
    rows: int = 24
    idle: timedelta
    """End it when nobody has typed for so long."""
    lasts: timedelta
    """End it after so long, whatever happens."""


class Closed(Model):
    """How a terminal ended."""

    why: Why
    """Why."""

    code: Annotated[int, Field(ge=0, le=255)] | None = None
    """Exit code of the shell; null if a signal ended it."""

    signal: Annotated[str, Field(max_length=20)] | None = None
    """The signal that ended it."""

    pid: Pid
    """Process id that the shell had."""

    sent: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Bytes that it wrote."""

    received: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Bytes that were typed."""


class Terminals(Protocol):
    """Opens terminals on this machine, each joined to the person who ordered it, through the server."""

    async def open(self, shell: Shell, *, started: Started) -> Closed:
        """Join the server, start the shell, and stay until it is closed; all its processes are ended then.

        Cancelled, it hangs up, ends them, too, and says so as its end. Nothing was started if it raises: Unavailable
        if the server cannot be joined or too many are open, Invalid for an unknown user, TargetGone if there is no such
        program or folder, ActionFailed if it cannot be run.
        """
        ...

    async def why_not(self, shell: Shell) -> str | None:
        """Why it could not be opened; None if it could."""
        ...
