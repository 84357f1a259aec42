"""The processes of an endpoint: how they are told apart, described, held still and ended.

A part of `core.host`, which says what these protocols are for.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from stanch.core.files import FileId
from stanch.core.model import Model
from stanch.core.types import EndpointPath, Md5, Pid, Sha256, Size, Text

MAX_SOCKETS = 200
"""Sockets of one process that are told."""


class ProcessId(Model):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: Pid
    """Process id."""

    started: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""


class Detail(StrEnum):
    """What may be asked about each process beside what the kernel says of it at once."""

    HASH = "hash"
    """SHA-256 of its program, read through the process itself, so that a deleted one is hashed too."""
    SOCKETS = "sockets"
    """Its open network sockets."""
    PACKAGE = "package"
    """The package that its program belongs to."""


class OpenSocket(Model):
    """A network socket that a process has open."""

    protocol: Annotated[str, Field(max_length=10)]
    """tcp, udp, ..."""

    local: Annotated[str, Field(max_length=80)]
    """Address and port here."""

    remote: Annotated[str, Field(max_length=80)]
    """Address and port there; port 0 for one that listens."""

    state: Annotated[str, Field(max_length=20)]
    """As ss shows it: LISTEN, ESTAB, ..."""


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
    """Path of the running program, as its own container sees it; null for kernel threads and where it cannot be read.
    """

    arguments: Text
    """Command line, arguments quoted as a shell would; cut at 4000 characters."""

    state: Annotated[str, Field(max_length=1)]
    """State letter of the kernel: R, S, D, Z, T, I."""

    memory: Size
    """Resident memory in bytes."""

    depth: Annotated[int, Field(ge=0, le=10_000)] = 0
    """How deep in the tree; 0 for a root."""

    deleted: bool = False
    """Its program is no longer where it was started from: deleted, replaced, or never on a disk (memfd)."""

    unit: Text = ""
    """The systemd unit that it belongs to."""

    container: Annotated[str, Field(max_length=200)] = ""
    """The container that it belongs to, by its runtime's id."""

    inner_pid: Annotated[int, Field(ge=0, le=4_194_304)] = 0
    """Its process id inside its own pid namespace, where that is not the agent's; 0 otherwise."""

    sha256: Sha256 | None = None
    """Of its program; null if not asked for, or if it cannot be read."""

    sockets: Annotated[tuple[OpenSocket, ...], Field(max_length=MAX_SOCKETS)] = ()
    """Its network sockets, if asked for."""

    package: Text = ""
    """The package that its program belongs to, if asked for: as long as it is the file at its place, and not a
    container's."""

    note: Text = ""
    """What could not be read of it, and why."""

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


class Signal(StrEnum):
    """The signals that are sent by name; to stop and to go on is `stop` and `resume`."""

    KILL = "kill"
    TERM = "term"
    HUP = "hup"
    INT = "int"
    QUIT = "quit"
    ABRT = "abrt"
    ALRM = "alrm"
    USR1 = "usr1"
    USR2 = "usr2"
    WINCH = "winch"

    @property
    def ends(self) -> bool:
        """Is it sent to end a process, so that its end is waited for?"""
        return self in {Signal.KILL, Signal.TERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A program that processes run; one of the three."""

    path: EndpointPath | None = None
    """Where it lies, as the kernel shows it: real, without links. See `Processes.that_run`."""
    sha256: Sha256 | None = None
    md5: Md5 | None = None


Told = Callable[[int, int], None]
"""Is told how many programs of how many have been hashed."""


class Pen(Protocol):
    """Where processes are held still together: what they fork is caught with them, be it orphaned or a session leader.

    A control group that is frozen, where the machine has one to give; stopped processes otherwise, and then what is
    forked before its parent stands still is caught by the next look at the tree.
    """

    async def catch(self, ones: Sequence[ProcessId]) -> tuple[ProcessId, ...]:
        """Put these in and hold them still; everybody in it by now, whom they forked meanwhile included.

        Whoever is in it already stays; whoever has ended, or must not be touched, is left out.
        """
        ...

    async def hunt(self, sought: Sought, *, user: str | None) -> tuple[ProcessId, ...]:
        """Put in whoever runs this program, of this account if one is given, the moment that it is seen.

        For what lives so shortly that it is gone when a look at all processes is over: each starts the next one, and
        ends. Comes back when nobody more is found; everybody in it by now.
        """
        ...

    async def members(self) -> tuple[ProcessId, ...]:
        """Who is in it now."""
        ...

    async def kill(self) -> None:
        """End all of them at once."""
        ...


class Processes(Protocol):
    """The processes of one pid namespace; bound to it, and refusing any other."""

    async def list(self, *, details: Collection[Detail] = ()) -> Sequence[Process]:
        """All of them, in tree order with `depth` set."""
        ...

    async def detailed(
        self, ones: Sequence[Process], details: Collection[Detail], *, told: Told = lambda _done, _total: None
    ) -> Sequence[Process]:
        """The same ones with these details, in the same order; without them where they cannot be had any more."""
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

    async def of_task(self, task: str) -> Sequence[ProcessId]:
        """What a task's `run_process` has started and what descends from it, as far as it still runs."""
        ...

    async def that_run(self, sought: Sought) -> Sequence[Process]:
        """Whose program it is, deleted ones too.

        A path means the program that the process itself calls so, in a container the path there. Of a process in
        another mount namespace it also means the very file that the path leads to here, by device and inode: a program
        of a container that is named by where its layers lie. A hash is taken of what runs, not of what lies at a path.
        """
        ...

    def changes(self, *, within: timedelta) -> AsyncIterator[None]:
        """Comes back at once, and each time that a process was started or has begun to run another program.

        Ends after `within`.
        """
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

    async def send(self, one: ProcessId, what: Signal) -> bool:
        """Send it a signal through a pidfd, as `kill` does; False if it was gone."""
        ...

    async def wait_gone(self, ones: Sequence[ProcessId], *, within: timedelta) -> tuple[ProcessId, ...]:
        """Wait until they have ended; those that have not."""
        ...

    def pen(self, task: str) -> AbstractAsyncContextManager[Pen]:
        """A pen for a task; the same one again after a crash, with whoever is in it.

        Whoever is still in it at the end goes free, unharmed, back into the control group that it came from.
        """
        ...

    async def holders(self, files: Collection[FileId]) -> Sequence[Holder]:
        """Who runs, maps or has open any of these files, deleted ones too; each process once per file and way."""
        ...
