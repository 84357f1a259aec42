"""A listing that is remembered is used only while nothing can have changed."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.listing import Listed
from stanch.agent.host.remembered import Remembered, state_of
from stanch.agent.host.ruleset import TABLE
from stanch.agent.host.tablespec import Parts
from stanch.core.network import IsolationRules
from tests.netns import Netns, netns, wire

HOUR = timedelta(hours=1)
LISTED = Listed(rules=IsolationRules(servers=()), armed=True, remaining=HOUR, whole=True, egress=True)


SOMETHING = frozenset({(("inet", TABLE), 0, Parts())})


class Kernel:
    """A kernel's count of transactions, and a clock."""

    def __init__(self) -> None:
        self.count: int | None = 1
        self.clock = 0.0
        self.remembered = Remembered(
            lambda: None if self.count is None else (self.count, SOMETHING),
            clock=lambda: self.clock,
        )

    def listed(self, listed: Listed = LISTED, *, meanwhile: int = 0) -> None:
        """Look, and list what is not remembered; so many transactions happen while it is listed."""
        if self.remembered.get() is None:
            began = self.clock
            if self.count is not None:
                self.count += meanwhile
            self.remembered.keep((listed, None), began=began)


def test_the_time_left_goes_on_without_a_listing():
    """What is remembered is told with the time that is left now."""
    kernel = Kernel()
    for _ in range(2):
        kernel.listed()
        kernel.clock += 10
    assert kernel.remembered.get()[0].remaining == HOUR - timedelta(seconds=10)


def test_a_count_that_has_just_changed_is_not_trusted():
    """The kernel raises it before all of the transaction can be seen."""
    kernel = Kernel()
    kernel.listed()
    kernel.clock += 1.9
    assert kernel.remembered.get() is None


def test_what_changes_while_it_is_listed_is_not_remembered():
    """Half of a listing may be from before."""
    kernel = Kernel()
    kernel.listed()
    kernel.clock += 10
    kernel.listed(meanwhile=1)
    assert kernel.remembered.get() is None


def test_near_its_end_the_kernel_is_asked():
    """Only the kernel knows when it stops enforcing."""
    kernel = Kernel()
    for _ in range(2):
        kernel.listed()
        kernel.clock += 10
    kernel.clock += HOUR.total_seconds() - 10 - 2
    assert kernel.remembered.get() is None


def test_a_kernel_that_does_not_count_is_always_asked():
    """Nothing is remembered that cannot be checked."""
    kernel = Kernel()
    kernel.count = None
    for _ in range(3):
        kernel.listed()
        kernel.clock += 10
    assert kernel.remembered.get() is None


@given(st.lists(st.tuples(st.sampled_from(["look", "change", "wait"]), st.floats(0.1, 100)), max_size=40))
def test_nothing_old_is_ever_told(steps):
    """Whatever happens in whatever order: what is remembered is what a listing would say."""
    kernel, now = Kernel(), 0
    for step, length in steps:
        kernel.clock += length * (step == "wait")
        if step == "change":
            now += 1
            kernel.count += 1
        listed = Listed(rules=IsolationRules(servers=()), armed=True, remaining=None, whole=True, egress=bool(now % 2))
        kernel.listed(listed)
        told = kernel.remembered.get()
        assert told is None or told[0] == listed


@pytest.fixture
def endpoint() -> Iterator[Netns]:
    """A namespace with one device and a table of our name."""
    with netns() as made, netns() as outside:
        wire(made, outside, 1)
        made.command(
            "nft -f -",
            stdin=f"table netdev {TABLE} {{ chain one {{ accept; }}; }}",
        )
        yield made


@pytest.mark.root
@pytest.mark.parametrize(
    "line",
    [
        f"nft flush table netdev {TABLE}",
        "nft flush ruleset",
        "nft add table ip unrelated",
        f"nft add rule netdev {TABLE} one drop",
    ],
)
def test_the_kernel_counts_every_transaction(endpoint, looking, line):
    """Whatever anybody changes by nft is seen."""
    before = endpoint.call(lambda: state_of(TABLE, looking))
    assert before is not None
    assert endpoint.call(lambda: state_of(TABLE, looking)) == before
    endpoint.command(line)
    assert endpoint.call(lambda: state_of(TABLE, looking)) != before


def test_no_table_needs_no_listing():
    """The kernel says at once that there is nothing of ours."""
    remembered = Remembered(lambda: (7, frozenset()))
    assert remembered.get() == (None, None)


@pytest.mark.parametrize(("owner", "remembered"), [(42, True), (43, False), (0, False)])
def test_what_only_we_can_change_counts_at_once(owner, remembered):
    """No transaction of others can be on its way to tables that are ours."""
    state = (1, frozenset({(("inet", TABLE), owner, Parts())}))
    made = Remembered(lambda: state, port=lambda: 42, clock=lambda: 0.0)
    assert made.get() is None
    made.keep((LISTED, None), began=0.0)
    assert (made.get() is not None) is remembered
