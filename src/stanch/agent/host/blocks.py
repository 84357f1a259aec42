"""Blocks of single networks as a table of their own: pure functions to text, and back from the kernel's listing.

`inet stanch_block` drops what comes from and goes to these networks, for the host and for what it forwards; `netdev
stanch_block` what raw sockets send there, and what devices that share another take before the IP stack sees it. The
kernel refuses networks that overlap, and forgets each by itself when its time is over: so they are cut into pieces,
each with the longest time of those that cover it.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from itertools import pairwise
from typing import Any

from stanch.agent.host.arming import timeout
from stanch.agent.host.listing import in_use, networks
from stanch.agent.host.openings import VERSIONS, plain_address
from stanch.agent.host.ruleset import DEVICE_CHAINS, Device
from stanch.agent.host.tablespec import ENDING, Chain, Set, Table
from stanch.core.errors import Invalid
from stanch.core.network import Block, Peer
from stanch.core.types import AnyNetwork

TABLE = "stanch_block"
FIRST_NOTE = "stanch blocks 1"
MAX_BLOCKS = 10_000
MAX_SERVERS = 1000

_UPKEEP = "icmpv6 type { 133, 134, 135, 136 } ip6 hoplimit 255 accept"
"""Neighbour discovery never leaves the link; without it the server there could not be found."""

_IP = {4: "ip", 6: "ip6"}
_WAYS = ("in", "out")


@dataclass(frozen=True, slots=True)
class Piece:
    """A network, and how long it is blocked; None for ever."""

    network: AnyNetwork
    remaining: timedelta | None


def pieces(blocked: Iterable[Piece], version: int) -> list[Piece]:
    """The same networks of one version without overlaps, each as long as the longest of those that cover it."""
    ranges = sorted(
        ((int(one.network.network_address), int(one.network.broadcast_address), _length(one.remaining))
         for one in blocked if one.network.version == version),
        key=lambda one: one[:2],
    )  # fmt: skip
    edges = sorted({edge for first, last, _length in ranges for edge in (first, last + 1)})
    active: list[tuple[float, int]] = []
    found: list[tuple[int, int, float]] = []
    at = 0
    for edge, following in pairwise(edges):
        while at < len(ranges) and ranges[at][0] <= edge:
            heapq.heappush(active, (-ranges[at][2], ranges[at][1]))
            at += 1
        while active and active[0][1] < edge:
            heapq.heappop(active)
        if not active:
            continue
        longest = -active[0][0]
        if found and found[-1][1] + 1 == edge and found[-1][2] == longest:
            found[-1] = (found[-1][0], following - 1, longest)
        else:
            found.append((edge, following - 1, longest))
    return [piece for one in found for piece in _pieces(version, *one)]


_FOREVER = float("inf")


def _length(remaining: timedelta | None) -> float:
    return _FOREVER if remaining is None else remaining.total_seconds()


def _pieces(version: int, first: int, last: int, length: float) -> Iterator[Piece]:
    made: Iterator[AnyNetwork]
    if version == VERSIONS[0]:
        made = summarize_address_range(IPv4Address(first), IPv4Address(last))
    else:
        made = summarize_address_range(IPv6Address(first), IPv6Address(last))
    remaining = None if length == _FOREVER else timedelta(seconds=length)
    return (Piece(network, remaining) for network in made)


# --- to text ---------------------------------------------------------------------------------------------------------


def tables(blocks: Sequence[Block], servers: Sequence[Peer], devices: Sequence[Device], *, egress: bool) -> list[Table]:
    """The tables that drop these blocks; Invalid if they are too many."""
    if len(blocks) > MAX_BLOCKS or len(servers) > MAX_SERVERS:
        raise Invalid(
            "There are too many blocks",
            got=f"{len(blocks)} blocks, {len(servers)} servers",
            expected=f"at most {MAX_BLOCKS} blocks and {MAX_SERVERS} servers",
            hint="Name larger networks.",
        )
    sets = [*_server_sets(servers), *_block_sets(blocks)]
    chains = [
        Chain(name="notes", rules=[f'return comment "{FIRST_NOTE} {ENDING}"']),
        Chain(
            name="input",
            hook="input",
            rules=["iif lo accept", _UPKEEP, *_server("saddr", "sport"), *_drop("saddr", "in")],
        ),
        Chain(name="output", hook="output", rules=["oif lo accept", _UPKEEP, *_server("daddr", "dport"), *_refuse()]),
        Chain(name="forward", hook="forward", rules=[*_drop("saddr", "in"), *_drop("daddr", "out")]),
    ]
    made = [Table(family="inet", sets=sets, chains=chains)]
    return [*made, _netdev(sets, devices)] if egress else made


def _netdev(sets: Sequence[Set], devices: Sequence[Device]) -> Table:
    chains = [
        Chain(name="outbound", rules=[_UPKEEP, *_server("daddr", "dport"), *_drop("daddr", "out")]),
        Chain(name="inbound", rules=[_UPKEEP, *_server("saddr", "sport"), *_drop("saddr", "in")]),
        *(
            Chain(name=f"{prefix}_{one.index}", hook=f'{hook} device "{one.name}"', rules=[f"goto {target}"])
            for one in devices
            if one.coverable
            for prefix, hook, target in DEVICE_CHAINS
        ),
    ]
    return Table(family="netdev", sets=sets, chains=chains)


def _server_sets(servers: Iterable[Peer]) -> Iterator[Set]:
    known = sorted({(plain_address(one.address), one.port) for one in servers}, key=str)
    for version in VERSIONS:
        elements = [f"{address} . {port}" for address, port in known if address.version == version]
        yield Set(name=f"server{version}", kind=f"ipv{version}_addr . inet_service", elements=elements)


def _block_sets(blocks: Sequence[Block]) -> Iterator[Set]:
    for way in _WAYS:
        blocked = [Piece(one.network, one.remaining) for one in blocks if (one.inward if way == "in" else one.outward)]
        for version in VERSIONS:
            elements = [f"{one.network}{timeout(one.remaining)}" for one in pieces(blocked, version)]
            options = "flags interval, timeout"
            yield Set(name=f"{way}{version}", kind=f"ipv{version}_addr", options=options, elements=elements)


def _server(side: str, port: str) -> list[str]:
    return [f"{ip} {side} . tcp {port} @server{version}_{ENDING} accept" for version, ip in _IP.items()]


def _drop(side: str, way: str) -> list[str]:
    return [f"{ip} {side} @{way}{version}_{ENDING} counter drop" for version, ip in _IP.items()]


def _refuse() -> list[str]:
    # Local programs learn at once that their connections are cut.
    resets = [f"{ip} daddr @out{v}_{ENDING} meta l4proto tcp counter reject with tcp reset" for v, ip in _IP.items()]
    return [*resets, *_drop("daddr", "out")]


# --- and back --------------------------------------------------------------------------------------------------------


def parse(listing: Mapping[str, Any]) -> tuple[Block, ...]:
    """Read `nft -j list table inet stanch_block`; Invalid if it is none of ours."""
    try:
        items = listing["nftables"]
        (note,) = (str(item["rule"]["comment"]) for item in items if item.get("rule", {}).get("chain") == "notes")
        if not note.startswith(FIRST_NOTE):
            raise ValueError(f"got {note[:100]!r}")
        every_set = {str(item["set"]["name"]): item["set"].get("elem", []) for item in items if "set" in item}
        sets = in_use(every_set, note.removeprefix(FIRST_NOTE).strip())
        inward, outward = (_listed([*sets[f"{way}4"], *sets[f"{way}6"]]) for way in _WAYS)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise Invalid(
            f"The table {TABLE} is not one that this version wrote",
            got=f"{type(error).__name__}: {error}",
            hint=f"`nft list table inet {TABLE}` shows it.",
        ) from None
    both = {one for one in inward if one in outward and inward[one] == outward[one]}
    found = [
        *(Block(network=one, remaining=inward[one]) for one in both),
        *(Block(network=one, outward=False, remaining=inward[one]) for one in inward if one not in both),
        *(Block(network=one, inward=False, remaining=outward[one]) for one in outward if one not in both),
    ]
    return tuple(sorted(found, key=lambda one: (one.network.version, one.network, one.outward, one.inward)))


def _listed(elements: Sequence[Any]) -> dict[AnyNetwork, timedelta | None]:
    found: dict[AnyNetwork, timedelta | None] = {}
    for element in elements:
        timed = isinstance(element, Mapping) and "elem" in element
        value = element["elem"]["val"] if timed else element
        left = timedelta(seconds=int(element["elem"]["expires"])) if timed and "expires" in element["elem"] else None
        found.update(dict.fromkeys(networks([value]), left))
    return found
