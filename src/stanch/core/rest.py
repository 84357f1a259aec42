"""The bodies of the REST API, shared by the server that answers and the client that asks.

Bodies of orders are derived from the registry (`derive.openapi`): the fields of `OrderCommon` plus `params`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from stanch.core.errors import ErrorBody
from stanch.core.frames import Inventory
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus
from stanch.core.model import LooseModel, Model
from stanch.core.policy import Origin, Role, Solution
from stanch.core.settings import GroupSettings, NewSettings
from stanch.core.task import State
from stanch.core.types import Duration, GroupName, Id, Instant, Label, Name, Text, hours

MAX_TARGETS = 100_000

Targets = Annotated[tuple[Name, ...], Field(max_length=MAX_TARGETS)]


MAX_ANNOUNCED = 16


class ServerAddresses(Model):
    """Addresses that agents are told besides those of the server's configuration."""

    urls: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=MAX_ANNOUNCED)]
    """All of them, best first: https://HOST:PORT of the port for agents. None takes the earlier ones back."""


class ServerAddressesView(LooseModel):
    """What agents are told about where the server is."""

    configured: tuple[Text, ...] = ()
    """URLs of the names that the server was started with."""
    announced: tuple[Text, ...] = ()
    """URLs that were announced besides."""
    peers: tuple[Text, ...] = ()
    """The addresses behind all of them, as the server resolves them now."""


LAST_RANK = 1_000_000
"""Of the group of every endpoint, which decides after all others."""


class OrderCommon(Model):
    """What every order has besides its parameters."""

    endpoints: Targets = ()
    """Endpoint ids or host names."""
    labels: Annotated[tuple[Label, ...], Field(max_length=20)] = ()
    """All endpoints that carry all of these labels."""
    group: Name | None = None
    """All endpoints of this group; with labels, those of them that carry them."""
    reason: Text = ""
    """Why; it stands in the audit."""
    case: Annotated[str, Field(max_length=200)] | None = None
    """Case or incident that it belongs to."""
    valid_for: Duration = hours(24)
    """An endpoint that is not reached in this time does not do it."""
    dry_run: bool = False
    """Only say what would be touched."""
    confirm: Annotated[str, Field(max_length=200)] | None = None
    """What it is done to, typed once more: the name of the endpoint, or how many endpoints there are. Needed for
    actions that say so; wherever it is given, it must be right."""


class TaskProgress(LooseModel):
    """How far a task is that runs, as its endpoint said last."""

    done: int
    """Of total."""
    total: int | None = None
    """Null when nobody knows."""
    unit: str = ""
    """bytes, files, ..."""
    text: str = ""
    """A line for people: of a scan, how much was found and read, and where it is."""
    paused: str = ""
    """Why it waits: `on order`, or what others need; empty if it works."""
    paused_since: Instant | None = None
    """Since when, by the clock of the server, which hears of it anew when it is restarted; null if it works."""
    at: Instant
    """When this was heard."""


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
    progress: TaskProgress | None = None
    """How far it is; null before it has said so, and once it is over."""
    result: Mapping[str, Any] | None = None
    """What the action answered; beside an error, what it had found until then."""
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
    paused: int = 0
    """How many of those that run wait."""
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
    isolation: IsolationStatus | None = None
    """Is it cut off? As last heard; null if it never said."""
    groups: tuple[str, ...] = ()
    """Its groups, the one that decides first."""
    enrolled: Instant
    """When."""


class LabelChange(Model):
    """Which labels to add and to remove."""

    add: Annotated[tuple[Label, ...], Field(max_length=50)] = ()
    """`key=value` to set."""
    remove: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    """Keys to remove."""


class GroupCreate(Model):
    """A group to be made: a name for the endpoints that carry all of its labels."""

    name: GroupName
    """Small letters, digits and . _ -"""
    labels: Annotated[tuple[Label, ...], Field(max_length=20)]
    """Labels that its endpoints carry; none means all endpoints."""
    rank: Annotated[int, Field(ge=1, le=LAST_RANK)] = 1000
    """Of the groups of an endpoint the one with the smallest rank decides, section by section."""
    description: Text = ""
    """What it is for."""


class GroupChange(Model):
    """What to change of a group; null leaves it."""

    labels: Annotated[tuple[Label, ...], Field(max_length=20)] | None = None
    """Labels that its endpoints carry."""
    rank: Annotated[int, Field(ge=1, le=LAST_RANK)] | None = None
    """Its rank."""
    description: Text | None = None
    """What it is for."""


class GroupView(LooseModel):
    """A group, as the API shows it."""

    name: Name
    """Its name."""
    labels: tuple[str, ...]
    """Labels that its endpoints carry."""
    rank: int
    """The smallest decides."""
    description: Text
    """What it is for."""
    endpoints: int
    """How many endpoints belong to it now."""
    sections: tuple[str, ...]
    """Sections that its policy sets."""


class PolicyView(LooseModel):
    """The policy of a group, as the API shows it."""

    group: Name
    """Its group."""
    version: int
    """Grows with each change; 0 before the first."""
    settings: GroupSettings
    """By section."""
    changed: Instant | None = None
    """When it was changed last."""
    changed_by: str = ""
    """Who did."""


class EffectivePolicy(LooseModel):
    """The settings of one endpoint, of all its groups together."""

    endpoint: Id
    """Which."""
    hostname: Name
    """Its host name."""
    groups: tuple[str, ...]
    """Its groups, the one that decides first."""
    settings: GroupSettings
    """By section; null where none of its groups says anything."""
    decided_by: Mapping[str, str]
    """Section to the group that decided it."""


class PolicyChange(Model):
    """A whole new policy for a group."""

    settings: NewSettings
    """By section; a section that is left out is not set."""
    based_on: Annotated[int, Field(ge=0)] | None = None
    """The version that was edited: Conflict if somebody else changed it meanwhile; null to overwrite."""


class ReleaseCodeEntry(LooseModel):
    """The code of one task."""

    task: Id
    """The task; the endpoint says which one it waits for."""
    order: Id
    """Its order."""
    action: Name
    """What it lifts the effect of."""
    code: str
    """To be typed at the endpoint: `stanch local isolation release-code CODE`."""
    in_force: bool
    """Is this the task whose effect the endpoint last said it has in force?"""
    created: Instant
    """When it was ordered."""


class ReleaseCodes(LooseModel):
    """The codes that may lift an isolation of an endpoint at the endpoint itself."""

    endpoint: Id
    """Which."""
    hostname: Name
    """Its host name."""
    codes: tuple[ReleaseCodeEntry, ...]
    """Newest first."""


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


class DetectionView(LooseModel):
    """Something that somebody should look at, as the API shows it."""

    id: int
    """Its number; later ones have larger numbers."""
    endpoint: Id
    """Where."""
    hostname: Name
    """Its host name."""
    kind: Name
    """What: see core.detections."""
    title: str
    """The same in words."""
    severity: str
    """low, medium or high."""
    detail: Mapping[str, Any]
    """As the endpoint told it: not to be trusted."""
    at: Instant
    """When, by the endpoint's clock."""
    received: Instant
    """When the server heard of it."""


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
    paused: str = ""
    """For progress: why it waits; empty if it works."""


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
    typed: bool = False
    """Its orders must say in `confirm` what it is done to."""
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
