"""The bodies of the REST API, shared by the server that answers and the client that asks.

Bodies of orders are derived from the registry (`derive.openapi`): the fields of `OrderCommon` plus `params`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from stanch.core.errors import ErrorBody
from stanch.core.frames import Inventory
from stanch.core.host import Effect
from stanch.core.model import LooseModel, Model
from stanch.core.policy import Origin, Role, Solution
from stanch.core.task import State
from stanch.core.types import Duration, Id, Instant, Label, Name, Text, hours

MAX_TARGETS = 100_000

Targets = Annotated[tuple[Name, ...], Field(max_length=MAX_TARGETS)]


class OrderCommon(Model):
    """What every order has besides its parameters."""

    endpoints: Targets = ()
    """Endpoint ids or host names."""
    labels: Annotated[tuple[Label, ...], Field(max_length=20)] = ()
    """All endpoints that carry all of these labels."""
    reason: Text = ""
    """Why; it stands in the audit."""
    case: Annotated[str, Field(max_length=200)] | None = None
    """Case or incident that it belongs to."""
    valid_for: Duration = hours(24)
    """An endpoint that is not reached in this time does not do it."""
    dry_run: bool = False
    """Only say what would be touched."""


class TaskView(LooseModel):
    """A task, as the API shows it."""

    id: Id
    """Identifier."""
    order: Id
    """Its order."""
    endpoint: Id
    """Its endpoint."""
    hostname: Name
    """Host name of the endpoint."""
    action: Name
    """Name of the action."""
    state: State
    """Where it is."""
    cancel_requested: bool = False
    """Somebody asked to cancel it after it was sent."""
    result: Mapping[str, Any] | None = None
    """What the action answered."""
    error: ErrorBody | None = None
    """Why it did not."""
    created: Instant
    """When it was ordered."""
    changed: Instant
    """When its state changed last."""


class OrderView(LooseModel):
    """An order, as the API shows it."""

    id: Id
    """Identifier."""
    action: Name
    """Name of the action."""
    params: Mapping[str, Any]
    """Its parameters, secrets hidden."""
    origin: Origin
    """How it came in."""
    solution: Solution | None = None
    """Which solution ordered it."""
    requested_by: Name
    """Who."""
    reason: Text
    """Why."""
    case: str | None = None
    """Case or incident."""
    dry_run: bool
    """Only planned."""
    created: Instant
    """When."""
    valid_until: Instant
    """Until when it may be delivered."""
    states: Mapping[State, int]
    """How many of its tasks are where."""
    tasks: tuple[TaskView, ...] = ()
    """Its tasks; left out of lists, and of the answer to a new order with more than a thousand."""


class EndpointView(LooseModel):
    """An endpoint, as the API shows it."""

    id: Id
    """Identifier."""
    hostname: Name
    """Host name."""
    labels: tuple[str, ...]
    """`key=value` each."""
    online: bool
    """Is its link up now?"""
    last_seen: Instant | None
    """When it was heard of last."""
    revoked: bool
    """Its certificate is no longer accepted."""
    agent_version: str
    """Version of its agent."""
    inventory: Inventory
    """About the machine."""
    actions: Mapping[str, int]
    """What it can do: action name to version."""
    capabilities: Mapping[str, str]
    """Ability to `yes`, or why not."""
    effects: tuple[Effect, ...]
    """Lasting effects in force, as last heard."""
    enrolled: Instant
    """When."""


class LabelChange(Model):
    """Which labels to add and to remove."""

    add: Annotated[tuple[Label, ...], Field(max_length=50)] = ()
    """`key=value` to set."""
    remove: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    """Keys to remove."""


class LoginRequest(Model):
    """Name and password."""

    name: Name
    """Account."""
    password: Annotated[str, Field(min_length=1, max_length=1000)]
    """Its password."""


class Session(LooseModel):
    """A token for further requests."""

    token: str
    """Bearer token; shown once."""
    expires: Instant
    """When it ends."""
    name: Name
    """Account."""
    roles: tuple[Role, ...]
    """Its roles."""


class Whoami(LooseModel):
    """Who the bearer of the token is."""

    name: Name
    """Account."""
    roles: tuple[Role, ...]
    """Its roles."""
    permissions: tuple[str, ...]
    """What the roles allow besides ordering."""
    up_to: str | None
    """The worst risk that may be ordered."""


class TokenCreate(Model):
    """An enrolment token to be made."""

    uses: Annotated[int, Field(ge=1, le=100_000)] = 1
    """How many endpoints may enrol with it."""
    valid_for: Duration = hours(24)
    """How long."""
    labels: Annotated[tuple[Label, ...], Field(max_length=50)] = ()
    """Labels that the endpoints get."""


class TokenView(LooseModel):
    """An enrolment token."""

    id: Id
    """Identifier, not the secret."""
    uses_left: int
    """How many more may use it."""
    expires: Instant
    """When it ends."""
    labels: tuple[str, ...]
    """Labels that it gives."""
    created_by: Name
    """Who made it."""
    revoked: bool = False
    """Withdrawn."""


class TokenCreated(TokenView):
    """A new enrolment token, with all that `stanch agent enroll` needs."""

    token: str
    """The secret; shown once."""
    ca_pin: str
    """SHA-256 of the CA certificate, hexadecimal."""
    gateway_url: str
    """For `--server`."""


class EvidenceView(LooseModel):
    """Evidence, as the API shows it."""

    id: Id
    """Identifier."""
    task: Id
    """The task that took it."""
    endpoint: Id
    """Where from."""
    name: str
    """What it was called there."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of the whole; null until complete."""
    complete: bool
    """All parts are here and verified."""
    received: int
    """Bytes here so far."""
    created: Instant
    """When it was begun."""


class AuditEntryView(LooseModel):
    """An entry of the audit, as the API shows it."""

    n: int
    """Its number; later entries have larger ones."""
    at: Instant
    """When."""
    who: str
    """Account, enrolment token or endpoint."""
    what: str
    """What they did."""
    subject: str
    """To what: an order, an endpoint, an account, ..."""
    detail: Mapping[str, Any]
    """More about it."""
    previous: str
    """Hash of the entry before; zeros in the first."""
    hash: str
    """SHA-256 over this entry and the hash of the one before, hexadecimal."""


class AuditVerified(LooseModel):
    """The audit is whole: each entry is what was written, and none between the first and the newest is missing."""

    entries: int
    """How many there are."""
    newest: str
    """Hash of the newest; zeros if there is none. Written down elsewhere, it shows later that no end was cut off."""


class TaskEvent(LooseModel):
    """One message of the event stream."""

    type: str
    """task or progress."""
    task: Id
    """Which task."""
    order: Id
    """Its order."""
    endpoint: Id
    """Its endpoint."""
    state: State | None = None
    """For a task: where it is now."""
    done: int | None = None
    """For progress."""
    total: int | None = None
    """For progress."""
    unit: str = ""
    """For progress."""
    text: str = ""
    """For progress."""


class ActionView(LooseModel):
    """An action, as `stanch actions` lists it."""

    name: Name
    """Name."""
    version: int
    """Version of its declaration."""
    summary: str
    """One sentence."""
    risk: str
    """read-only, disruptive or destructive."""
    undo: str | None
    """The action that takes it back, or the reason why nothing does; null for read-only ones."""
    after_crash: str
    """What the agent does when it was killed in the middle."""
    params: Mapping[str, Any]
    """JSON schema of the parameters."""
    result: Mapping[str, Any]
    """JSON schema of the result."""


class Health(LooseModel):
    """Is the server well?"""

    status: str
    """ok, or what is wrong."""
    version: str
    """Version of the server."""
    agents_online: int
    """Links that are up."""
    queued: int
    """Tasks waiting."""


class Page(LooseModel):
    """How lists are cut."""

    next: str | None = None
    """Pass as `after` for the next page; null at the end."""
