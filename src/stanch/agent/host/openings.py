"""Openings in the kernel's order: which of them are sets, in how many layers, and which need rules of their own.

A plain opening is a network in a set. One with a protocol, ports or a direction is an element with four parts (address,
protocol, remote port, local port) of the sets `out`, for what the endpoint opens, or `in`, for what a peer opens. The
kernel refuses elements that overlap: so networks are collapsed for each shape (protocol and ports), and shapes that
overlap, for networks that do, go into different layers, each a set of its own. An opening for an account or a control
group is a rule.
"""

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Address, collapse_addresses
from typing import cast

from stanch.core.errors import Invalid
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, Peer
from stanch.core.types import AnyAddress, AnyNetwork, parse_network

MAX_PEERS = 1000
MAX_NETWORKS = 20_000
MAX_BOUND = 200
"""Openings for an account or a control group: each is a rule that many packets have to pass."""

MAX_LAYERS = 16
MAX_UID = 2**32 - 2

EVERY_PORT = Ports(0, 65_535)
VERSIONS = (4, 6)

_CGROUP = re.compile(r"(?![/.])[A-Za-z0-9_.:@\\+=,~/-]{1,1000}")
"""Paths that nft can be told inside its quotes."""

_ALL_OF = {Transport.ANY: (Transport.TCP, Transport.UDP, Transport.ICMP)}


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What an opening opens, without its network."""

    transport: Transport
    remote: Ports = EVERY_PORT
    local: Ports = EVERY_PORT

    @classmethod
    def of(cls, one: Opening) -> "Shape":
        """The shape of an opening."""
        return cls(one.transport, one.remote or EVERY_PORT, one.local or EVERY_PORT)

    def opening(self, network: AnyNetwork, direction: Direction) -> Opening:
        """An opening of this shape."""
        return Opening(
            network=network,
            transport=self.transport,
            direction=direction,
            remote=None if self.remote == EVERY_PORT else self.remote,
            local=None if self.local == EVERY_PORT else self.local,
        )


Element = tuple[AnyNetwork, Shape]
Layer = tuple[Element, ...]
_Side = dict[Shape, list[AnyNetwork]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Rules as the kernel gets them: sorted, without duplicates and overlaps."""

    servers: tuple[Peer, ...]
    proxies: tuple[Peer, ...]
    resolvers: tuple[AnyAddress, ...]
    allow: tuple[AnyNetwork, ...]
    layers: Mapping[str, tuple[Layer, ...]]
    """By the names of sets without their number: out4, in4, out6, in6."""

    bound: tuple[Opening, ...]
    """Openings for an account or a control group."""

    dhcp: bool

    @property
    def size(self) -> int:
        """How many openings the kernel is told."""
        return len(self.allow) + len(self.bound) + sum(len(one) for layers in self.layers.values() for one in layers)

    @property
    def rules(self) -> IsolationRules:
        """The same rules, in canonical form."""
        sides = {name: [one for layer in layers for one in layer] for name, layers in self.layers.items()}
        shaped = [one for version in VERSIONS for one in _merged(sides[f"out{version}"], sides[f"in{version}"])]
        return IsolationRules(
            servers=self.servers,
            proxies=self.proxies,
            resolvers=self.resolvers,
            allow=(*(Opening(network=one) for one in self.allow), *shaped, *self.bound),
            dhcp=self.dhcp,
        )


def canonical(rules: IsolationRules) -> IsolationRules:
    """The same rules as the kernel keeps them: sorted, without duplicates, overlaps and zones.

    Raises Invalid if there are more than the kernel should be asked to hold.
    """
    return layout(rules).rules


def layout(rules: IsolationRules) -> Layout:
    """How the kernel is told these rules; Invalid if they are more than it should be asked to hold."""
    _bound(len(rules.servers) + len(rules.proxies) + len(rules.resolvers), MAX_PEERS, "servers, proxies and resolvers")
    _bound(len(rules.allow), MAX_NETWORKS, "openings")
    allow = [_checked(one) for one in rules.allow]
    bound = list(_bound_openings(one for one in allow if is_bound(one)))
    _bound(len(bound), MAX_BOUND, "openings for accounts and units")
    free = [one for one in allow if not is_bound(one)]
    plain = [one.network for one in free if one.is_plain]
    shaped = [one for one in free if not one.is_plain]
    return Layout(
        servers=_peers(rules.servers),
        proxies=_peers(rules.proxies),
        resolvers=tuple(sorted({plain_address(one) for one in rules.resolvers}, key=_address_key)),
        allow=tuple(one for version in VERSIONS for one in _collapsed(plain, version)),
        layers={
            f"{way}{version}": _layers(_side(shaped, direction, version))
            for version in VERSIONS
            for way, direction in (("out", Direction.OUT), ("in", Direction.IN))
        },
        bound=tuple(sorted(bound, key=_opening_key)),
        dhcp=rules.dhcp,
    )


def is_bound(one: Opening) -> bool:
    """Is it for an account or a control group only?"""
    return one.uid is not None or one.cgroup is not None


def plain_address(address: AnyAddress) -> AnyAddress:
    """Without the zone, and as IPv4 where it is IPv4 inside: that is how packets carry it."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _bound(count: int, most: int, what: str) -> None:
    if count > most:
        raise Invalid(
            "The isolation has too many exceptions",
            got=f"{count} {what}",
            expected=f"at most {most} {what}",
            hint="Name larger networks.",
        )


def _checked(one: Opening) -> Opening:
    ports = [ports for ports in (one.remote, one.local) if ports is not None]
    if not all(0 <= ports.first <= ports.last <= EVERY_PORT.last for ports in ports):
        raise Invalid("An opening has impossible ports", got=", ".join(map(str, ports)), expected="0 to 65535")
    if ports and not one.transport.has_ports:
        raise Invalid("An opening has ports of a protocol without any", got=one.transport, expected="tcp or udp")
    if one.uid is not None and not 0 <= one.uid <= MAX_UID:
        raise Invalid("An opening is for an impossible account", got=one.uid, expected=f"0 to {MAX_UID}")
    if one.cgroup is not None and (not _CGROUP.fullmatch(one.cgroup) or ".." in one.cgroup.split("/")):
        raise Invalid(
            "An opening is for a control group that nft cannot be told",
            got=one.cgroup[:100],
            expected="a path below the root of cgroup v2, of letters, digits and plain signs",
        )
    if one.uid is not None and one.cgroup is not None:
        raise Invalid("An opening is for an account and a control group", expected="one of them")
    network = parse_network(one.network)
    return one if network is one.network else replace(one, network=network)


# --- order -----------------------------------------------------------------------------------------------------------


def _address_key(one: AnyAddress) -> tuple[int, int]:
    return one.version, int(one)


def _network_key(one: AnyNetwork) -> tuple[int, int, int]:
    return one.version, int(one.network_address), one.prefixlen


def _opening_key(one: Opening) -> tuple[int, str, Shape, Direction, tuple[int, int, int]]:
    uid = -1 if one.uid is None else one.uid
    return uid, one.cgroup or "", Shape.of(one), one.direction, _network_key(one.network)


def _peers(peers: Iterable[Peer]) -> tuple[Peer, ...]:
    found = {(plain_address(peer.address), peer.port) for peer in peers}
    ordered = sorted(found, key=lambda peer: (*_address_key(peer[0]), peer[1]))
    return tuple(Peer(address=address, port=port) for address, port in ordered)


def _collapsed(networks: Iterable[AnyNetwork], version: int) -> list[AnyNetwork]:
    # Most are asked for twice or more: equal ones are told apart faster by their numbers.
    kept = {_network_key(one): one for one in networks if one.version == version}
    if len(kept) < 2:  # noqa: PLR2004 - nothing to collapse
        return list(kept.values())
    # It takes either version, but not both: the cast only says "one".
    return list(collapse_addresses(cast("Iterator[IPv4Network]", iter(kept.values()))))


def _bound_openings(openings: Iterable[Opening]) -> Iterator[Opening]:
    groups: dict[tuple[Shape, Direction, int | None, str | None], list[AnyNetwork]] = {}
    for one in openings:
        # Who receives a packet is not known in time: for an account there is only outward.
        direction = Direction.OUT if one.uid is not None else one.direction
        groups.setdefault((Shape.of(one), direction, one.uid, one.cgroup), []).append(one.network)
    for (shape, direction, uid, cgroup), networks in groups.items():
        for version in VERSIONS:
            for network in _collapsed(networks, version):
                yield replace(shape.opening(network, direction), uid=uid, cgroup=cgroup)


def _side(openings: Iterable[Opening], direction: Direction, version: int) -> _Side:
    """The networks of each shape that are open in one direction."""
    found: _Side = {}
    for one in openings:
        if one.network.version == version and one.direction in {direction, Direction.BOTH}:
            found.setdefault(Shape.of(one), []).append(one.network)
    return {shape: _collapsed(found[shape], version) for shape in sorted(found)}


def _merged(outward: Iterable[Element], inward: Iterable[Element]) -> list[Opening]:
    """What is open either way, as openings; both ways where the same is open in both."""
    out, into = set(outward), set(inward)
    # Everything of a network both ways would be a plain opening, which is another set.
    both = {one for one in out & into if one[1] != Shape(Transport.ANY)}
    sides = ((Direction.BOTH, both), (Direction.OUT, out - both), (Direction.IN, into - both))
    found = [shape.opening(network, direction) for direction, elements in sides for network, shape in elements]
    return sorted(found, key=_opening_key)


# --- layers ----------------------------------------------------------------------------------------------------------


def _layers(side: _Side) -> tuple[Layer, ...]:
    layers: list[list[Element]] = []
    for cluster in _clusters(side):
        numbers = colour({shape for _network, shape in cluster})
        layers += [[] for _ in range(max(numbers.values()) + 1 - len(layers))]
        for element in cluster:
            layers[numbers[element[1]]].append(element)
    return tuple(map(tuple, layers))


def _clusters(side: _Side) -> Iterator[list[Element]]:
    """Elements whose networks lie within one that is among them: nothing overlaps beyond these."""
    elements = [(*_network_key(one), shape, one) for shape, networks in side.items() for one in networks]
    cluster: list[Element] = []
    last = -1
    for _version, first, length, shape, network in sorted(elements):
        if first > last and cluster:
            yield cluster
            cluster = []
        if first > last:
            last = first + (1 << (network.max_prefixlen - length)) - 1
        cluster.append((network, shape))
    if cluster:
        yield cluster


def colour(shapes: Iterable[Shape]) -> dict[Shape, int]:
    """A layer for each shape, so that no two in a layer overlap; Invalid if more than sixteen are needed.

    A sweep over the remote ports; each layer remembers as bits which local ports its shapes at this point cover.
    """
    ordered = sorted(shapes, key=lambda one: (one.remote, one))
    if len(ordered) == 1:
        return {ordered[0]: 0}
    numbers: dict[Shape, int] = {}
    ends: list[tuple[int, Shape]] = []
    layers: list[dict[Transport, int]] = []
    for shape in ordered:
        while ends and ends[0][0] < shape.remote.first:
            over = heapq.heappop(ends)[1]
            _mark(layers[numbers[over]], over, on=False)
        numbers[shape] = _first_free(layers, shape)
        heapq.heappush(ends, (shape.remote.last, shape))
    return numbers


def _first_free(layers: list[dict[Transport, int]], shape: Shape) -> int:
    bits = _bits(shape.local)
    free = (at for at, layer in enumerate(layers) if not any(layer[one] & bits for one in _protocols(shape)))
    number = next(free, len(layers))
    if number == MAX_LAYERS:
        raise Invalid(
            "The exclusions overlap too deeply",
            got=f"more than {MAX_LAYERS} that share a network, a protocol and ports, each with others besides",
            expected=f"at most {MAX_LAYERS} different ranges over one port of one network",
            hint="Write them as one range.",
        )
    if number == len(layers):
        layers.append(dict.fromkeys((Transport.TCP, Transport.UDP, Transport.ICMP), 0))
    _mark(layers[number], shape, on=True)
    return number


def _mark(layer: dict[Transport, int], shape: Shape, *, on: bool) -> None:
    bits = _bits(shape.local)
    for one in _protocols(shape):
        layer[one] = layer[one] | bits if on else layer[one] & ~bits


def _bits(ports: Ports) -> int:
    return ((1 << (ports.last - ports.first + 1)) - 1) << ports.first


def _protocols(shape: Shape) -> Sequence[Transport]:
    return _ALL_OF.get(shape.transport, (shape.transport,))
