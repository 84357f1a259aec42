"""What stays reachable for sockets that exist already: the same decision as the kernel's."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.mark import AGENT_MARK
from stanch.agent.host.openings import canonical
from stanch.agent.host.reach import Reach
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, Peer
from tests.agent.host.test_ruleset import addresses, plain_rules
from tests.agent.host.test_sockets import opened


def socket_to(address, port=443, *, protocol="tcp", **options):
    """A socket with this peer."""
    return replace(opened("10.0.0.2", port=port, protocol=protocol), remote=ip_address(str(address)), **options)


@given(plain_rules, addresses, st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
def test_reach_is_what_the_rules_say(rules, address, port, protocol):
    """An address is reachable if it is loopback, in an allowed network, or a server by TCP at its port."""
    plain = address.ipv4_mapped or address if address.version == 6 else address
    kept = canonical(rules)
    expected = (
        plain.is_loopback
        or any(plain in one.network for one in kept.allow if one.network.version == plain.version)
        or (protocol == "tcp" and Peer(address=plain, port=port) in kept.servers)
    )
    assert Reach(rules).allows(socket_to(address, port, protocol=protocol)) == expected


@given(plain_rules.filter(lambda rules: rules.servers))
def test_a_server_is_reached_by_tcp_at_its_port(rules):
    """Each server is reachable, and its other ports and protocols only if a network allows them."""
    server = rules.servers[0]
    reach = Reach(IsolationRules(servers=rules.servers[:1]))
    local = server.address.is_loopback
    assert reach.allows(socket_to(server.address, server.port))
    assert reach.allows(socket_to(server.address, server.port, protocol="udp")) == local
    assert reach.allows(socket_to(server.address, server.port % 65535 + 1)) == local


NET = ip_network("192.0.2.0/24")
HTTPS = Opening(network=NET, transport=Transport.TCP, direction=Direction.OUT, remote=Ports(440, 443))


@pytest.mark.parametrize(
    ("allow", "one", "stays"),
    [
        (HTTPS, socket_to("192.0.2.1", 443), True),
        (HTTPS, socket_to("192.0.2.1", 444), False),
        (HTTPS, socket_to("192.0.2.1", 443, protocol="udp"), False),
        (HTTPS, socket_to("192.0.3.1", 443), False),
        (replace(HTTPS, remote=None, local=Ports(40000, 40000)), socket_to("192.0.2.1"), True),
        (replace(HTTPS, remote=None, local=Ports(40001, 40001)), socket_to("192.0.2.1"), False),
        (Opening(network=NET, transport=Transport.ICMP), socket_to("192.0.2.1"), False),
        (replace(HTTPS, uid=7), socket_to("192.0.2.1", uid=7), True),
        (replace(HTTPS, uid=7), socket_to("192.0.2.1", uid=8), False),
        (Opening(network=NET, cgroup="a"), socket_to("192.0.2.1", group=11), True),
        (Opening(network=NET, cgroup="a"), socket_to("192.0.2.1", group=12), False),
        (Opening(network=NET, cgroup="a"), socket_to("192.0.2.1", group=0), False),
    ],
)
def test_a_socket_stays_only_if_an_opening_has_all_of_it(allow, one, stays):
    """Network, protocol, ports, account and control group must all be those of the opening."""
    reach = Reach(IsolationRules(servers=(), allow=(allow,)), groups=lambda _path: frozenset({10, 11}))
    assert reach.allows(one) is stays


@pytest.mark.parametrize("mark", [0, AGENT_MARK, AGENT_MARK | 0x4000, AGENT_MARK ^ 1])
def test_only_the_agent_s_own_sockets_reach_proxies_and_resolvers(mark):
    """The mark decides, whatever bits others have added to it."""
    rules = IsolationRules(
        servers=(), proxies=(Peer(address=ip_address("192.0.2.1"), port=3128),), resolvers=(ip_address("192.0.2.53"),)
    )
    reach, ours = Reach(rules), mark & 0x30FF == AGENT_MARK
    assert reach.allows(socket_to("192.0.2.1", 3128, mark=mark)) is ours
    assert reach.allows(socket_to("192.0.2.53", 53, protocol="udp", mark=mark)) is ours
    assert not reach.allows(socket_to("192.0.2.1", 3129, mark=mark))
    assert not reach.allows(socket_to("192.0.2.53", 54, mark=mark))
