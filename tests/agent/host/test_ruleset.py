"""The text of the rules, golden and by property, and the way back from the kernel's listing."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host.nft import Nft
from stanch.agent.host.ruleset import MAX_NETWORKS, MAX_PEERS, Device, Reach, canonical, parse, render
from stanch.core.errors import Invalid
from stanch.core.host import IsolationRules, Peer
from stanch.core.types import parse_network
from tests.netns import netns

GOLDEN = Path(__file__).parent / "golden"
ETH0, WG0 = Device(2, "eth0"), Device(7, "wg0")

SERVERS = (
    Peer(address=ip_address("203.0.113.5"), port=8443),
    Peer(address=ip_address("2001:db8::5"), port=8443),
)
ALLOW = (ip_network("10.0.0.0/8"), ip_network("192.168.7.9/32"), ip_network("2001:db8:7::/48"))

CASES: dict[str, tuple[IsolationRules, tuple[Device, ...], timedelta | None]] = {
    "server-only": (IsolationRules(servers=SERVERS), (ETH0,), timedelta(seconds=75)),
    "with-networks": (IsolationRules(servers=SERVERS, allow=ALLOW), (ETH0, WG0), timedelta(hours=5)),
    "nothing-at-all": (IsolationRules(servers=()), (), None),
}

addresses = st.ip_addresses()
peers = st.builds(Peer, address=addresses, port=st.integers(1, 65535))


@st.composite
def networks(draw: Callable) -> IPv4Network | IPv6Network:
    address = draw(addresses)
    length = draw(st.integers(0, address.max_prefixlen))
    return parse_network(f"{address}/{length}")


rules_of_anyone = st.builds(
    IsolationRules,
    servers=st.lists(peers, max_size=5).map(tuple),
    allow=st.lists(networks(), max_size=8).map(tuple),
)


# --- to text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_the_golden_one(name):
    """Every change of the rules shows in a file that people read; running this file as a module writes them anew."""
    assert _text(name) == (GOLDEN / f"{name}.nft").read_text()


def _text(name: str) -> str:
    rules, devices, lift_after = CASES[name]
    return render(rules, devices, lift_after=lift_after)


@given(rules_of_anyone, st.none() | st.timedeltas(timedelta(0), timedelta(hours=9999)))
def test_each_statement_ends_so_that_lines_can_be_joined(rules, lift_after):
    """The text means the same on one line, which is how it goes to nft."""
    for line in render(rules, (ETH0,), lift_after=lift_after).splitlines():
        assert line.endswith((";", "{"))


@given(st.text(max_size=20), rules_of_anyone)
def test_no_device_name_gets_out_of_its_quotes(name, rules):
    """A device is written with its plain name, or not at all."""
    text = render(rules, (Device(5, name),), lift_after=None)
    assert ("device_5" in text) == Device(5, name).coverable
    assert text.count('"') in {0, 4}
    if not Device(5, name).coverable:
        assert text == render(rules, (), lift_after=None)


def test_a_zone_is_no_part_of_an_address():
    """The zone of a link-local address is free text and stays out of the rules, should one ever get this far."""
    zoned = Peer.model_construct(address=IPv6Address('fe80::1%eth0"; drop'), port=1)
    text = render(IsolationRules(servers=(zoned,)), (), lift_after=None)
    assert "{ fe80::1 . 1 }" in text
    assert "%" not in text


def test_mapped_addresses_are_ipv4():
    """Packets of an IPv4-mapped peer are IPv4 packets, and so are its rules."""
    mapped = Peer(address=IPv6Address("::ffff:203.0.113.5"), port=8443)
    assert canonical(IsolationRules(servers=(mapped,))).servers == SERVERS[:1]


@given(rules_of_anyone)
def test_canonical_rules_stay_as_they_are(rules):
    """Bringing rules into the kernel's order twice is the same as once."""
    once = canonical(rules)
    assert canonical(once) == once


def test_too_many_exceptions_are_refused():
    """A bound on peers and networks protects the kernel and the endpoint's memory."""
    many = tuple(Peer(address=IPv4Address(number), port=1) for number in range(MAX_PEERS + 1))
    with pytest.raises(Invalid, match="too many"):
        canonical(IsolationRules(servers=many))
    with pytest.raises(Invalid, match="too many"):
        canonical(IsolationRules(servers=(), allow=(ip_network("10.0.0.0/8"),) * (MAX_NETWORKS + 1)))


# --- what stays reachable --------------------------------------------------------------------------------------------


@given(rules_of_anyone, addresses, st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
def test_reach_is_what_the_rules_say(rules, address, port, protocol):
    """An address is reachable if it is loopback, in an allowed network, or a server by TCP at its port."""
    plain = address.ipv4_mapped or address if address.version == 6 else address
    expected = (
        plain.is_loopback
        or any(plain in network for network in canonical(rules).allow if network.version == plain.version)
        or (protocol == "tcp" and Peer(address=plain, port=port) in canonical(rules).servers)
    )
    assert Reach(rules).allows(protocol, address, port) == expected


@given(rules_of_anyone.filter(lambda rules: rules.servers))
def test_a_server_is_reached_by_tcp_at_its_port(rules):
    """Each server is reachable, and its other ports and protocols only if a network allows them."""
    server, reach = rules.servers[0], Reach(IsolationRules(servers=rules.servers[:1]))
    assert reach.allows("tcp", server.address, server.port)
    local = (
        (server.address.ipv4_mapped or server.address).is_loopback
        if server.address.version == 6
        else (server.address.is_loopback)
    )
    assert reach.allows("udp", server.address, server.port) == local
    assert reach.allows("tcp", server.address, server.port % 65535 + 1) == local


# --- and back --------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_the_kernel_gives_back_what_it_was_given():
    """For any rules: what the kernel lists after the transaction parses to the same rules, whole and armed."""
    with netns() as namespace:
        seen = namespace.run(lambda: _round_trips(namespace))
    assert seen > 10


async def _round_trips(namespace) -> int:
    loop, nft, seen = asyncio.get_running_loop(), Nft(), 0

    async def through_kernel(rules: IsolationRules, lift_after: timedelta | None):
        await nft.apply(render(rules, (ETH0,), lift_after=lift_after))
        return [parse(await nft.table(family, "stanch")) for family in ("inet", "netdev")]

    @settings(max_examples=60, deadline=None)
    @given(rules_of_anyone, st.none() | st.integers(2, 9999 * 3600))
    def check(rules: IsolationRules, lift_after: int | None) -> None:
        nonlocal seen
        seen += 1
        after = None if lift_after is None else timedelta(seconds=lift_after)
        listed = asyncio.run_coroutine_threadsafe(through_kernel(rules, after), loop).result(20)
        for one in listed:
            assert one.rules == canonical(rules)
            assert one.armed
            assert one.whole
            assert (one.remaining is None) == (after is None)
            assert after is None or after - timedelta(seconds=2) <= one.remaining <= after
        assert listed[1].devices == {ETH0}

    # The transactions run here, inside the namespace; hypothesis waits for them in a thread.
    await asyncio.to_thread(check)
    await nft.close()
    return seen


LISTING = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "stanch", "handle": 1}},
        {"set": {"name": "armed", "elem": [{"elem": {"val": 0, "timeout": 75, "expires": 7}}]}},
        {"set": {"name": "server4", "elem": [{"concat": ["203.0.113.5", 8443]}]}},
        {"set": {"name": "server6"}},
        {"set": {"name": "allow4", "elem": ["1.2.3.4", {"range": ["10.0.0.0", "10.0.2.255"]}]}},
        {"set": {"name": "allow6", "elem": [{"prefix": {"addr": "2001:db8::", "len": 32}}]}},
    ]
}


def test_every_form_of_an_element_is_read():
    """The kernel lists single addresses, prefixes and ranges; a table without chains is not whole."""
    listed = parse(LISTING)
    assert listed.rules.servers == SERVERS[:1]
    assert [str(one) for one in listed.rules.allow] == ["1.2.3.4/32", "10.0.0.0/23", "10.0.2.0/24", "2001:db8::/32"]
    assert (listed.armed, listed.remaining, listed.whole) == (True, timedelta(seconds=7), False)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["armed", "server4", "::/0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["nftables", "set", "elem", "name", "table", "family", "chain", "rule", "expr", "concat",
                         "prefix", "range", "addr", "len", "comment", "hook", "val", "expires"]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.integers(0, 6), st.sampled_from(["server4", "server6", "allow4", "allow6", "armed"]), junk, junk)
def test_a_listing_that_is_not_ours_is_invalid(position, name, elements, item):
    """Whatever a table of our name holds, reading it gives rules or Invalid, never another error."""
    items = json.loads(json.dumps(LISTING["nftables"]))
    items.insert(position, item if isinstance(item, dict) else {"set": {"name": name, "elem": elements}})
    for one in items:
        if one.get("set", {}) and isinstance(one["set"], dict) and one["set"].get("name") == name:
            one["set"]["elem"] = elements
    with suppress(Invalid):
        assert parse({"nftables": items}).rules == canonical(parse({"nftables": items}).rules)


@given(junk)
def test_a_listing_of_nothing_known_is_invalid(listing):
    """A listing without our sets is refused."""
    with pytest.raises(Invalid):
        parse({"nftables": listing})


if __name__ == "__main__":
    for case in CASES:
        (GOLDEN / f"{case}.nft").write_text(_text(case))
