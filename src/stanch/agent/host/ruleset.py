"""The isolation as nftables text, and back from what the kernel lists: pure functions.

Two tables of our own. `inet stanch` filters what the host's own network stack sends, receives and forwards; it comes
before everything else (priority -300), needs no connection tracking, and an accept in it is not final: other tables
still see the packet. `netdev stanch` filters what leaves through each device, so that frames made by raw sockets or
switched by a bridge do not get out either.

Everything that drops matches only while the set `armed` holds an element, and the element has a time-out: the kernel
stops enforcing by itself, whoever is still alive. The chains' policy is accept, because a new base chain is consulted
before the rules of its transaction are: with policy drop, each replacement would lose packets that are allowed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    collapse_addresses,
    ip_address,
    ip_network,
    summarize_address_range,
)
from typing import Any, cast

from stanch.core.errors import Invalid
from stanch.core.host import IsolationRules, Peer
from stanch.core.types import AnyAddress, AnyNetwork

TABLE = "stanch"
LIFT = f"add table inet {TABLE}; delete table inet {TABLE}; add table netdev {TABLE}; delete table netdev {TABLE}"
"""Removes both tables in one transaction, whether they are there or not."""

MAX_PEERS = 1000
MAX_NETWORKS = 20_000
MAX_DEVICES = 10_000

_DEVICE = re.compile(r"[A-Za-z0-9_.@+=#%,-]{1,15}")
"""Names that nft can be told. The kernel allows more (quotes, `*`): such a device cannot be covered, and we say so."""

_ARMED = "meta mark and 0x0 @armed"  # a lookup that any packet passes while the set holds its one element


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A network device that is not the loopback."""

    index: int
    name: str

    @property
    def coverable(self) -> bool:
        """Can nft be told its name?"""
        return _DEVICE.fullmatch(self.name) is not None


def canonical(rules: IsolationRules) -> IsolationRules:
    """The same rules as the kernel keeps them: sorted, without duplicates, overlaps and zones.

    Raises Invalid if there are more than the kernel should be asked to hold.
    """
    peers = {(_plain(peer.address), peer.port) for peer in rules.servers}
    if len(peers) > MAX_PEERS or len(rules.allow) > MAX_NETWORKS:
        raise Invalid(
            "The isolation has too many exceptions",
            got=f"{len(peers)} servers, {len(rules.allow)} networks",
            expected=f"at most {MAX_PEERS} servers and {MAX_NETWORKS} networks",
            hint="Name larger networks.",
        )
    ordered = sorted(peers, key=lambda peer: (peer[0].version, int(peer[0]), peer[1]))
    return IsolationRules(
        servers=tuple(Peer(address=address, port=port) for address, port in ordered),
        allow=(*_collapsed(rules.allow, 4), *_collapsed(rules.allow, 6)),
    )


def _plain(address: AnyAddress) -> AnyAddress:
    """Without the zone, and as IPv4 where it is IPv4 inside: that is how packets carry it."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _collapsed(networks: Iterable[AnyNetwork], version: int) -> Iterator[AnyNetwork]:
    one_version = cast("Iterator[IPv4Network]", (one for one in networks if one.version == version))
    return collapse_addresses(one_version)  # it takes either version, but not both: the cast only says "one"


class Reach:
    """What the rules leave reachable: the same decision as the kernel's, for sockets that exist already."""

    def __init__(self, rules: IsolationRules) -> None:
        kept = canonical(rules)
        self._peers = frozenset((peer.address, peer.port) for peer in kept.servers)
        self._networks: dict[tuple[int, int], set[int]] = {}
        for network in kept.allow:
            shift = network.max_prefixlen - network.prefixlen
            self._networks.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    def allows(self, protocol: str, address: AnyAddress, port: int) -> bool:
        """Whether this peer stays reachable."""
        plain = _plain(address)
        if plain.is_loopback or (protocol == "tcp" and (plain, port) in self._peers):
            return True
        return any(
            version == plain.version and int(plain) >> shift in starts
            for (version, shift), starts in self._networks.items()
        )


# --- from rules to text ----------------------------------------------------------------------------------------------


def render(rules: IsolationRules, devices: Sequence[Device], *, lift_after: timedelta | None) -> str:
    """One transaction that puts the rules in force and replaces whatever our tables held before.

    Devices that nft cannot name are left out. Each statement ends with a semicolon, so that the lines may be joined.
    """
    kept = canonical(rules)
    covered = [device for device in devices if device.coverable][:MAX_DEVICES]
    blocks = [
        f"add table inet {TABLE};",
        f"delete table inet {TABLE};",
        f"add table netdev {TABLE};",
        f"delete table netdev {TABLE};",
        *_block(f"table inet {TABLE}", [*_sets(kept, lift_after), *_input(), *_output(), *_forward()]),
        *_block(f"table netdev {TABLE}", [*_sets(kept, lift_after), *_egress(covered)]),
    ]
    return "\n".join(blocks) + "\n"


def _block(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"    {line}" for line in lines), "};"]


def _sets(rules: IsolationRules, lift_after: timedelta | None) -> Iterator[str]:
    yield from _set("armed", "mark", [f"0x0{_timeout(lift_after)}"], flags="timeout")
    for version in (4, 6):
        peers = [f"{one.address} . {one.port}" for one in rules.servers if one.address.version == version]
        networks = [str(one) for one in rules.allow if one.version == version]
        yield from _set(f"server{version}", f"ipv{version}_addr . inet_service", peers)
        yield from _set(f"allow{version}", f"ipv{version}_addr", networks, flags="interval")


def _timeout(lift_after: timedelta | None) -> str:
    if lift_after is None:
        return ""
    # Piece by piece: nft takes no number of more than eight digits, ten thousand hours in seconds are that long.
    whole = max(lift_after, timedelta(milliseconds=1))
    minutes, rest = divmod(whole, timedelta(minutes=1))
    hours, minute = divmod(minutes, 60)
    return f" timeout {hours // 24}d{hours % 24}h{minute}m{rest.seconds}s{rest.microseconds // 1000}ms"


def _set(name: str, kind: str, elements: Sequence[str], *, flags: str = "") -> list[str]:
    lines = [f"type {kind};"]
    if flags:
        lines.append(f"flags {flags};")
    if elements:
        lines.append(f"elements = {{ {', '.join(elements)} }};")
    return _block(f"set {name}", lines)


def _base_chain(name: str, rules: Iterable[str]) -> list[str]:
    return _block(f"chain {name}", [f"type filter hook {name} priority -300; policy accept;", *rules])


def _input() -> list[str]:
    return _base_chain(
        "input",
        [
            "iif lo accept;",
            # Answers of DHCP come from servers that we cannot know.
            "meta nfproto ipv4 udp sport 67 udp dport 68 accept;",
            "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept;",
            "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept;",
            "ip6 saddr fe80::/10 icmpv6 type mld-listener-query ip6 hoplimit 1 accept;",
            # Without these, a smaller MTU on the way silences the connection to the server.
            "icmp type destination-unreachable icmp code frag-needed accept;",
            "icmpv6 type packet-too-big accept;",
            # Not the first packet of a connection: the server never calls, so whoever does is not the server.
            *(
                f"{ip} saddr . tcp sport @server{version} tcp flags & (syn | ack) != syn accept;"
                for ip, version in (("ip", 4), ("ip6", 6))
            ),
            "ip saddr @allow4 accept;",
            "ip6 saddr @allow6 accept;",
            f"{_ARMED} counter drop;",
        ],
    )


def _output() -> list[str]:
    return _base_chain(
        "output",
        [
            "oif lo accept;",
            *_leaving(),
            "ip daddr @allow4 accept;",
            "ip6 daddr @allow6 accept;",
            # Local programs learn at once that they are cut off, instead of waiting for time-outs.
            f"{_ARMED} meta l4proto tcp counter reject with tcp reset;",
            f"{_ARMED} counter reject with icmpx admin-prohibited;",
        ],
    )


def _leaving() -> list[str]:
    """What may leave from an isolated host, besides its allowed networks."""
    return [
        # To everybody on the link only. A renewal sent to one server is dropped; the client then asks everybody.
        "ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept;",
        "ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept;",
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept;",
        # Switches that filter multicast forward neighbour discovery only to hosts that report.
        "ip6 daddr ff02::16 icmpv6 type mld2-listener-report ip6 hoplimit 1 accept;",
        "ip daddr . tcp dport @server4 accept;",
        "ip6 daddr . tcp dport @server6 accept;",
    ]


def _forward() -> list[str]:
    return _base_chain("forward", [f"{_ARMED} counter drop;"])


def _egress(devices: Sequence[Device]) -> Iterator[str]:
    """One chain for each device, all of them leading to the same rules.

    The kernel's listing does not name a chain's device to every nft; the comment does, for `covered`.
    """
    yield from _block("chain outbound", _outbound())
    for one in devices:
        hook = f'type filter hook egress device "{one.name}" priority -300; policy accept;'
        yield from _block(f"chain device_{one.index}", [hook, f'goto outbound comment "{one.name}";'])


def _outbound() -> list[str]:
    return [
        # Raw sockets choose what the kernel takes a frame for: an ARP packet begins with 0x0001, no IP packet does.
        "meta protocol arp arp htype 1 accept;",
        # LACP, spanning tree, 802.1X: without them the link goes down. Bridges never pass these addresses on.
        "@ll,0,44 0x0180c200000 accept;",
        "@ll,96,16 0x888e accept;",  # 802.1X on Wi-Fi goes to the access point's own address
        *_leaving(),
        # l4proto is known only for what parses as an IP packet, whatever a raw socket claims.
        "meta l4proto 0-255 ip daddr @allow4 accept;",
        "meta l4proto 0-255 ip6 daddr @allow6 accept;",
        f"{_ARMED} counter drop;",
    ]


# --- from the kernel's listing back to rules -------------------------------------------------------------------------

_SHAPES: Mapping[str, Mapping[str, tuple[tuple[object, ...], int]]] = {
    "inet": {
        "input": (("filter", "input", -300, "accept"), len(_input()) - 3),
        "output": (("filter", "output", -300, "accept"), len(_output()) - 3),
        "forward": (("filter", "forward", -300, "accept"), len(_forward()) - 3),
    },
    "netdev": {"outbound": ((None, None, None, None), len(_outbound()))},
}
"""Each chain's hook and number of rules; a block has three lines that are no rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One of our tables as the kernel lists it."""

    rules: IsolationRules
    armed: bool
    remaining: timedelta | None
    """Until the kernel stops enforcing it; None for never."""

    whole: bool
    """Are all chains there, each with its hook and all its rules?"""

    devices: frozenset[Device]
    """The devices whose egress is filtered."""


def parse(listing: Mapping[str, Any]) -> Listed:
    """Read `nft -j list table` of one of our tables; Invalid if it is none of ours."""
    try:
        return _parse(listing["nftables"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Invalid(
            f"The table {TABLE} is not one that this version wrote",
            got=f"{type(error).__name__}: {error}",
            hint=f"`nft list table inet {TABLE}` shows it.",
        ) from None


def _parse(items: Sequence[Mapping[str, Any]]) -> Listed:
    tables = [item["table"] for item in items if "table" in item]
    sets = {str(item["set"]["name"]): item["set"].get("elem", []) for item in items if "set" in item}
    chains = {str(item["chain"]["name"]): item["chain"] for item in items if "chain" in item}
    rules = [item["rule"] for item in items if "rule" in item]
    peers = [*_peers(sets["server4"]), *_peers(sets["server6"])]
    networks = [*_networks(sets["allow4"]), *_networks(sets["allow6"])]
    return Listed(
        rules=canonical(IsolationRules(servers=tuple(peers), allow=tuple(networks))),
        armed=bool(sets["armed"]),
        remaining=_remaining(sets["armed"]),
        whole=_whole(str(tables[0]["family"]), chains, rules),
        devices=frozenset(_covered(chains, rules)),
    )


def _peers(elements: Iterable[Any]) -> Iterator[Peer]:
    for element in elements:
        address, port = element["concat"]
        yield Peer(address=ip_address(address), port=port)


def _networks(elements: Iterable[Any]) -> Iterator[AnyNetwork]:
    for element in elements:
        if isinstance(element, str):
            yield ip_network(element)
        elif "prefix" in element:
            yield ip_network(f"{element['prefix']['addr']}/{int(element['prefix']['len'])}")
        else:
            first, last = map(ip_address, element["range"])
            yield from _between(first, last)


def _between(first: AnyAddress, last: AnyAddress) -> Iterator[AnyNetwork]:
    if isinstance(first, IPv4Address) and isinstance(last, IPv4Address):
        return summarize_address_range(first, last)
    if isinstance(first, IPv6Address) and isinstance(last, IPv6Address):
        return summarize_address_range(first, last)
    raise ValueError(f"got {first} to {last}, expected addresses of one version")


def _remaining(elements: Sequence[Any]) -> timedelta | None:
    element = elements[0] if elements else None
    if not isinstance(element, Mapping):
        return None
    return timedelta(seconds=int(element["elem"].get("expires", 0)))


def _whole(family: str, chains: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> bool:
    return all(
        name in chains
        and tuple(chains[name].get(key) for key in ("type", "hook", "prio", "policy")) == hook
        and sum(rule["chain"] == name for rule in rules) == count
        for name, (hook, count) in _SHAPES[family].items()
    )


def _covered(chains: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> Iterator[Device]:
    for rule in rules:
        prefix, _, index = str(rule["chain"]).partition("_")
        hook = chains[rule["chain"]].get("hook")
        if prefix == "device" and hook == "egress" and rule["expr"] == [{"goto": {"target": "outbound"}}]:
            yield Device(index=int(index), name=str(rule["comment"]))
