"""The values of the network protocols: what they refuse, and what they leave out."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from stanch.core.network import Block, IsolationRules, IsolationState, KernelIsolation, Peer
from stanch.core.types import parse_network


@pytest.mark.parametrize("wrong", [{"address": "web", "port": 1}, {"address": "10.0.0.1", "port": 0}, {"port": 443}])
def test_a_peer_is_an_address_and_a_port(wrong):
    """Names and impossible ports are refused."""
    with pytest.raises(ValidationError):
        Peer.model_validate(wrong)


def test_a_mapped_address_is_what_packets_carry():
    """IPv4 in IPv6 is IPv4: rules for it must match."""
    assert str(Peer.model_validate({"address": "::ffff:10.0.0.1", "port": 443}).address) == "10.0.0.1"


def test_rules_leave_dhcp_open_unless_told():
    """Nothing else is open by itself."""
    rules = IsolationRules(servers=())
    assert rules == IsolationRules(servers=(), proxies=(), resolvers=(), allow=(), dhcp=True)


def test_a_kernel_that_says_nothing_is_not_damaged():
    """Released is a state of its own."""
    now = KernelIsolation(state=IsolationState.RELEASED, rules=None, remaining=None)
    assert not now.damaged
    assert now.not_covered == ()


def test_blocks_drop_both_ways_unless_told():
    """And for ever."""
    block = Block(network=parse_network("198.51.100.0/24"))
    assert block.inward
    assert block.outward
    assert block.remaining is None
    assert Block(network=block.network, remaining=timedelta(hours=1)) != block
