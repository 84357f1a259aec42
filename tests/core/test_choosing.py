"""Are exactly those chosen that the order means, in each way of saying which, and never what must be spared?"""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from stanch.core.choosing import Choice, Family, Meant, below, first_look, look_alikes, newcomers, wide
from stanch.core.errors import Protected, TargetGone, TooLarge
from stanch.core.processes import Process, ProcessId
from tests.fakes.host import FakeEndpoint

AGENT, SHELL, MINER, HELPER, OTHER, HELD = 50, 60, 100, 101, 102, 103
SHA256, MD5 = "ab" * 32, "cd" * 16


@pytest.fixture
def endpoint():
    """A shell that started a miner with a helper; the same miner once more, of another account; and the agent."""
    made = FakeEndpoint()
    made.processes.add(AGENT, name="stanch", executable="/usr/bin/python3")
    made.processes.protected = {1: "it is init", AGENT: "it is Stanch's agent"}
    made.processes.add(SHELL, executable="/bin/bash", arguments="-bash")
    made.processes.add(MINER, parent=SHELL, executable="/tmp/miner", arguments="miner -q", user="eve")
    made.processes.add(HELPER, parent=MINER, executable="/bin/sh", user="eve")
    made.processes.add(OTHER, executable="/tmp/miner (deleted)", arguments="miner", user="www")
    made.processes.hashes = {"/tmp/miner": (SHA256, MD5)}
    made.processes.started_by = {OTHER: "tsk_9"}
    return made


async def pids_of(endpoint, **choice):
    return [one.pid for one in (await first_look(endpoint.host, Choice(**choice))).members]


# --- ways ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ({"pid": MINER}, [MINER, HELPER]),
        ({"pid": MINER, "tree": False}, [MINER]),
        ({"path": "/tmp/miner"}, [MINER, OTHER, HELPER]),
        ({"path": "/tmp/miner", "tree": False}, [MINER, OTHER]),
        ({"path": "/tmp/miner", "user": "www"}, [OTHER]),
        ({"sha256": SHA256.upper(), "tree": False}, [MINER, OTHER]),
        ({"md5": MD5, "user": "eve"}, [MINER, HELPER]),
        ({"task": "tsk_9"}, [OTHER]),
    ],
)
async def test_each_way_finds_those_that_it_means(endpoint, choice, meant):
    """Those that fit come first, then what is below them; a deleted program is found by its path."""
    assert await pids_of(endpoint, **choice) == meant


async def test_certain_processes_are_named(endpoint):
    """Exactly these, as far as they still are those."""
    ids = [endpoint.processes.table[pid].id for pid in (OTHER, MINER)]
    gone = ProcessId(pid=HELPER, started=1)
    assert await pids_of(endpoint, processes=(*ids, gone), tree=False) == [OTHER, MINER]


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"user": "eve"},
        {"pid": 1, "path": "/tmp/miner"},
        {"sha256": SHA256, "md5": MD5},
        {"path": "/tmp/miner", "started": 5},
        {"path": "miner"},
        {"pid": 7, "most": 0},
    ],
)
def test_an_order_must_say_which_in_one_way(choice):
    """Nothing, two ways, or a start time without its pid are refused."""
    with pytest.raises(ValidationError):
        Choice(**choice)


def test_an_order_of_before_there_were_ways_means_the_same():
    """The parameters of the first version parse."""
    assert Choice.model_validate({"pid": 7, "started": 9, "tree": False}).named


async def test_who_runs_nothing_that_fits_is_target_gone(endpoint):
    """The error says what was asked for."""
    with pytest.raises(TargetGone, match="none of path /tmp/other, user eve"):
        await pids_of(endpoint, path="/tmp/other", user="eve")


async def test_a_pid_of_another_account_is_target_gone(endpoint):
    """`user` narrows a pid, too."""
    with pytest.raises(TargetGone, match=r"another account .*got eve, expected root"):
        await pids_of(endpoint, pid=MINER, user="root")


async def test_a_zombie_is_target_gone(endpoint):
    """It has ended; the error says who keeps it."""
    endpoint.processes.add(MINER, parent=SHELL, state="Z")
    with pytest.raises(TargetGone, match=f"is a zombie.*process {SHELL}"):
        await pids_of(endpoint, pid=MINER)


async def test_zombies_in_a_tree_are_left_out(endpoint):
    """There is nothing to be done to them."""
    endpoint.processes.add(HELPER, parent=MINER, state="Z")
    assert await pids_of(endpoint, pid=MINER) == [MINER]


async def test_more_than_allowed_is_refused(endpoint):
    """With both numbers."""
    look = await first_look(endpoint.host, Choice(path="/tmp/miner", most=2))
    assert [type(one) for one in look.refusals] == [TooLarge]
    assert (look.refusals[0].got, look.refusals[0].expected) == ("3", "at most 2")


# --- sparing ---------------------------------------------------------------------------------------------------------


async def test_what_is_protected_is_left_out_with_what_is_below_it(endpoint):
    """A program that init runs too is not the death of everything."""
    endpoint.processes.table[1] = endpoint.processes.table[1].model_copy(update={"executable": "/tmp/miner"})
    look = await first_look(endpoint.host, Choice(path="/tmp/miner"))
    assert [one.pid for one in look.members] == [MINER, OTHER, HELPER]
    assert [(one.pid, one.why) for one in look.spared.values()] == [(1, "it is init")]
    assert look.refusals == []


async def test_in_a_tree_a_protected_one_is_left_out_with_what_is_below_it(endpoint):
    """The agent that a bad program has started does not end with it, nor what the agent runs."""
    endpoint.processes.add(AGENT, parent=MINER)
    endpoint.processes.add(HELD, parent=AGENT)
    look = await first_look(endpoint.host, Choice(path="/tmp/miner"))
    assert [one.pid for one in look.members] == [MINER, OTHER, HELPER]
    assert await newcomers(endpoint.host, Choice(path="/tmp/miner"), look) == []
    assert HELD not in {one.pid for one in look.members}


async def test_of_a_named_one_a_protected_process_refuses_all(endpoint):
    """Who names a process means its whole tree."""
    endpoint.processes.protected[HELPER] = "it is Stanch's agent"
    look = await first_look(endpoint.host, Choice(pid=MINER))
    assert [type(one) for one in look.refusals] == [Protected]


async def test_if_all_must_be_spared_it_is_refused(endpoint):
    """And each reason is given."""
    look = await first_look(endpoint.host, Choice(path="/usr/bin/python3"))
    assert [type(one) for one in look.refusals] == [Protected]
    assert look.refusals[0].got == f"{AGENT} (stanch): it is Stanch's agent"


async def test_a_choice_that_means_good_ones_too_says_so(endpoint):
    """By a path or hash that half of the machine runs: which programs, and whose processes."""
    endpoint.processes.add(300, executable="/bin/sh", user="www")
    endpoint.processes.add(301, executable="/tmp/sh", user="eve")
    endpoint.processes.hashes |= {"/bin/sh": ("ef" * 32, MD5), "/tmp/sh": ("ef" * 32, MD5)}
    which = Choice(sha256="ef" * 32)
    told = list(wide(which, await first_look(endpoint.host, which)))
    assert told[0].startswith("/bin/sh, /tmp/sh runs whatever it is told")
    assert told[1:] == ["It runs from 2 paths: /bin/sh, /tmp/sh", "Processes of 2 accounts are meant: eve (2), www (1)"]
    for which in (Choice(path="/tmp/miner", user="eve"), Choice(pid=SHELL)):
        assert list(wide(which, await first_look(endpoint.host, which))) == []


# --- who else --------------------------------------------------------------------------------------------------------


async def test_a_newborn_is_found_below_its_parent(endpoint):
    """Once."""
    which = Choice(pid=MINER)
    look = await first_look(endpoint.host, which)
    new = endpoint.processes.fork(HELPER)
    assert [one.id for one in await newcomers(endpoint.host, which, look)] == [new]
    assert await newcomers(endpoint.host, which, look) == []


async def test_an_orphan_is_found_by_its_looks(endpoint):
    """Its parents have ended, and it is init's; it is what a member was, and younger than the order."""
    which = Choice(pid=MINER)
    look = await first_look(endpoint.host, which)
    endpoint.processes.orphans = {MINER}
    new = endpoint.processes.fork(MINER)
    assert [one.id for one in await newcomers(endpoint.host, which, look)] == [new]


@pytest.mark.parametrize(
    ("parent", "changed"),
    [
        (AGENT, {}),
        (SHELL, {"user": "root"}),
        (SHELL, {"arguments": "miner"}),
        (SHELL, {"executable": "/tmp/other"}),
        (SHELL, {"executable": None, "arguments": ""}),
    ],
)
async def test_what_only_resembles_is_no_look_alike(endpoint, parent, changed):
    """Another parent, account, command line or program is another process."""
    which = Choice(pid=MINER)
    look = await first_look(endpoint.host, which)
    same = {"executable": "/tmp/miner", "arguments": "miner -q", "user": "eve"}
    endpoint.processes.add(HELD, parent=parent, **{**same, **changed})
    assert await newcomers(endpoint.host, which, look) == []


async def test_what_was_there_before_is_no_look_alike(endpoint):
    """The order named one of two."""
    endpoint.processes.add(HELD, parent=SHELL, executable="/tmp/miner", arguments="miner -q", user="eve")
    which = Choice(pid=MINER)
    assert await newcomers(endpoint.host, which, await first_look(endpoint.host, which)) == []


async def test_a_look_alike_that_is_protected_is_left_alone(endpoint):
    """It is not what the order named."""
    which = Choice(pid=MINER)
    look = await first_look(endpoint.host, which)
    endpoint.processes.protected[HELD] = "it is a part of Stanch"
    endpoint.processes.add(HELD, parent=SHELL, executable="/tmp/miner", arguments="miner -q", user="eve")
    assert await newcomers(endpoint.host, which, look) == []


async def test_what_fits_and_is_new_belongs_to_it(endpoint):
    """Whoever runs the program is meant, whoever started it."""
    which = Choice(path="/tmp/miner", tree=False)
    look = await first_look(endpoint.host, which)
    new = endpoint.processes.add(HELD, parent=AGENT, executable="/tmp/miner")
    assert [one.id for one in await newcomers(endpoint.host, which, look)] == [new]


async def test_whoever_is_in_the_pen_leads_to_its_children(endpoint):
    """One that was born in a pen, of parents that nobody has seen, is no stranger."""
    which = Choice(pid=MINER)
    look = await first_look(endpoint.host, which)
    born = endpoint.processes.add(HELD)
    child = endpoint.processes.add(HELD + 1, parent=HELD)
    found = await newcomers(endpoint.host, which, look, held=[born])
    assert {one.id for one in found} == {born, child}


# --- the record ------------------------------------------------------------------------------------------------------


async def test_a_family_is_read_as_it_was_written(endpoint):
    """After a crash the same ones are meant, and a look-alike is known."""
    which = Choice(pid=MINER)
    look = await first_look(endpoint.host, which)
    await look.record(endpoint.host)
    endpoint.restart()
    again = Family.recorded(endpoint.host)
    assert (again.members, again.spared, again.ancestors) == (look.members, look.spared, look.ancestors)
    endpoint.processes.orphans = {MINER}
    new = endpoint.processes.fork(MINER)
    assert [one.id for one in await newcomers(endpoint.host, which, again)] == [new]


async def test_a_record_of_before_there_were_families_is_read(endpoint):
    """Its targets are meant, and nothing is a look-alike."""
    await endpoint.journal.record({"targets": [{"pid": MINER, "started": 5}]})
    endpoint.restart()
    again = Family.recorded(endpoint.host)
    assert list(again.members) == [ProcessId(pid=MINER, started=5)]
    assert look_alikes(again, await endpoint.processes.list()) == []


def test_nothing_recorded_is_no_family(endpoint):
    """It had not begun."""
    assert Family.recorded(endpoint.host) is None


# --- trees -----------------------------------------------------------------------------------------------------------


def row(pid, parent):
    return Process(
        pid=pid, parent=parent, started=pid, user="u", name="n", executable=None, arguments="", state="S", memory=0
    )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.sets(st.integers(1, 12)), st.sets(st.integers(1, 12)))
def test_below_is_the_closure_however_odd_the_table(parents, roots, without):
    """Circles and missing parents included: a process is below iff a parent of it is and nobody in between is cut."""
    table = [row(pid, parent) for pid, parent in enumerate(parents, start=1)]
    ids = {one.pid: one.id for one in table}
    found = below(table, [ids[pid] for pid in roots if pid in ids], {ids[pid] for pid in without if pid in ids})
    expected, before = {pid for pid in roots if pid in ids}, None
    while before != expected:
        before = set(expected)
        expected |= {one.pid for one in table if one.parent in expected and one.pid not in without}
    assert {one.pid for one in found} == expected
    assert len(found) == len(expected)


def test_what_is_written_down_of_a_process_names_it():
    """Its identity is kept."""
    assert Meant.of(row(7, 1)).id == row(7, 1).id


class Growing(RuleBasedStateMachine):
    """A machine on which processes are born, orphaned and given pids again, while one tree is followed."""

    @initialize()
    def begin(self):
        self.endpoint = FakeEndpoint()
        self.table = self.endpoint.processes
        self.table.add(MINER, executable="/tmp/miner", user="eve")
        self.table.add(OTHER, executable="/bin/good")
        self.which = Choice(pid=MINER)
        self.family = asyncio.run(first_look(self.endpoint.host, self.which))
        self.bad = {self.table.table[MINER].id}

    @rule(data=st.data(), orphaned=st.booleans())
    def fork(self, data, orphaned):
        """Any process forks; of a bad one the child is bad, be it an orphan or not."""
        parent = data.draw(st.sampled_from(sorted(pid for pid in self.table.table if pid != 1)))
        bad = self.table.table[parent].id in self.bad
        if orphaned:
            self.table.orphans.add(parent)
        new = self.table.fork(parent)
        self.table.orphans.clear()
        self.bad |= {new} if bad else set()

    @rule(data=st.data())
    def give_pid_away(self, data):
        """A good process ends, and another gets its pid."""
        good = sorted(pid for pid, one in self.table.table.items() if pid != 1 and one.id not in self.bad)
        self.table.add(data.draw(st.sampled_from(good)), executable="/bin/better")

    @rule()
    def look(self):
        """Look until nobody is new."""
        while asyncio.run(newcomers(self.endpoint.host, self.which, self.family)):
            pass
        assert set(self.family.members) == self.bad

    @invariant()
    def no_good_one_is_meant(self):
        """However late it is looked."""
        assert set(self.family.members) <= self.bad


TestGrowing = Growing.TestCase
