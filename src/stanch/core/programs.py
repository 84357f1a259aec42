"""Programs that are run on an endpoint: what is asked for, what it wrote, how it ended.

A part of `core.host`, which says what these protocols are for.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Protocol

from pydantic import Field

from stanch.core.evidence import Source
from stanch.core.model import Model
from stanch.core.processes import ProcessId
from stanch.core.types import EndpointPath, Printed, Sha256, Size, Text

MAX_SECONDS = 1e9

TASK_VARIABLE = "STANCH_TASK"
"""The environment variable that names the task; no order may set it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a program and all its descendants may use; None for no limit of its own."""

    memory: int | None = None
    """Bytes."""
    cpu_percent: int | None = None
    """Of one processor."""
    processes: int | None = None

    @property
    def limited(self) -> bool:
        """Is there any limit?"""
        return (self.memory, self.cpu_percent, self.processes) != (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run. No shell takes part, and nothing is searched in a PATH."""

    path: EndpointPath
    arguments: Sequence[str] = ()
    r"""After the name of the program; odd bytes as `\xff` only where it is a path that says so."""
    folder: EndpointPath | None = None
    """Where it starts; None for `/`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside the little that every program gets; the agent's own is not passed on."""
    user: str | None = None
    """Account name; its groups and home come with it. None for the agent's own, which is root."""
    sha256: str | None = None
    """Run it only if this is what the file holds; None for whatever it is."""
    keep: int = 10 * 1_048_576
    """Bytes of each stream that are kept; what comes beyond is counted, and thrown away."""
    resources: Resources = Resources()
    outlives: bool = False
    """What it leaves running in the background when it ends goes on; otherwise it is ended with it."""


class Examined(Model):
    """A program that could be run: what it is."""

    path: EndpointPath
    """Where it is, all links resolved."""

    kind: Annotated[str, Field(max_length=100)]
    """What it is: an ELF program, or a script."""

    interpreter: EndpointPath | None = None
    """What a script is run by, all links resolved; null for a program of its own."""

    sha256: Sha256
    """Of the file."""

    user: Annotated[str, Field(max_length=200)]
    """The account that it would run in."""

    warnings: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """What is odd about it."""


class Exit(Model):
    """How a program ended."""

    code: Annotated[int, Field(ge=0, le=255)] | None = None
    """Exit code; null if a signal ended it."""

    signal: Annotated[str, Field(max_length=20)] | None = None
    """The signal that ended it, such as SIGKILL; null, too, if it could not be ended."""

    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)] = 0.0
    """How long it ran."""

    left_behind: Annotated[int, Field(ge=0, le=4_194_304)] = 0
    """Descendants that it left running."""

    left_ended: bool = True
    """Were those ended?"""


class Output(Model):
    """What a program wrote on one stream."""

    written: Size = Size(0)
    """Bytes that it wrote."""

    kept: Size = Size(0)
    """Bytes that were kept: its first ones."""

    text: Printed = ""
    """The beginning, odd bytes as escapes."""


class Running(Protocol):
    """A program of a task. What it writes is kept on the endpoint, where only root can read it, until it is sent."""

    @property
    def id(self) -> ProcessId:
        """Its process, which is there, and marked, before it begins."""
        ...

    async def begin(self) -> None:
        """Let it execute its first instruction; once.

        Until then, what it is can be written down. Invalid if the kernel will not execute it: its arguments are too
        long, it is for another processor, its loader is missing, its user may not.
        """
        ...

    async def wait(self, *, within: timedelta) -> Exit | None:
        """Until it has ended, with what it left behind unless it `outlives`; None if it has not `within`."""
        ...

    async def end(self, *, grace: timedelta) -> Exit:
        """SIGTERM to all of it, SIGKILL to what is left after the grace; not more than some seconds beyond."""
        ...

    def stdout(self) -> Output:
        """What it wrote so far."""
        ...

    def stderr(self) -> Output:
        """What it complained so far."""
        ...

    def last_line(self) -> str:
        """The last line that it wrote on either stream, shortened."""
        ...

    def kept(self) -> tuple[Source, Source]:
        """Both streams as they were kept up to now, to be taken as evidence before it is left."""
        ...


class Programs(Protocol):
    """Runs programs; each with a session of its own, an empty standard input and, where it can be had, a cgroup."""

    def run(self, program: Program) -> AbstractAsyncContextManager[Running]:
        """Make its process, for this task. Leaving ends what is left, unless it `outlives`, and forgets its output.

        TargetGone if there is no such program, Invalid if it is none or its user is unknown, ForbiddenHere if the owner
        of the machine forbids it or its interpreter, Unsupported if its resources cannot be limited here. The mark
        that `Processes.of_task` finds it by is on it from its first instruction.
        """
        ...

    async def examine(self, program: Program) -> Examined:
        """What would be run. Raises what `run` would, found without running anything."""
        ...
