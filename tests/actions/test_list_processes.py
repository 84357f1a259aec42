"""Is the table of processes whole, and does a filter keep what it should?"""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.list_processes import (
    MAX_BYTES,
    ListProcesses,
    ProcessTable,
    as_many_as_fit,
    contains,
    descendants,
    keep,
    list_processes,
)
from stanch.core.processes import Detail, OpenSocket, Process
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


LISTENER = OpenSocket(protocol="tcp", local="0.0.0.0:22", remote="0.0.0.0:0", state="LISTEN")
TALKER = OpenSocket(protocol="tcp", local="10.0.0.1:999", remote="10.0.0.2:443", state="ESTAB")
ID = "4f" * 32


@pytest.fixture
def busy():
    """An endpoint with something to find for every filter."""
    found = FakeEndpoint()
    add = found.processes.add
    add(10, name="sshd", unit="ssh.service", sockets=(LISTENER,), package="openssh-server", sha256="a" * 64)
    add(11, parent=10, name="bash", user="eve", sockets=(TALKER,))
    add(12, parent=11, name="x", user="eve", executable="/tmp/x (deleted)", deleted=True, sha256="b" * 64)
    add(20, name="app", container=ID, inner_pid=1, unit="docker.service")
    add(21, parent=20, name="worker", container=ID, inner_pid=7, user="eve")
    return found


@pytest.mark.parametrize(
    ("asked", "pids"),
    [
        ({"user": "eve"}, [1, 10, 11, 12, 20, 21]),
        ({"user": "ev"}, []),
        ({"pid": 11}, [1, 10, 11, 12]),
        ({"pid": 4000}, []),
        ({"container": ID[:12]}, [1, 20, 21]),
        ({"unit": "ssh"}, [1, 10]),
        ({"unit": "docker.service"}, [1, 20]),
        ({"unit": "dock"}, []),
        ({"deleted": True}, [1, 10, 11, 12]),
        ({"listening": True}, [1, 10]),
        ({"user": "eve", "container": ID}, [1, 20, 21]),
        ({"user": "eve", "pid": 20}, [1, 20, 21]),
        ({"user": "eve", "listening": True}, []),
        ({"match": "bash", "user": "root"}, []),
    ],
)
async def test_filters_keep_what_fits_all_of_them(busy, asked, pids):
    """Each filter alone, and several together; always with the ancestors, and with the count of all."""
    table = await list_processes.run(busy.host, ListProcesses.model_validate(asked))
    assert [one.pid for one in table.processes] == pids
    assert table.total == 6


@pytest.mark.parametrize(
    ("details", "known"),
    [
        ((), {"sha256": None, "sockets": (), "package": ""}),
        (("hash",), {"sha256": "a" * 64, "sockets": (), "package": ""}),
        (("sockets",), {"sha256": None, "sockets": (LISTENER,), "package": ""}),
        (("package",), {"sha256": None, "sockets": (), "package": "openssh-server"}),
        (tuple(Detail), {"sha256": "a" * 64, "sockets": (LISTENER,), "package": "openssh-server"}),
    ],
)
async def test_details_are_told_where_they_are_asked_for(busy, details, known):
    """What takes time is found out for nobody who did not ask."""
    table = await list_processes.run(busy.host, ListProcesses(details=details))
    (sshd,) = [one for one in table.processes if one.pid == 10]
    assert {name: getattr(sshd, name) for name in known} == known


async def test_who_listens_is_told_with_the_sockets(busy):
    """The filter shows why it kept a process; with another detail, both are there."""
    table = await list_processes.run(busy.host, ListProcesses(listening=True, details=(Detail.HASH,)))
    assert table.processes[-1].sockets == (LISTENER,)
    assert table.processes[-1].sha256 == "a" * 64


async def test_people_hear_how_far_the_hashing_is(busy):
    """Progress is told in programs, of those that are listed."""
    await list_processes.run(busy.host, ListProcesses(pid=20, details=(Detail.HASH,)))
    assert busy.progress.told[-1] == (3, 3, "programs", "hashing")


async def test_only_what_is_listed_is_looked_into(busy, monkeypatch):
    """A filter narrows the work, not only the answer."""
    asked = []
    detailed = busy.processes.detailed

    async def spy(ones, details, **more):
        asked.append([one.pid for one in ones])
        return await detailed(ones, details, **more)

    monkeypatch.setattr(busy.processes, "detailed", spy)
    await list_processes.run(busy.host, ListProcesses(deleted=True, details=(Detail.HASH,)))
    assert asked == [[1, 10, 11, 12]]


def test_a_result_of_version_1_is_still_read():
    """What is kept at the server from before has none of the new fields."""
    row = {
        "pid": 7, "parent": 1, "started": 5, "user": "root", "name": "x", "executable": "/x", "arguments": "x",
        "state": "S", "memory": 0, "depth": 1,
    }  # fmt: skip
    table = list_processes.parse_result({"total": 1, "processes": [row], "cut": False})
    assert isinstance(table, ProcessTable)
    assert (table.processes[0].sockets, table.processes[0].deleted, table.processes[0].note) == ((), False, "")


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


EVIL = partial(contains, text="evil")


@given(rows, st.integers(0, 14))
def test_a_process_descends_from_another_if_its_parent_does(processes, pid):
    """Whatever the tree (even with circles): one is in it, and so is each whose parent is, and nobody else."""
    found = descendants(processes, pid)
    assert pid in found
    assert all((one.parent in found) == (one.pid in found) or one.pid == pid for one in processes)


@given(rows)
def test_keeps_matches_and_their_ancestors_and_nothing_else(processes):
    """Whatever the tree (even with circles): the order stays, each match is kept, and each kept has a reason."""
    kept = keep(processes, [EVIL])
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
    once = keep(processes, [EVIL])
    assert keep(once, [EVIL]) == once


async def test_a_container_may_be_called_by_its_name(endpoint) -> None:
    """Only its runtime knows that name; without one that has it nothing fits."""
    one = endpoint.containers.add("shop")
    endpoint.processes.add(50, name="inside", container=one.id)
    found = await list_processes.run(endpoint.host, ListProcesses(container="shop"))
    assert "inside" in [row.name for row in found.processes]
    assert not (await list_processes.run(endpoint.host, ListProcesses(container="blog"))).processes


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


def test_letters_that_take_four_bytes_count_as_four() -> None:
    """A user who writes thousands of them into command lines cannot make a report that the link refuses."""
    one = Process(
        pid=5,
        parent=1,
        started=1,
        user="u",
        name="n",
        executable=None,
        arguments="\U0001f600" * 4000,
        state="S",
        memory=0,
    )
    kept = as_many_as_fit((one,) * 2000)
    assert 0 < sum(len(row.model_dump_json().encode()) for row in kept) <= MAX_BYTES
