"""A table of ours before it is text: sets and chains, and the statements that bring the kernel to it.

The statements are flat (`add rule ...`), never a block, and name no table flags: a table that is owned cannot be told
otherwise. In a table that is there, base chains and sets that learn stay; rules and fixed sets are replaced.

Replacing takes two transactions: the sets first, under names that end differently from those in use, then all rules at
once. In one, packets would be lost: the kernel turns to the new rules before an interval set of the same transaction is
filled. Each statement ends with a semicolon, so that the lines may be joined.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Family = Literal["inet", "netdev"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """A set, with its elements unless the kernel itself fills it."""

    name: str
    kind: str
    options: str = ""
    elements: Sequence[str] = ()
    learns: bool = False
    """Does it keep what it holds when the rules are replaced?"""
    times: bool = False
    """Does its one element say how long the tables are in force?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain; a base chain if it has a hook."""

    name: str
    rules: Sequence[str]
    hook: str = ""
    """input, output, forward, or `ingress device "NAME"` and `egress device "NAME"`."""

    @property
    def priority(self) -> int:
        """Where it stands in its hook."""
        return LAST if "device" in self.hook else PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of one family."""

    family: Family
    sets: Sequence[Set]
    chains: Sequence[Chain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a table in the kernel consists of."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()


NOTHING = Parts()
PRIORITY = -300
"""Before everything else, in the hooks of the IP stack."""

LAST = 2_147_483_647
"""After everything else, in the hooks of a device: whoever follows could rewrite what was let pass."""

ENDING = "<ending>"
"""In rules: how the names of the fixed sets end this time."""

_ENDINGS = "abc"


def ending(there: Parts) -> str | None:
    """One that no set has now: of three, one is in use, and one may be left from a change that was cut short.

    None if all are taken: then the table must be made anew.
    """
    return next((one for one in _ENDINGS if not any(name.endswith(f"_{one}") for name in there.sets)), None)


def set_statements(table: Table, name: str, end: str) -> Iterator[str]:
    """Make the sets, filled; those that learn stay as they are if they are there."""
    where = f"{table.family} {name}"
    for one in table.sets:
        options = f" {one.options};" if one.options else ""
        full = _full_name(one, end)
        yield f"add set {where} {full} {{ type {one.kind};{options} }};"
        if one.elements:
            yield f"add element {where} {full} {{ {', '.join(one.elements)} }};"


def rule_statements(table: Table, name: str, end: str, there: Parts = NOTHING) -> Iterator[str]:
    """Replace all rules by those that use the new sets, and remove what else there is."""
    where = f"{table.family} {name}"
    if there.chains:
        yield f"flush table {where};"
    # Nothing is deleted that stays: a base chain that is new is asked before its rules are there.
    for old in sorted(there.chains - {chain.name for chain in table.chains}):
        yield f"delete chain {where} {old};"
    for old in sorted(there.sets - {_full_name(one, end) for one in table.sets}):
        yield f"delete set {where} {old};"
    for chain in table.chains:
        hook = f"type filter hook {chain.hook} priority {chain.priority}; policy accept; " if chain.hook else ""
        yield f"add chain {where} {chain.name} {{ {hook}}};"
    for chain in table.chains:
        for rule in chain.rules:
            yield f"add rule {where} {chain.name} {rule.replace(ENDING, end)};"


def _full_name(one: Set, end: str) -> str:
    return one.name if one.learns else f"{one.name}_{end}"
