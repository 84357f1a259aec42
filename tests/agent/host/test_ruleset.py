"""The text of the rules, golden and by property, and the way back from the kernel's listing."""

from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.openings import canonical
from stanch.agent.host.ruleset import Device, render
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, Peer
from stanch.core.types import parse_network

GOLDEN = Path(__file__).parent / "golden"
ETH0, WG0 = Device(2, "eth0"), Device(7, "wg0")

SERVERS = (
    Peer(address=ip_address("203.0.113.5"), port=8443),
    Peer(address=ip_address("2001:db8::5"), port=8443),
)
ALLOW = tuple(Opening(network=ip_network(one)) for one in ("10.0.0.0/8", "192.168.7.9/32", "2001:db8:7::/48"))
BACKUP = "system.slice/backup.service"
EVERY_KIND = (
    Opening(
        network=ip_network("192.0.2.0/24"), transport=Transport.TCP, direction=Direction.OUT, remote=Ports(443, 443)
    ),
    Opening(network=ip_network("192.0.2.7"), transport=Transport.TCP, direction=Direction.OUT, remote=Ports(400, 500)),
    Opening(network=ip_network("192.0.2.0/24"), transport=Transport.TCP, direction=Direction.IN, local=Ports(22, 22)),
    Opening(network=ip_network("2001:db8:9::/64"), transport=Transport.UDP, remote=Ports(123, 123)),
    Opening(network=ip_network("::/0"), transport=Transport.ICMP),
    Opening(network=ip_network("198.51.100.0/24"), direction=Direction.IN),
    Opening(network=ip_network("0.0.0.0/0"), transport=Transport.TCP, direction=Direction.OUT, uid=1000),
    Opening(network=ip_network("2001:db8:a::1"), cgroup=BACKUP),
)

CASES: dict[str, tuple[IsolationRules, tuple[Device, ...], timedelta | None]] = {
    "server-only": (IsolationRules(servers=SERVERS), (ETH0,), timedelta(seconds=75)),
    "with-networks": (IsolationRules(servers=SERVERS, allow=ALLOW), (ETH0, WG0), timedelta(hours=5)),
    "nothing-at-all": (IsolationRules(servers=(), dhcp=False), (), None),
    "every-kind": (
        IsolationRules(
            servers=SERVERS[:1], proxies=SERVERS[1:], resolvers=(ip_address("192.0.2.53"),), allow=EVERY_KIND
        ),
        (ETH0,),
        timedelta(hours=5),
    ),
}

addresses = st.ip_addresses()
peers = st.builds(Peer, address=addresses, port=st.integers(1, 65535))


@st.composite
def networks(draw: Callable) -> IPv4Network | IPv6Network:
    address = draw(addresses | st.sampled_from([ip_address("10.0.0.1"), ip_address("2001:db8::1")]))
    length = draw(st.integers(0, address.max_prefixlen))
    return parse_network(f"{address}/{length}")


@st.composite
def ports(draw: Callable) -> Ports:
    first = draw(st.integers(1, 65535) | st.integers(1, 30))
    return Ports(first, draw(st.just(first) | st.integers(first, 65535)))


@st.composite
def openings(draw: Callable, *, bound: bool = True) -> Opening:
    transport = draw(st.sampled_from(Transport))
    made = {
        "network": draw(networks()),
        "transport": transport,
        "direction": draw(st.sampled_from(Direction)),
        "remote": draw(st.none() | ports()) if transport.has_ports else None,
        "local": draw(st.none() | ports()) if transport.has_ports else None,
    }
    if bound and draw(st.integers(0, 3)) == 0:
        made["uid"], made["direction"] = draw(st.integers(0, 2**32 - 2)), Direction.OUT
    return Opening(**made)


plain_rules = st.builds(
    IsolationRules,
    servers=st.lists(peers, max_size=5).map(tuple),
    proxies=st.lists(peers, max_size=2).map(tuple),
    resolvers=st.lists(addresses, max_size=2).map(tuple),
    allow=st.lists(networks().map(lambda one: Opening(network=one)), max_size=8).map(tuple),
    dhcp=st.booleans(),
)
rules_of_anyone = st.builds(
    IsolationRules,
    servers=st.lists(peers, max_size=5).map(tuple),
    proxies=st.lists(peers, max_size=2).map(tuple),
    resolvers=st.lists(addresses, max_size=2).map(tuple),
    allow=st.lists(openings(), max_size=8).map(tuple),
    dhcp=st.booleans(),
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
        assert line.endswith(";")


@given(st.text(max_size=20), plain_rules)
def test_no_device_name_gets_out_of_its_quotes(name, rules):
    """A device is written with its plain name, or not at all."""
    text = render(rules, (Device(5, name),), lift_after=None)
    notes = 4  # one of each table
    assert ("device_5" in text) == Device(5, name).coverable
    assert text.count('"') == notes + (8 if Device(5, name).coverable else 0)  # two chains
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


if __name__ == "__main__":
    for case in CASES:
        (GOLDEN / f"{case}.nft").write_text(_text(case))
