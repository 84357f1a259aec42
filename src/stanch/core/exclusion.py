"""Exclusions: what stays open on an isolated endpoint, in the words of people.

    [in|out|both] [tcp|udp|icmp] PEER [remote PORTS] [local PORTS] [user NAME] [unit NAME]

    10.0.0.0/8                            everything from and to a network
    out tcp 192.0.2.7 remote 443          connections that the endpoint opens
    in tcp 192.0.2.0/24 local 22          connections that it accepts
    out udp time.example.com remote 123   a name, resolved on the endpoint and kept up to date
    out tcp any user backup               what one account sends
    both any unit backup.service          what one systemd unit sends and receives

The words say what is meant; `Opening` is the same in numbers, as the kernel of one endpoint is told it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from stanch.core.types import AnyNetwork, TypeInfo, parse_network

MAX_PORT = 65_535
MAX_TEXT = 700
"""Characters of one exclusion: the longest name of a host, a user and a unit, with ports."""

ANYWHERE = "any"

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9_.:@\\-]{1,255}", re.ASCII)
_MAX_HOST = 253


class Direction(StrEnum):
    """Who opens the conversation; answers always pass."""

    IN = "in"
    """A peer does."""

    OUT = "out"
    """The endpoint does."""

    BOTH = "both"
    """Either."""

    @property
    def inward(self) -> bool:
        """May a peer open it?"""
        return self is not Direction.OUT

    @property
    def outward(self) -> bool:
        """May the endpoint open it?"""
        return self is not Direction.IN


class Transport(StrEnum):
    """What the packets carry. ICMP means that of IPv4 and that of IPv6."""

    ANY = "any"
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"

    @property
    def has_ports(self) -> bool:
        """Are there ports in it?"""
        return self in {Transport.TCP, Transport.UDP}


class Profile(StrEnum):
    """Exclusions that every endpoint knows by itself, from its own configuration."""

    DHCP = "dhcp"
    """The endpoint keeps its address."""

    DNS = "dns"
    """Names, at the resolvers that the endpoint is configured for. Beware: data can leave through DNS."""

    NTP = "ntp"
    """The time, at the servers that the endpoint is configured for."""

    UPDATES = "updates"
    """The package sources that the endpoint is configured for."""


CLOSED = ConfigDict(extra="forbid")
"""Of what is read from a journal: a word that this version does not know may narrow what is open, and must not be lost.
"""


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """A range of ports, both ends included."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`443` or `8000-8100`; ValueError otherwise."""
        first, dash, last = text.partition("-")
        if not (_is_port(first) and (_is_port(last) if dash else True)):
            raise ValueError(f"got {text[:30]!r}, expected a port from 1 to 65535, or a range such as 8000-8100")
        made = cls(int(first), int(last or first))
        if made.first > made.last:
            raise ValueError(f"got {text}, expected a range with its smaller end first")
        return made

    @property
    def is_range(self) -> bool:
        """More than one port?"""
        return self.first != self.last

    @property
    def is_every(self) -> bool:
        """All that there are?"""
        return self.first <= 1 and self.last >= MAX_PORT

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.is_range else str(self.first)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PORT)) and 1 <= int(text) <= MAX_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """One exclusion. Its text is its form everywhere: in JSON, on the command line, on the disk."""

    type_info: ClassVar[TypeInfo] = TypeInfo(
        "exclusion",
        "out tcp 192.0.2.7 remote 443",
        "What stays open: [in|out|both] [tcp|udp|icmp] NETWORK, NAME or any [remote PORTS] [local PORTS] [user NAME] "
        "[unit NAME].",
    )

    peer: AnyNetwork | str | None
    """A network, a name, or None for anywhere."""

    transport: Transport = Transport.ANY
    direction: Direction = Direction.BOTH
    remote: Ports | None = None
    local: Ports | None = None
    user: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        wrong = next(_contradictions(self), None)
        if wrong is not None:
            raise ValueError(wrong)

    @classmethod
    def parse(cls, value: object) -> Self:
        """An exclusion from its text, a network, or another exclusion; ValueError otherwise."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str | IPv4Network | IPv6Network):
            raise ValueError(f"got {type(value).__name__}, expected text")  # noqa: TRY004 - pydantic wants ValueError
        text = str(value)
        if len(text) > MAX_TEXT:
            raise ValueError(f"got {len(text)} characters, expected at most {MAX_TEXT}")
        return cls(**_read(text.split()))

    @property
    def name(self) -> str | None:
        """The name that must be resolved, or None."""
        return self.peer if isinstance(self.peer, str) else None

    @property
    def is_whole(self) -> bool:
        """Does it leave everything open that its peer, or anybody there, may send or be sent?"""
        ports = any(ports is not None and not ports.is_every for ports in (self.remote, self.local))
        return not (ports or self.user or self.unit) and self.transport is not Transport.ICMP

    @property
    def opens_everything(self) -> bool:
        """Does it leave a whole address family open to everybody?"""
        everywhere = self.peer is None or (not isinstance(self.peer, str) and self.peer.prefixlen == 0)
        return self.is_whole and everywhere

    def __str__(self) -> str:
        words = [] if self.direction is Direction.BOTH else [str(self.direction)]
        words += [] if self.transport is Transport.ANY else [str(self.transport)]
        words.append(_show_peer(self.peer))
        options = {"remote": self.remote, "local": self.local, "user": self.user, "unit": self.unit}
        for word, given in options.items():
            words += [] if given is None else [word, str(given)]
        return " ".join(words)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "string",
            "format": "stanch-exclusion",
            "examples": [cls.type_info.example],
            "maxLength": MAX_TEXT,
        }


def _show_peer(peer: AnyNetwork | str | None) -> str:
    if peer is None or isinstance(peer, str):
        return peer or ANYWHERE
    # One address is written without the length that says so.
    return str(peer.network_address if peer.prefixlen == peer.max_prefixlen else peer)


def _contradictions(one: Exclusion) -> Iterator[str]:
    """What cannot be meant, each with the reason."""
    if isinstance(one.peer, str) and not _is_host(one.peer):
        yield f"got {one.peer[:100]!r}, expected a network, an address, a host name or any"
    if isinstance(one.peer, IPv6Network) and parse_network(one.peer) != one.peer:
        yield f"got {one.peer}, expected it as the IPv4 network that it means"
    if (one.remote or one.local) and not one.transport.has_ports:
        yield f"got ports of {one.transport}, expected tcp or udp before the peer: only they have ports"
    if one.direction is Direction.BOTH and any(ports and ports.is_range for ports in (one.remote, one.local)):
        yield "got a range of ports in both directions, expected in or out: a range opens one direction only"
    if one.user and one.direction is not Direction.OUT:
        yield f"got user {one.user} with {one.direction}, expected out: who receives a packet is not known in time"
    if one.user and one.unit:
        yield "got a user and a unit, expected one of them"
    for word, value, form in (("user", one.user, _USER), ("unit", one.unit, _UNIT)):
        if value is not None and not form.fullmatch(value):
            yield f"got {word} {value[:100]!r}, expected the name of a {word}"


def _is_host(text: str) -> bool:
    """Small letters, no dot at the end. A word of the language is no name: `tcp` alone is a peer that was forgotten."""
    labels = text.split(".")
    good = len(text) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdecimal()
    return good and text not in _WORDS


def leaves_everything_open(exclusions: Sequence[Exclusion]) -> bool:
    """Do these, alone or together, leave a whole address family open to everybody?"""
    if any(one.opens_everything for one in exclusions):
        return True
    plain = [one.peer for one in exclusions if one.is_whole]
    four = [*collapse_addresses(one for one in plain if isinstance(one, IPv4Network))]
    six = [*collapse_addresses(one for one in plain if isinstance(one, IPv6Network))]
    return any(one.prefixlen == 0 for one in four) or any(one.prefixlen == 0 for one in six)


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rest = list(words)
    if rest and rest[0] in set(Direction):
        found["direction"] = Direction(rest.pop(0))
    # `any` before a peer is a protocol, alone it is the peer.
    if len(rest) > 1 and rest[0] in set(Transport) and rest[1] not in _OPTIONS:
        found["transport"] = Transport(rest.pop(0))
    if not rest or rest[0] in _OPTIONS:
        raise ValueError(f"got {' '.join(words)!r}, expected a network, an address, a host name or any")
    found["peer"] = _read_peer(rest.pop(0))
    while rest:
        word = rest.pop(0)
        if word not in _OPTIONS or word in found or not rest:
            raise ValueError(f"got {word[:100]!r}, expected {', '.join(_OPTIONS)}, each once and with its value")
        value = rest.pop(0)
        found[word] = Ports.parse(value) if word in {"remote", "local"} else value
    return found


_OPTIONS = ("remote", "local", "user", "unit")
_WORDS = frozenset({*Direction, *Transport, *_OPTIONS})


def _read_peer(word: str) -> AnyNetwork | str | None:
    if word == ANYWHERE:
        return None
    if "/" in word or ":" in word or "%" in word or word.replace(".", "").isdecimal():
        try:
            return parse_network(word)
        except ValueError as error:
            raise ValueError(f"got {word[:100]!r}, expected a network or an address ({error})") from None
    return word.lower().removesuffix(".")


# --- in numbers ------------------------------------------------------------------------------------------------------

EVERYWHERE: tuple[AnyNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An exclusion as the kernel is told it: no names left."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    network: AnyNetwork
    transport: Transport = Transport.ANY
    direction: Direction = Direction.BOTH
    remote: Ports | None = None
    local: Ports | None = None

    uid: int | None = None
    """Only what this account sends, and its answers."""

    cgroup: str | None = None
    """Only what this control group sends and receives: its path below the root of cgroup v2, without a slash first."""

    @property
    def is_plain(self) -> bool:
        """Is it just a network?"""
        narrowed = self.remote or self.local or self.uid is not None or self.cgroup is not None
        return not narrowed and self.transport is Transport.ANY and self.direction is Direction.BOTH


def openings(
    exclusion: Exclusion, networks: Iterable[AnyNetwork], *, uid: int | None, cgroup: str | None
) -> list[Opening]:
    """What an exclusion means once its name is known to be these networks, its user this uid, its unit this cgroup."""
    return [
        Opening(
            network=network,
            transport=exclusion.transport,
            direction=exclusion.direction,
            remote=exclusion.remote,
            local=exclusion.local,
            uid=uid,
            cgroup=cgroup,
        )
        for network in networks
    ]


def may_come_from(exclusion: Exclusion, opening: Opening) -> bool:
    """May an opening be what this exclusion meant once, whatever its name, user or unit meant then?"""
    fixed = fixed_networks(exclusion)
    return (
        (opening.network in fixed if fixed is not None else opening.network.prefixlen == opening.network.max_prefixlen)
        and (opening.transport, opening.direction) == (exclusion.transport, exclusion.direction)
        and (opening.remote, opening.local) == (exclusion.remote, exclusion.local)
        and (opening.uid is None, opening.cgroup is None) == (exclusion.user is None, exclusion.unit is None)
    )


def fixed_networks(exclusion: Exclusion) -> tuple[AnyNetwork, ...] | None:
    """Its networks where they need no resolving; None for a name."""
    if exclusion.peer is None:
        return EVERYWHERE
    return None if isinstance(exclusion.peer, str) else (exclusion.peer,)


def address_network(address: str) -> AnyNetwork:
    """One address, as a network."""
    return parse_network(str(ip_address(address)))
