"""Openings in the kernel's order: the same meaning, nothing that overlaps within a layer, and bounds."""

from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.openings import (
    EVERY_PORT,
    MAX_BOUND,
    MAX_LAYERS,
    MAX_NETWORKS,
    MAX_PEERS,
    Shape,
    canonical,
    colour,
    layout,
)
from stanch.core.errors import Invalid
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, Peer
from tests.agent.host.test_ruleset import openings, rules_of_anyone

NET = ip_network("10.0.0.0/8")


def opening(network=NET, **options) -> Opening:
    return Opening(network=ip_network(network), **options)


@given(rules_of_anyone)
def test_canonical_rules_stay_as_they_are(rules):
    """Bringing rules into the kernel's order twice is the same as once."""
    once = canonical(rules)
    assert canonical(once) == once


@given(rules_of_anyone, st.randoms())
def test_order_and_repetition_mean_nothing(rules, random):
    """The same openings in another order, some of them twice, are the same rules."""
    shuffled = [*rules.allow, *rules.allow[:2]]
    random.shuffle(shuffled)
    again = IsolationRules(servers=rules.servers[::-1], proxies=rules.proxies, resolvers=rules.resolvers,
                           allow=tuple(shuffled), dhcp=rules.dhcp)  # fmt: skip
    assert canonical(again) == canonical(rules)


few_ports = st.builds(lambda first, more: Ports(first, min(6, first + more)), st.integers(1, 6), st.integers(0, 3))
few_networks = st.sampled_from([ip_network(f"10.0.0.{first}/{length}") for length in (30, 31, 32)
                                for first in range(0, 4, 1 << (32 - length))])  # fmt: skip


@st.composite
def small_openings(draw) -> Opening:
    transport = draw(st.sampled_from(Transport))
    ways = [draw(st.none() | few_ports) if transport.has_ports else None for _ in range(2)]
    return Opening(network=draw(few_networks), transport=transport, direction=draw(st.sampled_from(Direction)),
                   remote=ways[0], local=ways[1])  # fmt: skip


@given(st.lists(small_openings(), max_size=8).map(tuple))
def test_the_sets_open_what_the_openings_say(allow):
    """Each packet, in each direction, is in a set exactly if an opening has it, and in at most one place of a layer."""
    made = layout(IsolationRules(servers=(), allow=allow))
    for number in range(4):
        for transport in (Transport.TCP, Transport.UDP, Transport.ICMP):
            for remote, local in ((0, 0), (1, 3), (3, 6), (6, 1)):
                for way in (Direction.OUT, Direction.IN):
                    packet = (IPv4Address(f"10.0.0.{number}"), transport, remote, local)
                    wanted = any(one.direction in {way, Direction.BOTH} and _has(one.network, Shape.of(one), packet)
                                 for one in allow)  # fmt: skip
                    hits = [sum(_has(*one, packet) for one in layer) for layer in made.layers[f"{way}4"]]
                    plain = any(packet[0] in one for one in made.allow)
                    assert (plain or any(hits)) == wanted
                    assert all(hit <= 1 for hit in hits)


def _has(network, shape, packet) -> bool:
    address, transport, remote, local = packet
    return (
        address in network
        and shape.transport in {Transport.ANY, transport}
        and shape.remote.first <= remote <= shape.remote.last
        and shape.local.first <= local <= shape.local.last
    )


shapes = st.one_of(
    st.builds(Shape, st.sampled_from([Transport.TCP, Transport.UDP]), few_ports, few_ports),
    st.builds(Shape, st.sampled_from(Transport)),
)


@given(st.sets(shapes, max_size=12))
def test_shapes_of_one_layer_do_not_overlap(some):
    """Whatever the shapes: two that share a protocol and ports are in different layers, numbered from 0."""
    numbers = colour(some)
    assert set(numbers) == some
    assert set(numbers.values()) == set(range(max(numbers.values(), default=-1) + 1))
    for one, other in combinations(some, 2):
        shared = one.transport is other.transport or Transport.ANY in {one.transport, other.transport}
        if shared and _meet(one.remote, other.remote) and _meet(one.local, other.local):
            assert numbers[one] != numbers[other]


def _meet(one: Ports, other: Ports) -> bool:
    return one.first <= other.last and other.first <= one.last


def test_ranges_of_different_networks_need_no_layers():
    """However many ranges overlap: only those for networks that overlap, too, are told apart."""
    allow = tuple(opening(f"10.0.{number}.0/24", transport=Transport.TCP, direction=Direction.OUT,
                          remote=Ports(100, 200 + number)) for number in range(200))  # fmt: skip
    assert len(layout(IsolationRules(servers=(), allow=allow)).layers["out4"]) == 1


def test_too_deep_an_overlap_is_refused():
    """Sixteen different ranges over one port of one network can be told the kernel, and one more is invalid."""
    ranges = [opening(transport=Transport.TCP, direction=Direction.OUT, remote=Ports(1, 100 + number))
              for number in range(MAX_LAYERS + 1)]  # fmt: skip
    assert len(layout(IsolationRules(servers=(), allow=tuple(ranges[1:]))).layers["out4"]) == MAX_LAYERS
    with pytest.raises(Invalid, match="overlap") as raised:
        canonical(IsolationRules(servers=(), allow=tuple(ranges)))
    assert raised.value.hint


def test_both_ways_are_two_sets_and_one_opening():
    """What may be opened from either side is in both sets, and reads back as it was said."""
    one = opening(transport=Transport.UDP, remote=Ports(123, 123))
    made = layout(IsolationRules(servers=(), allow=(one,)))
    assert made.layers["out4"] == made.layers["in4"] == (((NET, Shape(Transport.UDP, Ports(123, 123), EVERY_PORT)),),)
    assert made.rules.allow == (one,)


def test_an_account_only_sends():
    """An opening for an account is outward, whatever was said."""
    assert canonical(IsolationRules(servers=(), allow=(opening(uid=7),))).allow == (
        opening(uid=7, direction=Direction.OUT),
    )


def test_mapped_addresses_are_ipv4():
    """Packets of an IPv4-mapped peer are IPv4 packets, and so are its rules."""
    mapped = Peer(address=IPv6Address("::ffff:203.0.113.5"), port=8443)
    assert canonical(IsolationRules(servers=(mapped,))).servers == (
        Peer(address=IPv4Address("203.0.113.5"), port=8443),
    )
    inside = Opening(network=ip_network("::ffff:203.0.113.0/120"))
    assert canonical(IsolationRules(servers=(), allow=(inside,))).allow == (opening("203.0.113.0/24"),)


def test_too_many_exceptions_are_refused():
    """A bound on peers, networks, and rules for accounts protects the kernel and the endpoint's memory."""
    many = tuple(Peer(address=IPv4Address(number), port=1) for number in range(MAX_PEERS + 1))
    with pytest.raises(Invalid, match="too many"):
        canonical(IsolationRules(servers=many))
    with pytest.raises(Invalid, match="too many"):
        canonical(IsolationRules(servers=(), allow=(opening(),) * (MAX_NETWORKS + 1)))
    with pytest.raises(Invalid, match="too many"):
        canonical(IsolationRules(servers=(), allow=tuple(opening(uid=uid) for uid in range(MAX_BOUND + 1))))


@pytest.mark.parametrize(
    "wrong",
    [
        opening(transport=Transport.TCP, remote=Ports(5, 4)),
        opening(transport=Transport.TCP, local=Ports(1, 65536)),
        opening(transport=Transport.ICMP, remote=Ports(1, 1)),
        opening(uid=-1),
        opening(uid=2**32 - 1),
        opening(uid=1, cgroup="a"),
        opening(cgroup=""),
        opening(cgroup="/a"),
        opening(cgroup="a/../b"),
        opening(cgroup='a" accept'),
        opening(cgroup="a\nb"),
        opening(cgroup="a" * 1001),
    ],
    ids=repr,
)
def test_what_nft_must_not_be_told_is_refused(wrong):
    """Ports, accounts and paths are checked once more: they become text."""
    with pytest.raises(Invalid):
        canonical(IsolationRules(servers=(), allow=(wrong,)))


@given(openings())
def test_an_opening_of_people_is_taken(one):
    """Every opening that an exclusion can mean is one that the kernel can be told."""
    assert canonical(IsolationRules(servers=(), allow=(one,))).allow
