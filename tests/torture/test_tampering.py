"""What somebody else may break is found in the text of the rules."""

from random import Random
from types import SimpleNamespace

from stanch.agent.host import tables
from tests.torture.tampering import delete_commands, part_commands
from tests.torture.world import TRIAL

RULES = """\
table inet filter { # handle 1
\tchain INPUT { # handle 1
\t\ttcp dport 22 accept # handle 2
\t}
}
table inet stanch { # handle 7
\tset armed { # handle 2
\t\ttype mark
\t\telements = { 0x00000000 }
\t}

\tchain input { # handle 3
\t\ttype filter hook input priority -300; policy accept;
\t\tiif "lo" accept # handle 9
\t}
}
table netdev stanch_block { # handle 8
}
"""


def world(rules: str) -> SimpleNamespace:
    return SimpleNamespace(nft=lambda *_: SimpleNamespace(stdout=rules))


def test_every_part_of_our_tables_may_be_taken_out_and_none_of_others():
    """A chain, a rule by its handle, what is in a set."""
    found = {one for seed in range(200) for one in part_commands(world(RULES), Random(seed))}
    assert found == {
        "flush chain inet stanch input",
        "delete rule inet stanch input handle 9",
        "flush set inet stanch armed",
    }


def test_our_tables_may_be_deleted_one_or_all():
    """Whatever they are called behind our name."""
    found = {tuple(delete_commands(world(RULES), Random(seed))) for seed in range(200)}
    inet, netdev = "delete table inet stanch", "delete table netdev stanch_block"
    assert found == {(inet,), (netdev,), (inet, netdev)}


def test_without_tables_there_is_nothing_to_break():
    """Then nothing is done."""
    assert part_commands(world(""), Random(1)) == delete_commands(world(""), Random(1)) == []


def test_a_plain_world_hinders_the_very_table_that_the_agent_tries():
    """Otherwise every world would have owned tables, and nothing would depend on quick repair."""
    assert TRIAL == tables._TRIAL
