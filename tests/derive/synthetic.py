"""Parameters of every kind: no real action has them all."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from stanch.core.action import AfterCrash, Irreversible, Pair, Params, Plan, Result, Risk, action
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.types import (
    Duration,
    EndpointPath,
    EvidenceRef,
    Instant,
    Network,
    Pid,
    Port,
    Secret,
    Sha256,
    Text,
    hours,
)


class Colour(StrEnum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Rule(Model):
    """Something with structure."""

    path: EndpointPath
    """Where."""
    strict: bool = False
    """How."""


class Everything(Params):
    """One of each."""

    pid: Pid
    """A number that describes itself."""
    text: Text = ""
    """Free text."""
    note: Text | None = None
    """Text that may be missing, and may read `none`."""
    title: Text | None = "a title"
    """Text with a default, which `none` removes."""
    count: Annotated[int, Field(ge=-5, le=10)] = 3
    """A number."""
    ratio: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    """A fraction."""
    on: bool = True
    """A switch that is on."""
    off: bool = False
    """A switch that is off."""
    maybe: bool | None = None
    """Yes, no, or nobody knows."""
    colour: Colour = Colour.RED
    """A choice."""
    level: Literal["low", "high"] | None = None
    """A choice that may be missing."""
    lasts: Duration | None = hours(5)
    """How long."""
    at: Instant | None = None
    """When."""
    hashes: Annotated[tuple[Sha256, ...], Field(max_length=5)] = ()
    """Several."""
    networks: Annotated[tuple[Network, ...], Field(max_length=5)] | None = None
    """Several, or none at all."""
    ports: Annotated[frozenset[Port], Field(max_length=5)] = frozenset()
    """A set."""
    path: EndpointPath | None = None
    """A path."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=5)] = ()
    """Things with structure."""
    table: Annotated[Mapping[str, EndpointPath], Field(max_length=5)] = {}
    """A mapping, whose values describe themselves."""
    pair: tuple[int, str] | None = None
    """Not a list."""
    key: Secret | None = None
    """Never shown."""


class Anything(Result):
    """What came of it."""

    evidence: EvidenceRef | None
    """Bytes."""


async def _plan(host: Host, params: Everything) -> Plan:
    return Plan(changes=False)


async def _verify(host: Host, params: Everything, result: Anything | None):
    raise NotImplementedError


@action(
    "do_everything",
    version=3,
    risk=Risk.DESTRUCTIVE,
    after_crash=AfterCrash.UNKNOWN,
    plan=_plan,
    verify=_verify,
    undo=Irreversible("It was only a test | really."),
    openc2=Pair("set", "device"),
    examples=("web-01 --pid 1",),
)
async def do_everything(host: Host, params: Everything) -> Anything:
    """Do everything at once.

    It is made up.
    """
    raise NotImplementedError


class Nothing(Params):
    """Nothing to say."""


class Done(Result):
    """Done."""


@action("do_nothing", version=1, risk=Risk.READ_ONLY, after_crash=AfterCrash.RERUN, examples=("web-01",))
async def do_nothing(host: Host, params: Nothing) -> Done:
    """Do nothing."""
    return Done()
