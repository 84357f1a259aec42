"""What two tables amount to on a machine, and what is told of what they do not reach."""

from dataclasses import replace

from stanch.agent.host.judge import judge, xdp_sockets
from stanch.agent.host.links import Link
from stanch.agent.host.listing import Listed
from stanch.agent.host.ruleset import Device
from stanch.core.network import IsolationRules, IsolationState

ETH0 = Device(2, "eth0")
WHOLE = Listed(
    rules=IsolationRules(servers=()), armed=True, remaining=None, whole=True, egress=True, devices=frozenset({ETH0})
)


def test_xdp_is_reported_in_every_state():
    """Programs and sockets that see packets before any firewall are named, isolated or not."""
    for tables in ((WHOLE, WHOLE), (None, None)):
        now = judge(*tables, [Link(ETH0, xdp=True)], 2)
        assert [line for line in now.not_covered if "eth0" in line]
        assert [line for line in now.not_covered if line.startswith("2 AF_XDP sockets")]


def test_what_is_missing_is_damage_only_if_it_was_there():
    """A kernel without egress has one table, and nothing is wrong with that; elsewhere one table is half of it."""
    alone, link = replace(WHOLE, egress=False), [Link(ETH0, xdp=False)]
    assert [judge(*tables, link, 0).damaged for tables in ((alone, None), (WHOLE, None), (None, WHOLE))] == [
        False,
        True,
        True,
    ]
    disarmed, torn = replace(WHOLE, armed=False), replace(WHOLE, whole=False)
    assert judge(WHOLE, disarmed, link, 0).damaged
    assert judge(WHOLE, torn, link, 0).damaged
    assert judge(disarmed, disarmed, link, 0).state is IsolationState.RELEASED


def test_a_renamed_device_is_not_taken_for_covered():
    """An egress chain counts only for the device that it was made for, by index and name."""
    assert judge(WHOLE, WHOLE, [Link(ETH0, xdp=False)], 0).state is IsolationState.ISOLATED
    assert judge(WHOLE, WHOLE, [Link(Device(2, "eth1"), xdp=False)], 0).state is IsolationState.PARTIAL
    assert judge(WHOLE, WHOLE, [Link(Device(3, "eth0"), xdp=False)], 0).state is IsolationState.PARTIAL


def test_af_xdp_sockets_are_counted_from_the_table(tmp_path):
    """The count comes from the kernel's table of protocols, and is 0 without one."""
    table = tmp_path / "protocols"
    table.write_text("protocol  size sockets  memory press maxhdr\nXDP       1024      3      -1   NI       0\n")
    assert xdp_sockets(table) == 3
    assert xdp_sockets(tmp_path / "absent") == 0
    assert xdp_sockets() >= 0
