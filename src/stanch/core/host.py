"""The protocols through which an action touches an endpoint, and the values that cross them.

An action is handed a `Host` and imports no operating system, so that the server can load it too and a test can pass a
fake. `agent/host/` holds the only implementations that touch the machine; `tests/fakes/` the others. This is the one
seam at which Stanch is faked.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Protocol

from pydantic import Field

from stanch.core.files import Bytes, Extent, FileId, Files
from stanch.core.model import LooseModel, Model
from stanch.core.network import Firewall, Names, Peer
from stanch.core.settings import GroupSettings
from stanch.core.types import EndpointPath, EvidenceRef, Instant, Pid, Size, Text, Upload
from stanch.core.vault import Vault

# --- people ----------------------------------------------------------------------------------------------------------


class Users(Protocol):
    """The people who are logged in."""

    async def tell(self, text: str) -> int:
        """Show a text on the terminals of everybody who is logged in; how many there are. Never raises."""
        ...


# --- processes -------------------------------------------------------------------------------------------------------


class ProcessId(Model):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: Pid
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""


class Process(Model):
    """One process of the endpoint."""

    pid: Pid
    """Process id."""

    parent: Annotated[int, Field(ge=0, le=4_194_304)]
    """Process id of the parent; 0 for none."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Start time in clock ticks since boot: with the pid, it names the process for good."""

    user: Text
    """Account name, or the numeric id where it has no name."""

    name: Text
    """Short name that the kernel shows."""

    executable: EndpointPath | None
    """Path of the running program; null for kernel threads and where it cannot be read."""

    arguments: Text
    """Command line, arguments quoted as a shell would; cut at 4000 characters."""

    state: Annotated[str, Field(max_length=1)]
    """State letter of the kernel: R, S, D, Z, T, I."""

    memory: Size
    """Resident memory in bytes."""

    depth: Annotated[int, Field(ge=0, le=10_000)] = 0
    """How deep in the tree; 0 for a root."""

    @property
    def id(self) -> ProcessId:
        """Its identity."""
        return ProcessId(pid=self.pid, started=self.started)


class Held(StrEnum):
    """How a process holds a file."""

    RUNS = "runs"
    """It is its program."""

    MAPS = "maps"
    """Mapped, as a library is."""

    WRITES = "writes"
    """Open for writing."""

    READS = "reads"
    """Open for reading."""


class Holder(Model):
    """A process that holds a file."""

    process: ProcessId
    """Which process."""

    name: Text
    """Short name that the kernel shows."""

    file: FileId
    """Which file."""

    how: Held
    """How."""


class Processes(Protocol):
    """The processes of one pid namespace; bound to it, and refusing any other."""

    async def list(self) -> Sequence[Process]:
        """All of them, in tree order with `depth` set."""
        ...

    async def find(self, pid: int) -> Process | None:
        """The process that has this pid now, or None."""
        ...

    async def alive(self, one: ProcessId) -> bool:
        """Does exactly this process still run? A zombie does not."""
        ...

    async def why_protected(self, one: ProcessId) -> str | None:
        """The reason why it must not be ended (init, kernel thread, Stanch itself), or None."""
        ...

    async def stop(self, one: ProcessId) -> bool:
        """SIGSTOP it through a pidfd; False if it is gone."""
        ...

    async def resume(self, one: ProcessId) -> bool:
        """SIGCONT it through a pidfd; False if it is gone."""
        ...

    async def kill(self, one: ProcessId) -> bool:
        """SIGKILL it through a pidfd whose start time was checked after opening; False if it was gone."""
        ...

    async def wait_gone(self, ones: Sequence[ProcessId], *, within: timedelta) -> tuple[ProcessId, ...]:
        """Wait until they have ended; those that have not."""
        ...

    async def holders(self, files: Collection[FileId]) -> Sequence[Holder]:
        """Who runs, maps or has open any of these files, deleted ones too; each process once per file and way."""
        ...


# --- evidence and uploads --------------------------------------------------------------------------------------------


class Source(Protocol):
    """Bytes to be taken as evidence."""

    @property
    def name(self) -> str:
        """What they are called on the endpoint."""
        ...

    @property
    def size(self) -> int:
        """How many, fixed at the start."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, the same each time, or ActionFailed if the source changed. Asked for in order."""
        ...

    async def extents(self) -> Sequence[Extent]:
        """Where it holds data, in order; between are holes, which read as zeros and need not be read or sent."""
        ...


class Evidence(Protocol):
    """The way of bytes from the endpoint to the server: hashed parts, resumed from the first missing one."""

    async def send(self, source: Source) -> EvidenceRef:
        """Send all of it and return what the server has committed; waits out outages until the time limit."""
        ...


class Uploads(Protocol):
    """What people have uploaded to the server to be put on endpoints."""

    def open(self, upload: Upload) -> AbstractAsyncContextManager[Bytes]:
        """Its bytes, fetched as they are read, in order; waits out outages. NotFound if the server has it no more.

        What arrives is what the server sends: whoever uses it MUST compare the SHA-256 in the (signed) order.
        """
        ...


# --- the agent itself ------------------------------------------------------------------------------------------------

Record = Mapping[str, Any]
"""What an action writes down before it changes something: a JSON object."""


class Journal(Protocol):
    """This task's lines in the agent's journal."""

    async def record(self, record: Record) -> None:
        """Write down what is about to be changed; returns when it is on the disk. Replaces an earlier record."""
        ...

    def recorded(self) -> Record | None:
        """What an *earlier* run of this same task wrote down before the agent was killed; None on a first run.

        What this run writes with `record` does not show here.
        """
        ...


class Effect(LooseModel):
    """Something lasting that is in force on the endpoint, with the way to lift it."""

    name: Annotated[str, Field(max_length=64)]
    """Which effect; one of a name at a time."""

    task: Annotated[str, Field(max_length=64)]
    """The task that put it in force."""

    since: Instant
    """When, by the agent's clock."""

    until: Instant | None
    """When it lifts itself, by the agent's clock; null for never."""

    lift_action: Annotated[str, Field(max_length=64)]
    """The action that lifts it."""

    lift_params: Mapping[str, Any] = {}
    """Its parameters."""

    detail: Mapping[str, Any] = {}
    """The parameters in force."""

    order: Annotated[str, Field(max_length=64)] = ""
    """The order that asked for it."""

    by: Annotated[str, Field(max_length=200)] = ""
    """Who ordered it."""

    origin: Annotated[str, Field(max_length=200)] = ""
    """How the order came in."""

    reason: Text = ""
    """Why."""

    private: Mapping[str, Any] = {}
    """What only the endpoint itself needs, and the server is never told: the rules in numbers, what recognises its
    release code."""


class Effects(Protocol):
    """Lasting effects: on disk before they are in force, lifted at their own deadline in boot time, even offline."""

    async def hold(
        self,
        name: str,
        *,
        lift_action: str,
        lift_params: Record,
        detail: Record,
        private: Record | None = None,
        lasts: timedelta | None,
    ) -> Effect:
        """Write it down (or replace it), returning when it is on the disk.

        Who ordered it and why, and what recognises its release code (`private["release_code"]`), are of the task.
        """
        ...

    async def amend(self, name: str, *, detail: Record | None = None, private: Record | None = None) -> None:
        """Replace these parts, and leave everything else, its deadline too, as it is; nothing if it is not in force."""
        ...

    async def drop(self, name: str) -> None:
        """It is no longer in force."""
        ...

    def all(self) -> tuple[Effect, ...]:
        """Everything that is in force."""
        ...

    def remaining(self, name: str) -> timedelta | None:
        """How long until its deadline, 0 if that has passed; None if it has none, or is not in force."""
        ...

    def current(self, name: str) -> Effect | None:
        """The one in force."""
        ...


class Server(Protocol):
    """The agent's own server, seen from an action."""

    def peers(self) -> tuple[Peer, ...]:
        """Every address at which it can be reached directly: the live peer first."""
        ...

    def proxies(self) -> tuple[Peer, ...]:
        """The proxies through which it is reached; then there is no direct way."""
        ...

    async def confirm(self, *, within: timedelta) -> bool:
        """Did the server answer an application request on a *new* connection? Tries until the time is over."""
        ...


class Progress(Protocol):
    """Tell the people who wait how far it is."""

    def __call__(self, done: int, total: int | None, unit: str, text: str = "") -> None:
        """`done` of `total` `unit`s; a line of text. Lossy: never awaited, never stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One endpoint, in the hands of one task."""

    task: str
    order: str
    """The order that the task is part of; for what root orders at the endpoint itself, the task again."""

    origin: str
    """How the order came in: see core.policy. By a rule, the policy of the endpoint's groups decides how it is done."""

    settings: GroupSettings
    """The policy of the endpoint's groups."""

    firewall: Firewall
    names: Names
    users: Users
    processes: Processes
    files: Files
    vault: Vault
    evidence: Evidence
    uploads: Uploads
    journal: Journal
    effects: Effects
    server: Server
    progress: Progress
