"""The protocols through which an action touches an endpoint, and the values that cross them.

An action is handed a `Host` and imports no operating system, so that the server can load it too and a test can pass a
fake. `agent/host/` holds the only implementations that touch the machine; `tests/fakes/` the others. This is the one
seam at which Stanch is faked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Protocol

from pydantic import Field

from stanch.core.accounts import Accounts
from stanch.core.autoruns import Autoruns
from stanch.core.containers import Containers
from stanch.core.content import Content
from stanch.core.evidence import Evidence, Uploads
from stanch.core.files import Files
from stanch.core.machine import Machine
from stanch.core.model import LooseModel, Model
from stanch.core.network import Firewall, Names, Peer
from stanch.core.processes import Processes
from stanch.core.programs import Programs
from stanch.core.scanning import Scanner
from stanch.core.settings import GroupSettings
from stanch.core.terminal import Terminals
from stanch.core.types import Instant, Text
from stanch.core.vault import Vault

# --- people ----------------------------------------------------------------------------------------------------------


class Users(Protocol):
    """The people who are logged in."""

    async def tell(self, text: str) -> int:
        """Show a text on the terminals of everybody who is logged in; how many there are. Never raises."""
        ...


# --- the agent itself ------------------------------------------------------------------------------------------------

Record = Mapping[str, Any]
"""What an action writes down before it changes something: a JSON object."""


class Journal(Protocol):
    """This task's lines in the agent's journal."""

    async def record(self, record: Record) -> None:
        """Write down what is about to be changed; returns when it is on the disk. Replaces an earlier record."""
        ...

    def keep(self, partial: Model) -> None:
        """Should the task fail, or be stopped, tell this as its result beside the error; replaces an earlier one.

        It must have the form of the action's result. In memory only: after a crash the task runs again.
        """
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


class Detections(Protocol):
    """Tell the server of something that somebody should look at."""

    async def tell(self, kind: str, detail: Record) -> None:
        """Put it on the disk to be sent: a kind of `core.detections` and its detail; task and order are added."""
        ...


class Progress(Protocol):
    """Tell the people who wait how far it is."""

    def __call__(self, done: int, total: int | None, unit: str, text: str = "", *, paused: str = "") -> None:
        """`done` of `total` `unit`s; a line of text; why it waits, if it does. Lossy: never awaited, never stored."""
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
    programs: Programs
    accounts: Accounts
    autoruns: Autoruns
    containers: Containers
    machine: Machine
    terminals: Terminals
    scanner: Scanner
    content: Content
    files: Files
    vault: Vault
    evidence: Evidence
    uploads: Uploads
    journal: Journal
    effects: Effects
    detections: Detections
    server: Server
    progress: Progress
