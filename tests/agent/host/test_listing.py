"""What the kernel lists, back as rules: whatever it was given, and whatever anybody else has written there."""

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host.listing import parse
from stanch.agent.host.nft import Nft
from stanch.agent.host.openings import canonical
from stanch.agent.host.ruleset import render
from stanch.core.errors import Invalid
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules
from tests.agent.host.test_ruleset import BACKUP, ETH0, SERVERS, rules_of_anyone
from tests.netns import netns


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
            assert one.egress
            assert after is None or after - timedelta(seconds=2) <= one.remaining <= after
        assert listed[1].devices == {ETH0}

    # The transactions run here, inside the namespace; hypothesis waits for them in a thread.
    await asyncio.to_thread(check)
    await nft.close()
    return seen


LISTING = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "stanch", "handle": 1, "flags": ["owner", "unknown"]}},
        {"set": {"name": "armed_a", "elem": [{"elem": {"val": 0, "timeout": 75, "expires": 7}}]}},
        {"set": {"name": "server4_a", "elem": [{"concat": ["203.0.113.5", 8443]}]}},
        {"set": {"name": "server6_a"}},
        {"set": {"name": "proxy4_a"}},
        {"set": {"name": "proxy6_a", "elem": [{"concat": ["2001:db8::5", 8443]}]}},
        {"set": {"name": "resolver4_a", "elem": ["192.0.2.53"]}},
        {"set": {"name": "resolver6_a"}},
        {"set": {"name": "allow4_a", "elem": ["1.2.3.4", {"range": ["10.0.0.0", "10.0.2.255"]}]}},
        {"set": {"name": "allow6_a", "elem": [{"prefix": {"addr": "2001:db8::", "len": 32}}]}},
        {"set": {"name": "out4_0_a", "elem": [{"concat": ["1.2.3.4", "tcp", 443, {"range": [0, 65535]}]}]}},
        {"set": {"name": "out6_0_a", "elem": [{"concat": ["::1", 58, {"range": [0, 65535]}, {"range": [0, 65535]}]}]}},
        {
            "set": {
                "name": "in6_0_a",
                "elem": [{"concat": ["::1", "ipv6-icmp", {"range": [0, 65535]}, {"range": [0, 65535]}]}],
            }
        },
        {"set": {"name": "talk4", "elem": ["whatever"]}},
        {"rule": {"chain": "notes", "comment": "stanch rules 2 a dhcp egress"}},
        {"rule": {"chain": "notes", "comment": "out tcp 0.0.0.0/0 443 0-65535 cgroup system.slice/b"}},
        {"rule": {"chain": "notes", "comment": "+ackup.service"}},
    ]
}


def test_every_form_of_an_element_is_read():
    """The kernel lists single addresses, prefixes, ranges, and protocols by name or number; no chains is not whole."""
    listed = parse(LISTING)
    rules = listed.rules
    assert (rules.servers, rules.proxies, rules.resolvers) == (SERVERS[:1], SERVERS[1:], (ip_address("192.0.2.53"),))
    assert rules.dhcp
    plain = [str(one.network) for one in rules.allow if one.is_plain]
    assert plain == ["1.2.3.4/32", "10.0.0.0/23", "10.0.2.0/24", "2001:db8::/32"]
    https = {"transport": Transport.TCP, "direction": Direction.OUT, "remote": Ports(443, 443)}
    assert [one for one in rules.allow if not one.is_plain] == [
        Opening(network=ip_network("1.2.3.4"), **https),
        Opening(network=ip_network("::1"), transport=Transport.ICMP),
        Opening(network=ip_network("0.0.0.0/0"), cgroup=BACKUP, **https),
    ]
    assert (listed.armed, listed.remaining, listed.whole) == (True, timedelta(seconds=7), False)
    assert listed.egress


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.sampled_from(["armed_a", "server4_a", "::/0", "tcp", "notes", "stanch rules 2 a", "out tcp ::/0 1 2 uid 0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["nftables", "set", "elem", "name", "table", "family", "chain", "rule", "expr", "concat",
                         "prefix", "range", "addr", "len", "comment", "hook", "val", "expires"]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.integers(0, 6), st.sampled_from(["server4_a", "resolver6_a", "allow4_a", "out4_0_a", "armed_a"]), junk, junk)
def test_a_listing_that_is_not_ours_is_invalid(position, name, elements, item):
    """Whatever a table of our name holds, reading it gives rules or Invalid, never another error."""
    items = json.loads(json.dumps(LISTING["nftables"]))
    items.insert(position, item if isinstance(item, dict) else {"set": {"name": name, "elem": elements}})
    for one in items:
        if one.get("set", {}) and isinstance(one["set"], dict) and one["set"].get("name") == name:
            one["set"]["elem"] = elements
    with suppress(Invalid):
        assert isinstance(parse({"nftables": items}).rules, IsolationRules)


@given(st.text(max_size=60))
def test_a_note_that_is_not_ours_is_invalid(note):
    """A comment that somebody else wrote is no opening, or Invalid."""
    items = [*LISTING["nftables"], {"rule": {"chain": "notes", "comment": note}}]
    with suppress(Invalid):
        parse({"nftables": items})


@given(junk)
def test_a_listing_of_nothing_known_is_invalid(listing):
    """A listing without our sets is refused."""
    with pytest.raises(Invalid):
        parse({"nftables": listing})


def test_a_second_table_with_the_same_sets_is_the_same_rules():
    """What is listed alike is read once; whatever differs is read anew."""
    first = parse(LISTING)
    again = parse(json.loads(json.dumps(LISTING)), like=first)
    assert again == first
    assert again.layout is first.layout
    changed = json.loads(json.dumps(LISTING).replace("1.2.3.4", "1.2.3.5"))
    assert parse(changed, like=first).rules == parse(changed).rules != first.rules
