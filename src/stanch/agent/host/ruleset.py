"""The isolation as nftables text: pure functions.

Two tables of our own. `inet stanch` filters what the host's own network stack sends, receives and forwards; it comes
before everything else (priority -300), needs no connection tracking, and an accept in it is not final: other tables
still see the packet. `netdev stanch` filters what leaves through each device, so that frames made by raw sockets or
switched by a bridge do not get out either; and what enters, so that devices that take their frames before the IP stack
sees them (macvlan, ipvlan, bridges) hear nothing. There it comes after everything else: what others rewrite is judged
as it is in the end.

Everything that drops matches only while the set `armed` holds an element, and the element has a time-out: the kernel
stops enforcing by itself, whoever is still alive. The chains' policy is accept, because a new base chain is consulted
before the rules of its transaction are: with policy drop, each replacement would lose packets that are allowed.

Answers to what an opening opened are recognised without connection tracking: TCP that is no first packet, ICMP that is
no echo request, and UDP of a flow that a packet in the open direction has put into the set `talk`. Learning has no
verdict of its own: a full set lets the packet pass that it could not learn.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from stanch.agent.host.arming import armed
from stanch.agent.host.mark import AGENT_MARK, MARK_BITS
from stanch.agent.host.openings import EVERY_PORT, VERSIONS, Element, Layer, Layout, Shape
from stanch.agent.host.openings import layout as layout_of
from stanch.agent.host.tablespec import ENDING, Chain, Set, Table, rule_statements, set_statements
from stanch.core.exclusion import Opening, Ports, Transport
from stanch.core.network import IsolationRules
from stanch.core.types import AnyNetwork

TABLE = "stanch"
MAX_DEVICES = 10_000
FIRST_NOTE = "stanch rules 2"
"""The first of the notes begins so: which layout of rules this is. Then how its sets end, and what is on."""

NOTE_LENGTH = 120
"""nft takes comments of up to 128 bytes."""

_DEVICE = re.compile(r"[A-Za-z0-9_.@+=#%,-]{1,15}")
"""Names that nft can be told. The kernel allows more (quotes, `*`): such a device cannot be covered, and we say so."""

_ARMED = f"meta mark and 0x0 @armed_{ENDING}"  # a lookup that any packet passes while the set holds its one element
_OURS = f"meta mark and {MARK_BITS:#x} == {AGENT_MARK:#x}"
_NOT_FIRST = "tcp flags & (syn | ack) != syn"
_FIRST = "tcp flags & (syn | ack) == syn"
_PROTOCOL = {Transport.TCP: ("tcp", "tcp"), Transport.UDP: ("udp", "udp"), Transport.ICMP: ("icmp", "ipv6-icmp")}
_IP = {4: "ip", 6: "ip6"}
_WHOLE = {4: "0.0.0.0-255.255.255.255", 6: f"::-{'ffff:' * 7}ffff"}


DEVICE_CHAINS = (("device", "egress", "outbound"), ("enters", "ingress", "inbound"))
"""Of each device: how the name of the chain begins, its hook, and where it leads."""


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A network device that is not the loopback."""

    index: int
    name: str

    @property
    def coverable(self) -> bool:
        """Can nft be told its name?"""
        return _DEVICE.fullmatch(self.name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the tables need to know besides the rules."""

    lift_after: timedelta | None = None
    devices: Sequence[Device] = ()
    """Those that nft cannot name are left out."""

    egress: bool = True
    """Can the kernel filter what leaves a device?"""

    secret: int = 1
    """31 random bits, never 0: the priority of packets that the output chain lets pass for somebody in particular."""

    fib: bool = True
    """Can a device ask whose address it is?"""

    quiet: bool = False
    """Are local programs left waiting, instead of being told that they are cut off?"""

    cgroups: str = ""
    """What nft wants in front of a path below the root of cgroup v2: `unified/` where version 1 has the root."""


def tables(layout: Layout, frame: Frame) -> list[Table]:
    """The tables that enforce these rules: one, or two where the kernel can filter what leaves a device."""
    sets = list(_sets(layout, frame))
    made = [Table(family="inet", sets=[*sets, *_learned()], chains=chains("inet", layout, frame))]
    return [*made, Table(family="netdev", sets=sets, chains=chains("netdev", layout, frame))] if frame.egress else made


def closed(layout: Layout) -> Layout:
    """The same without openings, which is in force within milliseconds."""
    return replace(layout, allow=(), layers=dict.fromkeys(layout.layers, ()), bound=())


def render(
    rules: IsolationRules, devices: Sequence[Device], *, lift_after: timedelta | None, egress: bool = True
) -> str:
    """The whole of it as one text that nft takes, whatever there was before: for people, and to be compared with."""
    lines = []
    for table in tables(layout_of(rules), Frame(lift_after=lift_after, devices=devices, egress=egress)):
        where = f"table {table.family} {TABLE};"
        lines += [f"add {where}", f"delete {where}", f"add {where}"]
        lines += [*set_statements(table, TABLE, "a"), *rule_statements(table, TABLE, "a")]
    return "\n".join(lines) + "\n"


def chains(family: str, layout: Layout, frame: Frame) -> list[Chain]:
    """What filters the host's own stack and what it forwards, or what filters each device."""
    notes = Chain(name="notes", rules=_notes(layout, frame))
    if family == "netdev":
        return [notes, *_devices(layout, frame)]
    return [
        notes,
        *_answers(frame),
        Chain(name="input", hook="input", rules=_input(layout, frame)),
        Chain(name="output", hook="output", rules=_output(layout, frame)),
        Chain(name="forward", hook="forward", rules=[f"{_ARMED} counter drop"]),
    ]


def _devices(layout: Layout, frame: Frame) -> list[Chain]:
    """Two chains for each device, all of them leading to the same rules.

    The kernel's listing does not name a chain's device to every nft; the comment does.
    """
    covered = [device for device in frame.devices if device.coverable][:MAX_DEVICES]
    return [
        Chain(name="answered", rules=[*_answered("daddr", "dport", "sport")[:3], "meta l4proto udp accept"]),
        Chain(name="outbound", rules=_outbound(layout, frame)),
        Chain(name="inbound", rules=_inbound(layout, frame)),
        *(
            Chain(
                name=f"{prefix}_{one.index}",
                hook=f'{hook} device "{one.name}"',
                rules=[f'goto {target} comment "{one.name}"'],
            )
            for one in covered
            for prefix, hook, target in DEVICE_CHAINS
        ),
    ]


def set_names(family: str, layout: Layout) -> set[str]:
    """The sets that a table has, without how their names end."""
    fixed = {f"{name}{version}" for name in ("server", "proxy", "resolver", "allow") for version in VERSIONS}
    layers = {f"{base}_{number}" for base, layers in layout.layers.items() for number in range(len(layers))}
    learned = {one.name for one in _learned()} if family == "inet" else set()
    return {"armed"} | fixed | layers | learned


# --- sets ------------------------------------------------------------------------------------------------------------


def _sets(layout: Layout, frame: Frame) -> Iterator[Set]:
    yield armed(frame.lift_after)
    for version in VERSIONS:
        address = f"ipv{version}_addr"
        for name, peers in (("server", layout.servers), ("proxy", layout.proxies)):
            chosen = [f"{one.address} . {one.port}" for one in peers if one.address.version == version]
            yield Set(name=f"{name}{version}", kind=f"{address} . inet_service", elements=chosen)
        resolvers = [str(one) for one in layout.resolvers if one.version == version]
        yield Set(name=f"resolver{version}", kind=address, elements=resolvers)
        networks = [str(one) for one in layout.allow if one.version == version]
        yield Set(name=f"allow{version}", kind=address, options="flags interval", elements=networks)
    for base, layers in layout.layers.items():
        for number, layer in enumerate(layers):
            yield _layer(f"{base}_{number}", int(base[-1]), layer)


def _layer(name: str, version: int, layer: Layer) -> Set:
    return Set(
        name=name,
        kind=f"ipv{version}_addr . inet_proto . inet_service . inet_service",
        options="flags interval",
        elements=[_element(one) for one in layer],
    )


def _element(one: Element) -> str:
    network, shape = one
    protocol = "0-255" if shape.transport is Transport.ANY else _protocol(shape.transport, network.version)
    return f"{network} . {protocol} . {shape.remote} . {shape.local}"


def _protocol(transport: Transport, version: int) -> str:
    return _PROTOCOL[transport][VERSIONS.index(version)]


def _learned() -> Iterator[Set]:
    """UDP flows; flows of accounts and groups; who was pinged by them."""
    for version in VERSIONS:
        address = f"ipv{version}_addr"
        for name, kind, lasts in (
            ("talk", f"{address} . inet_service . inet_service", "1m"),
            ("own", f"{address} . inet_proto . inet_service . inet_service", "5m"),
            ("ping", address, "1m"),
        ):
            options = f"size 16384; flags dynamic, timeout; timeout {lasts}"
            yield Set(name=f"{name}{version}", kind=kind, options=options, learns=True)


# --- notes: what the kernel's listing does not tell of rules ----------------------------------------------------------


def _notes(layout: Layout, frame: Frame) -> list[str]:
    """Nothing jumps there. A note that is too long goes on in the next, which begins with a plus sign."""
    first = " ".join([FIRST_NOTE, ENDING, *["dhcp"] * layout.dhcp, *["egress"] * frame.egress, *["fib"] * frame.fib])
    return [f'return comment "{part}"' for note in (first, *map(note_of, layout.bound)) for part in _cut(note)]


def _cut(note: str) -> list[str]:
    return [f"{'+' if at else ''}{note[at : at + NOTE_LENGTH]}" for at in range(0, len(note), NOTE_LENGTH)]


def note_of(one: Opening) -> str:
    """An opening for an account or a group, as a line."""
    whose = f"cgroup {one.cgroup}" if one.uid is None else f"uid {one.uid}"
    return " ".join([one.direction, one.transport, str(one.network), _range(one.remote), _range(one.local), whose])


def _range(ports: Ports | None) -> str:
    return str(ports or EVERY_PORT)


# --- chains ----------------------------------------------------------------------------------------------------------


def _answers(frame: Frame) -> list[Chain]:
    """What packets in an open direction, and their answers, go through. Who jumps here has matched the opening."""
    return [
        Chain(name="left", rules=[*_large(frame), *_learn("talk", "daddr", "dport", "sport"), "accept"]),
        Chain(name="ours", rules=[_secret(frame), "jump left"]),
        Chain(name="entered", rules=[*_learn("talk", "saddr", "sport", "dport"), "accept"]),
        Chain(name="answered_in", rules=_answered("saddr", "sport", "dport")),
        Chain(name="answered_out", rules=[*_large(frame), *_answered("daddr", "dport", "sport")]),
        Chain(
            name="own_out",
            rules=[
                _secret(frame),
                *_learn("own", "daddr", "dport", "sport"),
                "meta l4proto icmp update @ping4 { ip daddr }",
                "meta l4proto ipv6-icmp update @ping6 { ip6 daddr }",
                "accept",
            ],
        ),
        Chain(name="own_in", rules=[*_learn("own", "saddr", "sport", "dport"), "accept"]),
        Chain(
            name="own_answered_in",
            rules=[
                f"{_FIRST} return",
                *_known("saddr", "sport", "dport", "accept"),
                "icmp type != echo-request ip saddr @ping4 accept",
                "icmpv6 type != echo-request ip6 saddr @ping6 accept",
            ],
        ),
        Chain(
            # The kernel says farewell for a program that has closed its socket: of nobody's account any more.
            name="own_answered_out",
            rules=[f"{_FIRST} return", *_known("daddr", "dport", "sport", f"{_secret(frame)} accept")],
        ),
    ]


def _large(frame: Frame) -> list[str]:
    # What may be cut into pieces: a piece tells no ports, but keeps the priority.
    return [f"meta l4proto != tcp meta length > 500 {_secret(frame)}"]


def _secret(frame: Frame) -> str:
    return f"meta priority set {_priority(frame)}"


def _priority(frame: Frame) -> str:
    return f"{frame.secret:#x}"


def _learn(name: str, side: str, remote: str, local: str) -> list[str]:
    if name == "talk":
        return [
            f"meta l4proto udp update @talk{version} {{ {ip} {side} . udp {remote} . udp {local} }}"
            for version, ip in _IP.items()
        ]
    return [
        f"meta l4proto {{ tcp, udp }} update @own{version} {{ {ip} {side} . meta l4proto . th {remote} . th {local} }}"
        for version, ip in _IP.items()
    ]


def _known(side: str, remote: str, local: str, verdict: str) -> list[str]:
    return [
        f"{ip} {side} . meta l4proto . th {remote} . th {local} @own{version} {verdict}" for version, ip in _IP.items()
    ]


def _answered(side: str, remote: str, local: str) -> list[str]:
    return [
        f"{_NOT_FIRST} accept",
        "icmp type != echo-request accept",
        "icmpv6 type != echo-request accept",
        *(f"{ip} {side} . udp {remote} . udp {local} @talk{version} accept" for version, ip in _IP.items()),
    ]


def _input(layout: Layout, frame: Frame) -> list[str]:
    return [
        "iif lo accept",
        *_arriving(layout),
        *_resolvers("", "s", "jump answered_in"),
        *_layered(layout, "in", "saddr", ("sport", "dport"), "jump entered"),
        *_layered(layout, "out", "saddr", ("sport", "dport"), "jump answered_in"),
        *(rule for one in layout.bound for rule in _bound_input(one, frame)),
        # IPv6 is put together only behind this hook: a later piece tells no ports, and is nothing without the first.
        "frag frag-off != 0 accept",
        f"{_ARMED} counter drop",
    ]


def _arriving(layout: Layout) -> list[str]:
    """What may come in to an isolated host, besides the answers that its openings get."""
    return [
        # Answers of DHCP come from servers that we cannot know.
        *["meta nfproto ipv4 udp sport 67 udp dport 68 accept"] * layout.dhcp,
        *["ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"] * layout.dhcp,
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        "ip6 saddr fe80::/10 icmpv6 type mld-listener-query ip6 hoplimit 1 accept",
        # Without these, a smaller MTU on the way silences the connection to the server.
        "icmp type destination-unreachable icmp code frag-needed accept",
        "icmpv6 type packet-too-big accept",
        # Not the first packet of a connection: the server never calls, so whoever does is not the server.
        *(f"{ip} saddr . tcp sport @server{version}_{ENDING} {_NOT_FIRST} accept" for version, ip in _IP.items()),
        f"ip saddr @allow4_{ENDING} accept",
        f"ip6 saddr @allow6_{ENDING} accept",
        *(f"{ip} saddr . tcp sport @proxy{version}_{ENDING} {_NOT_FIRST} accept" for version, ip in _IP.items()),
    ]


def _output(layout: Layout, frame: Frame) -> list[str]:
    return [
        "oif lo accept",
        *_leaving(layout),
        f"ip daddr @allow4_{ENDING} accept",
        f"ip6 daddr @allow6_{ENDING} accept",
        *_own_ways(_OURS, "jump ours"),
        *_layered(layout, "out", "daddr", ("dport", "sport"), "jump left"),
        *_layered(layout, "in", "daddr", ("dport", "sport"), "jump answered_out"),
        *(rule for one in layout.bound for rule in _bound_output(one, frame)),
        *_refusal(frame),
    ]


def _refusal(frame: Frame) -> list[str]:
    # Local programs learn at once that they are cut off, instead of waiting for time-outs.
    told = ["meta l4proto tcp counter reject with tcp reset", "counter reject with icmpx admin-prohibited"]
    return [f"{_ARMED} {one}" for one in (["counter drop"] if frame.quiet else told)]


def _leaving(layout: Layout) -> list[str]:
    """What may leave from an isolated host, besides its openings."""
    return [
        # To everybody on the link only. A renewal sent to one server is dropped; the client then asks everybody.
        *["ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"] * layout.dhcp,
        *["ip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept"] * layout.dhcp,
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        # Switches that filter multicast forward neighbour discovery only to hosts that report.
        "ip6 daddr ff02::16 icmpv6 type mld2-listener-report ip6 hoplimit 1 accept",
        *(f"{ip} daddr . tcp dport @server{version}_{ENDING} accept" for version, ip in _IP.items()),
    ]


def _own_ways(which: str, verdict: str) -> list[str]:
    """Proxies and resolvers, for the agent's own packets."""
    proxies = [f"{which} {ip} daddr . tcp dport @proxy{version}_{ENDING} {verdict}" for version, ip in _IP.items()]
    return [*proxies, *_resolvers(f"{which} ", "d", verdict)]


def _resolvers(which: str, side: str, verdict: str) -> list[str]:
    return [
        f"{which}{ip} {side}addr @resolver{version}_{ENDING} meta l4proto {{ tcp, udp }} th {side}port 53 {verdict}"
        for version, ip in _IP.items()
    ]


def _outbound(layout: Layout, frame: Frame) -> list[str]:
    return [
        # Raw sockets choose what the kernel takes a frame for: an ARP packet begins with 0x0001, no IP packet does.
        "meta protocol arp arp htype 1 accept",
        # LACP, spanning tree, 802.1X: without them the link goes down. Bridges never pass these addresses on.
        "@ll,0,44 0x0180c200000 accept",
        "@ll,96,16 0x888e accept",  # 802.1X on Wi-Fi goes to the access point's own address
        *_leaving(layout),
        # l4proto is known only for what parses as an IP packet, whatever a raw socket claims.
        f"meta l4proto 0-255 ip daddr @allow4_{ENDING} accept",
        f"meta l4proto 0-255 ip6 daddr @allow6_{ENDING} accept",
        # Not by the mark: rules of others may have replaced it since.
        *_own_ways(f"meta priority {_priority(frame)}", "accept"),
        *_layered(layout, "out", "daddr", ("dport", "sport"), "accept"),
        *_layered(layout, "in", "daddr", ("dport", "sport"), "jump answered"),
        *(f"meta priority {_priority(frame)} {_matches(one, 'output')} accept" for one in layout.bound),
        f"meta priority {_priority(frame)} meta l4proto 0-255 ip frag-off & 0x1fff != 0 accept",
        f"meta priority {_priority(frame)} meta l4proto 0-255 exthdr frag exists accept",
        f"{_ARMED} counter drop",
    ]


def _inbound(layout: Layout, frame: Frame) -> list[str]:
    """What may enter through a device: never less than what the input chain lets pass, which decides for the host."""
    return [
        *["meta pkttype host fib daddr type local accept"] * frame.fib,  # the fastest, and most of what comes
        # ARP, and what keeps a link up. Only IP is filtered for the host itself.
        "meta protocol != { ip, ip6 } accept",
        # Nothing is put together yet: a later piece tells no ports, and is nothing without the first.
        "ip frag-off & 0x1fff != 0 accept",
        "frag frag-off != 0 accept",
        *(one.replace("meta nfproto ipv4", "meta protocol ip") for one in _arriving(layout)),
        *_resolvers("", "s", "accept"),
        *_layered(layout, "in", "saddr", ("sport", "dport"), "accept"),
        *_layered(layout, "out", "saddr", ("sport", "dport"), "jump answered"),
        # Whose they are is known only to the input chain.
        *(f"{_matches(one, 'input')} accept" for one in layout.bound),
        f"{_ARMED} counter drop",
    ]


def _layered(layout: Layout, way: str, side: str, ports: tuple[str, str], verdict: str) -> Iterator[str]:
    remote, local = ports
    for version, ip in _IP.items():
        for number in range(len(layout.layers[f"{way}{version}"])):
            yield f"{ip} {side} . meta l4proto . th {remote} . th {local} @{way}{version}_{number}_{ENDING} {verdict}"


# --- accounts and control groups -------------------------------------------------------------------------------------


def _bound_output(one: Opening, frame: Frame) -> list[str]:
    whose, matches = _whose(one, frame), _matches(one, "output")
    return [
        *[f"{whose} {matches} jump own_out"] * one.direction.outward,
        f"{matches} jump own_answered_out",
        # What was open before these rules came has not been learned.
        *[f"{whose} {matches} {_NOT_FIRST} jump own_out"] * (not one.direction.outward and _may_be_tcp(one)),
    ]


def _bound_input(one: Opening, frame: Frame) -> list[str]:
    whose, matches = _whose(one, frame), _matches(one, "input")
    return [
        *[f"{whose} {matches} jump own_in"] * one.direction.inward,
        f"{matches} jump own_answered_in",
        *[f"{whose} {matches} {_NOT_FIRST} accept"] * (not one.direction.inward and _may_be_tcp(one)),
    ]


def _may_be_tcp(one: Opening) -> bool:
    return one.transport in {Transport.ANY, Transport.TCP}


def _whose(one: Opening, frame: Frame) -> str:
    if one.cgroup is None:
        return f"meta skuid {one.uid}"
    return f'socket cgroupv2 level {one.cgroup.count("/") + 1} "{frame.cgroups}{one.cgroup}"'


def _matches(one: Opening, way: str) -> str:
    side, remote, local = ("daddr", "dport", "sport") if way == "output" else ("saddr", "sport", "dport")
    shape, version = Shape.of(one), one.network.version
    protocol = "0-255" if shape.transport is Transport.ANY else _protocol(shape.transport, version)
    words = [f"meta l4proto {protocol}", f"{_IP[version]} {side} {_network(one.network)}"]
    words += [f"th {remote} {shape.remote}"] if shape.remote != EVERY_PORT else []
    words += [f"th {local} {shape.local}"] if shape.local != EVERY_PORT else []
    return " ".join(words)


def _network(network: AnyNetwork) -> str:
    return _WHOLE[network.version] if network.prefixlen == 0 else str(network)
