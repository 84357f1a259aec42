"""Statements: sets before rules, old names left alone until the rules turn, nothing kept that is not wanted."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.tablespec import ENDING, Chain, Parts, Set, Table, ending, rule_statements, set_statements

TABLE = Table(
    family="inet",
    sets=[
        Set(name="allow", kind="ipv4_addr", options="flags interval", elements=["10.0.0.0/8", "192.0.2.1"]),
        Set(name="talk", kind="ipv4_addr", options="flags dynamic", learns=True),
    ],
    chains=[
        Chain(name="input", hook="input", rules=[f"ip saddr @allow_{ENDING} accept"]),
        Chain(name="more", rules=[]),
    ],
)


def test_sets_are_made_first_under_a_new_ending():
    """Fixed sets get the ending and their elements; those that learn keep their name and get none."""
    assert list(set_statements(TABLE, "t", "b")) == [
        "add set inet t allow_b { type ipv4_addr; flags interval; };",
        "add element inet t allow_b { 10.0.0.0/8, 192.0.2.1 };",
        "add set inet t talk { type ipv4_addr; flags dynamic; };",
    ]


def test_rules_turn_to_the_new_sets_and_the_old_ones_go():
    """What stays is not deleted: base chains that are wanted, sets that learn, and the sets that were just made."""
    there = Parts(chains=frozenset({"input", "device_7"}), sets=frozenset({"allow_a", "allow_b", "talk", "strange"}))
    assert list(rule_statements(TABLE, "t", "b", there)) == [
        "flush table inet t;",
        "delete chain inet t device_7;",
        "delete set inet t allow_a;",
        "delete set inet t strange;",
        "add chain inet t input { type filter hook input priority -300; policy accept; };",
        "add chain inet t more { };",
        "add rule inet t input ip saddr @allow_b accept;",
    ]


@given(st.sets(st.sampled_from(["allow_a", "allow_b", "allow_c", "talk", "a", "more_a"])))
def test_an_ending_is_never_in_use(names):
    """Of three endings one that no set has, or none at all."""
    found = ending(Parts(sets=frozenset(names)))
    taken = {name[-1] for name in names if "_" in name}
    assert found not in taken
    assert (found is None) == (taken == {"a", "b", "c"})
