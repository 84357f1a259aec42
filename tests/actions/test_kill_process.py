"""Is exactly the process that was meant ended, with a tree that fights back, and nothing left stopped?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.kill_process import MAX_ROUNDS, Killed, KillProcess, kill_process
from stanch.core.action import Irreversible, Verdict
from stanch.core.errors import ActionFailed, Protected, TargetGone
from stanch.core.host import ProcessId
from tests.fakes.host import AgentKilled, FakeEndpoint, FakeJournal
from tests.fakes.killing import go_on, killed_at_every_step, killed_twice

ROOT, CHILD, GRANDCHILD, BYSTANDER = 100, 101, 102, 200
THE_TREE = KillProcess(pid=ROOT)


async def with_tree():
    """A chain of three, a process beside it, and a root that forks once more when it is stopped."""
    endpoint = FakeEndpoint()
    endpoint.processes.add(ROOT, name="dropper", arguments="./dropper --beacon")
    endpoint.processes.add(CHILD, parent=ROOT)
    endpoint.processes.add(GRANDCHILD, parent=CHILD)
    endpoint.processes.add(BYSTANDER)
    endpoint.processes.forks[ROOT] = 1
    return endpoint


@pytest.fixture
async def endpoint():
    return await with_tree()


def left(endpoint):
    return sorted(endpoint.processes.table)


# --- ending ----------------------------------------------------------------------------------------------------------


async def test_ends_the_tree_and_nothing_else(endpoint):
    """The named process comes first in the result; its newest child is ended, too."""
    result = await kill_process.run(endpoint.host, THE_TREE)
    assert result.processes[0].pid == ROOT
    assert {one.pid for one in result.processes} == {ROOT, CHILD, GRANDCHILD, BYSTANDER + 1}
    assert left(endpoint) == [1, BYSTANDER]
    assert (await kill_process.verify(endpoint.host, THE_TREE, result)).verdict is Verdict.IN_PLACE


async def test_each_is_ended_once(endpoint):
    """No process takes two signals to end."""
    await kill_process.run(endpoint.host, THE_TREE)
    assert len(endpoint.processes.killed) == len(set(endpoint.processes.killed)) == 4


async def test_the_tree_is_stopped_before_the_first_is_ended(endpoint):
    """A parent that still ran would replace the child that was ended."""
    endpoint.processes.respawns = {ROOT, CHILD}
    await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, BYSTANDER]
    steps = [step.split()[0] for step in endpoint.life.steps]
    last_stop = max(number for number, step in enumerate(steps) if step == "processes.stop")
    assert last_stop < steps.index("processes.kill")


async def test_each_is_written_down_before_it_is_touched(endpoint):
    """After a crash the record knows everybody who may have been stopped or ended."""
    await kill_process.run(endpoint.host, THE_TREE)
    steps = endpoint.life.steps
    assert steps[0] == "journal.record"
    newest = steps.index(f"processes.stop {BYSTANDER + 1}")
    assert "journal.record" in steps[steps.index(f"processes.stop {ROOT}") : newest]


async def test_without_the_tree_only_the_one(endpoint):
    """Its children live on, never stopped."""
    result = await kill_process.run(endpoint.host, KillProcess(pid=ROOT, tree=False))
    assert [one.pid for one in result.processes] == [ROOT]
    assert left(endpoint) == [1, CHILD, GRANDCHILD, BYSTANDER]
    assert not [step for step in endpoint.life.steps if "stop" in step]


@given(st.lists(st.integers(0, 9), max_size=10), st.integers(0, 3))
async def test_any_tree_is_ended_whole(parents, forks):
    """Of any forest, exactly the descendants of the named process end, however often each forks meanwhile."""
    endpoint = FakeEndpoint()
    for number, parent in enumerate([-1, *parents]):
        endpoint.processes.add(ROOT + number, parent=1 if parent < 0 or parent >= number else ROOT + parent)
    endpoint.processes.forks = dict.fromkeys(list(endpoint.processes.table)[1:], forks)
    below = {ROOT}
    for one in list(endpoint.processes.table.values())[2:]:
        below |= {one.pid} if one.parent in below else set()
    others = set(endpoint.processes.table) - below
    result = await kill_process.run(endpoint.host, THE_TREE)
    assert set(endpoint.processes.table) == others
    assert below <= {one.pid for one in result.processes}


async def test_a_tree_that_never_stops_growing_is_reported(endpoint):
    """What is known is ended, but it is not called done."""
    endpoint.processes.forks[ROOT] = 10 * MAX_ROUNDS
    with pytest.raises(ActionFailed, match="grew faster"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert ROOT not in endpoint.processes.table
    assert len(endpoint.processes.killed) >= MAX_ROUNDS


# --- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [ROOT, GRANDCHILD])
async def test_a_protected_process_saves_its_tree(endpoint, pid):
    """Nobody is ended, nobody stays stopped, and the reason is given."""
    endpoint.processes.protected[pid] = "it is Stanch's agent"
    with pytest.raises(Protected, match=rf"Process {pid} .*got it is Stanch's agent"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert endpoint.processes.killed == []
    assert endpoint.processes.stopped == set()


async def test_a_protected_process_that_turns_up_late_lets_all_go_on(endpoint):
    """A child that is born while its tree is being stopped is looked at like any other."""
    endpoint.processes.protected[BYSTANDER + 1] = "it is a part of Stanch"
    with pytest.raises(Protected):
        await kill_process.run(endpoint.host, THE_TREE)
    assert [step for step in endpoint.life.steps if "stop" in step]
    assert endpoint.processes.stopped == set()
    assert endpoint.processes.killed == []


async def test_nobody_is_target_gone(endpoint):
    """A pid that nobody has cannot be ended."""
    with pytest.raises(TargetGone, match="There is no process 999"):
        await kill_process.run(endpoint.host, KillProcess(pid=999))


async def test_a_pid_that_was_given_away_is_target_gone(endpoint):
    """The message says who has it now."""
    started = endpoint.processes.table[ROOT].started
    endpoint.processes.add(ROOT, name="innocent")
    with pytest.raises(TargetGone, match="innocent"):
        await kill_process.run(endpoint.host, KillProcess(pid=ROOT, started=started))
    assert endpoint.processes.killed == []


async def test_one_that_does_not_end_fails_it_and_is_named(endpoint):
    """A process inside the kernel is reported, the others are ended."""
    endpoint.processes.undying = {CHILD}
    with pytest.raises(ActionFailed, match=f"pids {CHILD}"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, CHILD, BYSTANDER]


class FullDisk(FakeJournal):
    """Fails at the n-th record."""

    def __init__(self, nth, **known):
        super().__init__(**known)
        self.nth = nth

    async def record(self, record):
        if len(self.records) + 1 == self.nth:
            raise OSError(28, "No space left on device")
        await super().record(record)


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_failure_in_the_middle_leaves_nobody_stopped(endpoint, nth):
    """Whatever fails before the first is ended, the tree goes on."""
    endpoint.journal = FullDisk(nth, life=endpoint.life)
    with pytest.raises(OSError, match="No space"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert endpoint.processes.killed == []
    assert endpoint.processes.stopped == set()


# --- plan and verify -------------------------------------------------------------------------------------------------


async def test_a_plan_names_the_tree_and_touches_nothing(endpoint):
    """Each process with its command line, the named one first."""
    plan = await kill_process.plan(endpoint.host, THE_TREE)
    assert plan.changes
    assert [step.target for step in plan.steps] == ["100 ./dropper --beacon", "101 p101", "102 p102"]
    assert endpoint.life.steps == []


async def test_a_plan_says_that_it_would_be_refused(endpoint):
    """A protected process in the tree is a warning, and nothing would change."""
    endpoint.processes.protected[CHILD] = "it is Stanch's agent"
    plan = await kill_process.plan(endpoint.host, THE_TREE)
    assert (plan.changes, plan.warnings) == (False, ("Will be refused: it is Stanch's agent",))


async def test_a_plan_without_the_tree_names_one(endpoint):
    """As the order would."""
    assert len((await kill_process.plan(endpoint.host, KillProcess(pid=ROOT, tree=False))).steps) == 1


async def test_verify_sees_one_that_lives(endpoint):
    """A result that says more than is true does not pass."""
    result = Killed(processes=(endpoint.processes.table[CHILD].id,))
    check = await kill_process.verify(endpoint.host, THE_TREE, result)
    assert (check.verdict, check.detail) == (Verdict.ABSENT, f"still running: [{CHILD}]")


async def test_verify_is_not_deceived_by_the_pid(endpoint):
    """Another process with the same pid is not the one that was to end."""
    result = Killed(processes=(ProcessId(pid=CHILD, started=1),))
    assert (await kill_process.verify(endpoint.host, THE_TREE, result)).verdict is Verdict.IN_PLACE


def test_it_cannot_be_undone():
    """And says why."""
    assert isinstance(kill_process.undo, Irreversible)


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_killed_anywhere_the_tree_ends_and_is_reported(kill):
    """After `kill -9` at any step: all of the tree is ended, each process once, and a result names them all."""
    for endpoint in await kill(with_tree, kill_process, THE_TREE):
        result = await go_on(endpoint, kill_process, THE_TREE)
        assert left(endpoint) == [1, BYSTANDER]
        assert len(endpoint.processes.killed) == len(set(endpoint.processes.killed))
        assert endpoint.processes.stopped == set()
        if result is not None:
            assert {one.pid for one in result.processes} == {ROOT, CHILD, GRANDCHILD, BYSTANDER + 1}


async def test_killed_anywhere_a_later_process_with_the_pid_lives():
    """If the pid was given to another while the agent was dead, that one is not touched."""
    for endpoint in await killed_at_every_step(with_tree, kill_process, KillProcess(pid=ROOT, started=1002)):
        endpoint.processes.stopped.clear()
        innocent = endpoint.processes.add(ROOT, name="innocent")
        try:
            await go_on(endpoint, kill_process, KillProcess(pid=ROOT, started=1002))
        except TargetGone:
            assert endpoint.processes.killed == []
        assert innocent not in endpoint.processes.killed
        assert endpoint.processes.running(innocent)


async def test_the_fake_agent_dies_where_it_is_told(endpoint):
    """The tests above mean something: a dead agent changes nothing any more, clean-up included."""
    endpoint.life.ends_at = 3
    with pytest.raises(AgentKilled):
        await kill_process.run(endpoint.host, THE_TREE)
    assert len(endpoint.life.steps) == 2
    assert len(endpoint.processes.stopped) == 1
