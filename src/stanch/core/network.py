"""The network of an endpoint as an action touches it: isolation, blocks, and what names mean.

A part of `core.host`, which says what these protocols are for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Protocol

from pydantic import ConfigDict

from stanch.core.exclusion import CLOSED, Exclusion, Opening, Profile
from stanch.core.model import Model
from stanch.core.types import Address, AnyAddress, AnyNetwork, Port


class Peer(Model):
    """One address and port of the server, or of a proxy on the way to it."""

    address: Address
    """IPv4 or IPv6."""

    port: Port
    """TCP port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationRules:
    """What an isolated endpoint may still talk to, in numbers. Loopback and IPv6 neighbour discovery always stay."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    servers: tuple[Peer, ...]
    """Our server: open to every program."""

    proxies: tuple[Peer, ...] = ()
    """Proxies on the way to our server: open to the agent's own connections only."""

    resolvers: tuple[AnyAddress, ...] = ()
    """Where the agent itself asks for names: open to its own questions only."""

    allow: tuple[Opening, ...] = ()
    dhcp: bool = True


class IsolationState(StrEnum):
    """What an isolation is; `core.isolation.status` decides."""

    RELEASED = "released"
    """Nothing is cut."""

    ISOLATING = "isolating"
    """The rules are being put in force, or wait for the server's confirmation."""

    ISOLATED = "isolated"
    """The rules are complete and armed."""

    RELEASING = "releasing"
    """The rules are being removed."""

    TAMPERED = "tampered"
    """It is ordered, but somebody else has removed or changed the rules."""

    PARTIAL = "partial"
    """In force, but this machine cannot do all of it: `not_covered` says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelIsolation:
    """The isolation as the kernel has it."""

    state: IsolationState
    """RELEASED, ISOLATED or PARTIAL."""

    rules: IsolationRules | None
    """The rules in force, with openings as the kernel tells them; None when released, or when they are not readable."""

    remaining: timedelta | None
    """Until the kernel itself lifts it; None when it never does, or when released."""

    damaged: bool = False
    """Is less in force than was put there: a chain, a rule, a whole table gone? False if nothing is expected."""

    not_covered: tuple[str, ...] = ()
    """What the tables cannot reach on this machine, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Block:
    """A network that the endpoint may not talk to."""

    network: AnyNetwork
    inward: bool = True
    """Does it drop what comes from there?"""

    outward: bool = True
    """Does it drop what goes there?"""

    remaining: timedelta | None = None
    """Until the kernel itself lifts it; None for never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """An open network socket."""

    protocol: str
    """tcp or udp."""

    local: str
    remote: str
    state: str


class Firewall(Protocol):
    """Network isolation and blocks, in tables of our own; bound to one network namespace, and refusing any other.

    Deadlines are part of the rules: the kernel stops enforcing them when they pass, whoever is still alive.
    """

    async def isolate(self, rules: IsolationRules, *, lift_after: timedelta | None) -> None:
        """Put the rules in force in one transaction, replacing earlier ones; Unsupported if the kernel cannot."""
        ...

    async def lift(self) -> bool:
        """Remove the isolation in one transaction; False if there was none."""
        ...

    async def isolation(self) -> KernelIsolation:
        """What is in force."""
        ...

    def is_in_force(self, now: KernelIsolation, rules: IsolationRules) -> bool:
        """Does the kernel enforce these rules, all of them, whatever their order and however networks are cut?"""
        ...

    async def forbidden_sockets(self, rules: IsolationRules) -> tuple[Socket, ...]:
        """Connected sockets to peers that the rules do not allow; loopback excepted."""
        ...

    async def destroy_sockets(self, rules: IsolationRules) -> int:
        """Destroy every forbidden socket, idle ones included; how many. Unsupported if the kernel cannot."""
        ...

    async def block(self, blocks: Sequence[Block], *, servers: Sequence[Peer]) -> None:
        """Let exactly these blocks be in force, in one transaction; what goes to our own servers is never dropped."""
        ...

    async def blocks(self) -> tuple[Block, ...]:
        """The blocks in force, cut into networks that do not overlap."""
        ...

    async def destroy_blocked(self, block: Block) -> int:
        """Destroy every connected socket to a network; how many."""
        ...

    async def own_addresses(self) -> frozenset[AnyAddress]:
        """Every address of this machine, the loopback's included."""
        ...


# --- names ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What exclusions mean on this endpoint now."""

    openings: tuple[Opening, ...]
    resolvers: tuple[AnyAddress, ...] = ()
    """Where names are asked for; none if no exclusion needs any."""

    not_open: tuple[str, ...] = ()
    """What opens nothing now, and why, one line each."""

    unknown: Mapping[Exclusion, str] = field(default_factory=dict)
    """Those of which nobody tells now what they mean, each with its line: they may have meant something once."""


class Names(Protocol):
    """What names mean on this endpoint: hosts, accounts, systemd units, and what its own configuration names."""

    async def resolve(self, exclusions: Sequence[Exclusion], profiles: Sequence[Profile]) -> Resolved:
        """All of them in numbers, within seconds; what cannot be resolved is told, not raised.

        A host name that has been resolved before, and gets no answer now, keeps its addresses.
        """
        ...
