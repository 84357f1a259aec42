"""Is the table of processes whole, and does a filter keep what it should?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.list_processes import MAX_BYTES, ListProcesses, as_many_as_fit, keep_matching, list_processes
from stanch.core.host import Process
from tests.fakes.host import FakeEndpoint


@pytest.fixture
def endpoint():
    found = FakeEndpoint()
    found.processes.add(10, name="sshd", executable="/usr/sbin/sshd")
    found.processes.add(11, parent=10, name="bash", arguments="bash -l")
    found.processes.add(12, parent=11, name="Nginx", executable=None)
    found.processes.add(20, name="cron", executable="/usr/sbin/cron")
    return found


async def test_everything_in_tree_order(endpoint):
    """Parents first, each with its depth; nothing on the endpoint changes."""
    table = await list_processes.run(endpoint.host, ListProcesses())
    assert [(one.pid, one.depth) for one in table.processes] == [(1, 0), (10, 1), (11, 2), (12, 3), (20, 1)]
    assert table.total == 5
    assert endpoint.life.steps == []


@pytest.mark.parametrize(
    ("text", "pids"),
    [
        ("nginx", [1, 10, 11, 12]),  # the name, whatever its case
        ("BASH -L", [1, 10, 11]),  # the command line
        ("/usr/sbin", [1, 10, 20]),  # the program
        ("init", [1]),
        ("nothing has this", []),
    ],
)
async def test_a_match_keeps_its_ancestors(endpoint, text, pids):
    """Where a process comes from is half of what one wants to know; `total` still counts all."""
    table = await list_processes.run(endpoint.host, ListProcesses(match=text))
    assert [one.pid for one in table.processes] == pids
    assert table.total == 5


rows = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["evil", "EVIL-1", "good", ""])), min_size=1, max_size=12
).map(
    lambda found: tuple(
        Process(
            pid=pid,
            parent=parent,
            started=pid,
            user="u",
            name=name,
            executable=None,
            arguments="",
            state="S",
            memory=0,
        )
        for pid, (parent, name) in enumerate(found, start=1)
    )
)


@given(rows)
def test_keeps_matches_and_their_ancestors_and_nothing_else(processes):
    """Whatever the tree (even with circles): the order stays, each match is kept, and each kept has a reason."""
    kept = keep_matching(processes, "Evil")
    assert [one for one in processes if one in kept] == list(kept)
    matching = [one for one in processes if "evil" in one.name.lower()]
    assert set(matching) <= set(kept)
    above = {one.parent for one in kept}
    assert all(one in matching or one.pid in above for one in kept)
    assert all(one.parent not in {other.pid for other in processes} or by_pid(kept, one.parent) for one in kept)


def by_pid(processes, pid):
    return [one for one in processes if one.pid == pid]


@given(rows)
def test_filtering_twice_is_filtering_once(processes):
    """The filter keeps what it has kept."""
    once = keep_matching(processes, "evil")
    assert keep_matching(once, "evil") == once


def test_a_table_that_is_too_large_is_cut() -> None:
    """Rows are kept in order up to what one report can carry, and no further."""
    one = Process(
        pid=5, parent=1, started=1, user="u", name="n", executable=None, arguments="x" * 4000, state="S", memory=0
    )
    many = (one,) * 2000
    kept = as_many_as_fit(many)
    assert 0 < len(kept) < len(many)
    assert sum(len(row.model_dump_json()) for row in kept) <= MAX_BYTES
    assert as_many_as_fit(many[:5]) == many[:5]
