"""Which frames may leave an isolated endpoint, and which are leaks. Standard library only, and nothing of Stanch.

It knows only what everybody outside can know: the addresses of the server, what was ordered and when, and when somebody
else flushed the endpoint's rules. All times are CLOCK_MONOTONIC in seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from tests.torture.frame import ACK, ETH_ARP, ICMP, ICMPV6, SYN, TCP, UDP, Frame

_LINK_GROUPS = bytes.fromhex("0180c20000")
"""Addresses of the link itself: spanning tree, LACP, 802.1X. No bridge passes them on."""

_ETH_8021X = 0x888E
_ETHERNET_HARDWARE = b"\x00\x01"
_SOLICIT_ROUTER, _SOLICIT, _ADVERTISE, _REPORT_V2 = 133, 135, 136, 143
_ALL_DHCP = ip_address("ff02::1:2")
_EVERYBODY = ip_address("255.255.255.255")
_ALL_MLD = ip_address("ff02::16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """What stays open, or is blocked: a network, and perhaps a protocol, a direction and ports."""

    network: IPv4Network | IPv6Network
    transport: str = "any"
    direction: str = "both"
    remote: tuple[int, int] | None = None
    local: tuple[int, int] | None = None

    @classmethod
    def of(cls, plain: Mapping) -> "Exclusion":
        """From the driver's JSON."""
        ports = {name: tuple(plain[name]) for name in ("remote", "local") if plain.get(name)}
        words = {name: plain[name] for name in ("transport", "direction") if name in plain}
        return cls(network=ip_network(plain["network"]), **words, **ports)

    def lets_out(self, frame: Frame) -> bool:
        """May this frame leave because of it: as a call outwards, or as an answer to a call inwards?"""
        if frame.target is None or frame.target.version != self.network.version or frame.target not in self.network:
            return False
        if self.transport not in {"any", frame.word}:
            return False
        inside = _within(frame.target_port, self.remote) and _within(frame.source_port, self.local)
        if not inside:
            return False
        return not (self.direction == "in" and _calls(frame)) and not (self.direction == "out" and _answers(frame))


def _within(port: int | None, ports: tuple[int, int] | None) -> bool:
    return ports is None or (port is not None and ports[0] <= port <= ports[1])


def _calls(frame: Frame) -> bool:
    """Does it surely begin something?"""
    if frame.protocol == TCP:
        return frame.flags & (SYN | ACK) == SYN
    return frame.protocol in {ICMP, ICMPV6} and frame.kind in {8, 128}


def _answers(frame: Frame) -> bool:
    """Does it surely accept what somebody else began?"""
    if frame.protocol == TCP:
        return frame.flags & (SYN | ACK) == SYN | ACK
    return frame.protocol in {ICMP, ICMPV6} and frame.kind in {0, 129}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time in which something is forbidden: everything (an isolation), or one network (a block)."""

    since: float
    until: float
    servers: frozenset = frozenset()
    """Pairs of address and port."""
    allow: tuple[Exclusion, ...] = ()
    only: Exclusion | None = None
    """A block: this is all that is forbidden."""
    sources: frozenset = frozenset()
    """Whom a block binds: the endpoint's own addresses, and those behind it."""

    @classmethod
    def of(cls, plain: Mapping) -> "Span":
        """From the driver's JSON."""
        return cls(
            since=plain["since"],
            until=float("inf") if plain.get("until") is None else plain["until"],
            servers=frozenset((ip_address(address), port) for address, port in plain.get("servers", ())),
            allow=tuple(Exclusion.of(one) for one in plain.get("allow", ())),
            only=Exclusion.of(plain["only"]) if plain.get("only") else None,
            sources=frozenset(ip_address(one) for one in plain.get("sources", ())),
        )

    def forbids(self, frame: Frame) -> bool:
        """Must this frame not leave?"""
        if self._is_for_server(frame) or is_upkeep(frame):
            return False
        if self.only is not None:
            return frame.source in self.sources and self.only.lets_out(frame)
        return not any(one.lets_out(frame) for one in self.allow)

    def _is_for_server(self, frame: Frame) -> bool:
        return frame.protocol == TCP and (frame.target, frame.target_port) in self.servers


def is_upkeep(frame: Frame) -> bool:
    """What every host must say on its link: ARP, neighbour discovery, MLD, spanning tree, LACP, 802.1X, DHCP."""
    if frame.ethertype == ETH_ARP:
        return frame.body[:2] == _ETHERNET_HARDWARE
    if frame.target_mac.startswith(_LINK_GROUPS) or frame.ethertype == _ETH_8021X:
        return True
    if frame.protocol == ICMPV6:
        discovery = frame.kind in {_SOLICIT_ROUTER, _SOLICIT, _ADVERTISE} and frame.hops == 255
        return discovery or (frame.kind == _REPORT_V2 and frame.hops == 1 and frame.target == _ALL_MLD)
    if frame.protocol == UDP:
        ends = (frame.target, frame.source_port, frame.target_port)
        return ends in {(_EVERYBODY, 68, 67), (_ALL_DHCP, 546, 547)}
    return False


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that left, and when."""

    at: float
    device: str
    frame: Frame


@dataclass(slots=True)
class Judgement:
    """What the observer found."""

    leaks: list[Seen] = field(default_factory=list)
    judged: int = 0
    """Frames that left while something was forbidden."""
    in_windows: int = 0
    """Forbidden frames inside of an announced window."""
    widest: dict[str, float] = field(default_factory=dict)
    """Seconds from the begin of a window to its last forbidden frame, by why the window was there."""


Window = tuple[float, float | None, str | None, str]
"""Since, until (None: still open), the only device that it is about (None: all), and why it is there."""


def judge(seen: Sequence[Seen], spans: Sequence[Span], windows: Sequence[Window]) -> Judgement:
    """Find the leaks: forbidden frames that left outside of every announced window."""
    found = Judgement()
    for one in seen:
        binding = [span for span in spans if span.since <= one.at < span.until]
        found.judged += bool(binding)
        if not any(span.forbids(one.frame) for span in binding):
            continue
        around = [(since, why) for since, until, device, why in windows if _covers(one, since, until, device)]
        if around:
            found.in_windows += 1
            since, why = max(around)
            found.widest[why] = max(found.widest.get(why, 0.0), one.at - since)
        else:
            found.leaks.append(one)
    return found


def _covers(one: Seen, since: float, until: float | None, device: str | None) -> bool:
    return since <= one.at and (until is None or one.at < until) and device in {None, one.device}
