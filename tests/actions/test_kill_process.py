"""Is exactly the process that was meant ended, with a tree that fights back, and nothing left stopped?"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.kill_process import MAX_RESPAWNS, MAX_ROUNDS, MAX_TOLD_ARGUMENTS, Killed, KillProcess, kill_process
from stanch.agent.tasks import MAX_RECORD_BYTES
from stanch.core.action import Irreversible, Verdict
from stanch.core.errors import ActionFailed, Protected, TargetGone, TooLarge
from stanch.core.processes import ProcessId, Signal
from stanch.core.types import EndpointPath
from tests.fakes.host import AgentKilled, FakeEndpoint, FakeJournal
from tests.fakes.killing import go_on, killed_at_every_step, killed_twice
from tests.fakes.processes import FakePen

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


async def test_the_tree_is_held_before_the_first_is_ended(endpoint):
    """A parent that still ran would replace the child that was ended."""
    endpoint.processes.respawns = {ROOT, CHILD}
    await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, BYSTANDER]
    steps = [step.split()[0] for step in endpoint.life.steps]
    last_catch = max(number for number, step in enumerate(steps) if step == "pen.catch")
    assert last_catch < steps.index("processes.kill")


async def test_each_is_written_down_before_it_is_touched(endpoint):
    """After a crash the record knows everybody who may have been stopped or ended."""
    await kill_process.run(endpoint.host, THE_TREE)
    steps = endpoint.life.steps
    assert steps[0] == "journal.record"
    newest = steps.index(f"pen.catch {BYSTANDER + 1}")
    assert "journal.record" in steps[steps.index(f"pen.catch {ROOT}") : newest]


async def test_without_the_tree_only_the_one(endpoint):
    """Its children live on, never stopped."""
    result = await kill_process.run(endpoint.host, KillProcess(pid=ROOT, tree=False))
    assert [one.pid for one in result.processes] == [ROOT]
    assert left(endpoint) == [1, CHILD, GRANDCHILD, BYSTANDER]
    assert not [step for step in endpoint.life.steps if "catch" in step]


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


async def test_what_is_born_in_the_pen_ends_with_it(endpoint):
    """A child that is caught with its parent is written down, ended and told."""
    endpoint.processes.forks_inside[CHILD] = 2
    result = await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, BYSTANDER]
    assert len(result.processes) == 6


async def test_an_orphan_that_is_made_meanwhile_is_ended(endpoint):
    """A double fork that leaves the tree just before it is held is found by its looks."""
    endpoint.processes.orphans = {ROOT}
    await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, BYSTANDER]


async def test_the_result_says_what_they_ran(endpoint):
    """Name, program, and the beginning of the command line."""
    endpoint.processes.add(ROOT, name="dropper", executable="/tmp/d (deleted)", arguments="d" * 4000)
    result = await kill_process.run(endpoint.host, THE_TREE)
    first = result.ended[0]
    assert (first.pid, first.name, first.executable) == (ROOT, "dropper", "/tmp/d (deleted)")
    assert len(first.arguments) == MAX_TOLD_ARGUMENTS
    assert kill_process.parse_result(result.model_dump(mode="json")) == result


async def test_all_that_run_a_program_are_ended(endpoint):
    """Those that must not be touched are left and told, the others are ended."""
    for pid in (CHILD, BYSTANDER, 1):
        endpoint.processes.table[pid] = endpoint.processes.table[pid].model_copy(update={"executable": "/tmp/m"})
    endpoint.processes.protected = {1: "it is init"}
    order = KillProcess(path="/tmp/m", tree=False)
    result = await kill_process.run(endpoint.host, order)
    assert left(endpoint) == [1, ROOT, GRANDCHILD]
    assert [(one.pid, one.why) for one in result.left] == [(1, "it is init")]
    assert (await kill_process.verify(endpoint.host, order, result)).verdict is Verdict.IN_PLACE


async def test_what_begins_to_fit_while_others_are_ended_is_ended(endpoint):
    """Also without the tree, and if it is started by somebody else."""
    for pid in (CHILD, BYSTANDER):
        endpoint.processes.table[pid] = endpoint.processes.table[pid].model_copy(update={"executable": "/tmp/m"})
    endpoint.processes.respawns, endpoint.processes.times = {ROOT}, {ROOT: 1}
    result = await kill_process.run(endpoint.host, KillProcess(path="/tmp/m", tree=False))
    assert left(endpoint) == [1, ROOT, GRANDCHILD]
    assert len(result.processes) == 3


async def test_what_is_gone_when_it_was_seen_is_caught_the_moment_it_is(endpoint):
    """A program that starts itself anew and ends, again and again, is ended by its path."""
    endpoint.processes.add(CHILD, executable="/tmp/m", arguments="m")
    endpoint.processes.hopping, endpoint.processes.orphans = {CHILD}, {CHILD}
    await kill_process.run(endpoint.host, KillProcess(path="/tmp/m"))
    assert "/tmp/m" not in {one.executable for one in endpoint.processes.table.values()}


# --- signals ---------------------------------------------------------------------------------------------------------


async def test_after_sigterm_only_the_deaf_are_killed(endpoint):
    """Those that heed it end by themselves."""
    endpoint.processes.forks.clear()
    endpoint.processes.deaf = {CHILD}
    result = await kill_process.run(endpoint.host, KillProcess(pid=ROOT, signal=Signal.TERM))
    assert left(endpoint) == [1, BYSTANDER]
    assert [one.pid for one in endpoint.processes.killed] == [CHILD]
    assert [one.pid for one in result.processes] == [ROOT, CHILD, GRANDCHILD]


@pytest.mark.parametrize("signal", [one for one in Signal if not one.ends])
async def test_another_signal_is_only_sent(endpoint, signal):
    """To the whole tree, and nobody is expected to end."""
    order = KillProcess(pid=ROOT, signal=signal)
    result = await kill_process.run(endpoint.host, order)
    assert endpoint.processes.sent == [(one, signal) for one in result.processes]
    assert [one.pid for one in result.processes] == [ROOT, CHILD, GRANDCHILD]
    assert (result.ended, endpoint.processes.killed, endpoint.processes.frozen) == ((), [], set())
    assert (await kill_process.verify(endpoint.host, order, result)).verdict is Verdict.IN_PLACE


async def test_a_signal_is_on_its_way_again_only_if_it_was_cut_short():
    """After `kill -9` everybody has got it, and nobody twice if the run was complete."""
    order = KillProcess(pid=ROOT, signal=Signal.HUP)
    for endpoint in await killed_at_every_step(with_tree, kill_process, order):
        await kill_process.verify(endpoint.host, order, None)
        await kill_process.run(endpoint.host, order)
        assert {one.pid for one, _ in endpoint.processes.sent} == {ROOT, CHILD, GRANDCHILD}
        earlier = len(endpoint.processes.sent)
        endpoint.restart()
        assert (await kill_process.verify(endpoint.host, order, None)).verdict is Verdict.IN_PLACE
        await kill_process.run(endpoint.host, order)
        assert len(endpoint.processes.sent) == earlier


def test_a_restarter_is_ended_only_where_something_is():
    """`respawner` with a signal that ends nobody is a mistake."""
    with pytest.raises(ValueError, match="respawner"):
        KillProcess(pid=1, signal=Signal.HUP, respawner=True)


@pytest.mark.parametrize("field", ["grace", "watch"])
def test_times_are_bounded(field):
    """An order comes back in a time that people wait for."""
    with pytest.raises(ValueError, match="at most 1m"):
        KillProcess.model_validate({"pid": 1, field: "61s"})


# --- staying dead ----------------------------------------------------------------------------------------------------


def with_restarter(endpoint, **fields):
    """A process outside of the tree that starts the root again."""
    restarter = endpoint.processes.add(77, name="watchdog", unit="evil.service", **fields)
    endpoint.processes.forks.clear()
    endpoint.processes.table[ROOT] = endpoint.processes.table[ROOT].model_copy(update={"parent": 77})
    endpoint.processes.respawns = {77}
    return restarter


@pytest.mark.parametrize("slow", [False, True])
async def test_what_is_started_again_is_ended_again(endpoint, slow):
    """And it is told by whom."""
    with_restarter(endpoint)
    endpoint.processes.times[77] = 2
    endpoint.processes.slow = {77} if slow else set()
    result = await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, 77, BYSTANDER]
    assert (result.respawned, [one.words for one in result.respawned_by]) == (2, ["PID 77 (evil.service)"])
    assert not result.respawned_by[0].ended
    assert len(result.processes) == 5


async def test_what_does_not_stay_dead_is_an_error_that_says_who_restarts_it(endpoint):
    """After so many times, with what to do."""
    with_restarter(endpoint)
    with pytest.raises(ActionFailed, match=r"restarted by PID 77 \(evil.service\).*disable-autorun"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert len(endpoint.processes.killed) == 3 + MAX_RESPAWNS
    assert endpoint.processes.frozen == set()


async def test_the_one_that_restarts_it_is_ended_if_that_was_ordered(endpoint):
    """It belongs to what was ended, and the result marks it."""
    with_restarter(endpoint)
    result = await kill_process.run(endpoint.host, KillProcess(pid=ROOT, respawner=True))
    assert left(endpoint) == [1, BYSTANDER]
    assert [(one.pid, one.ended) for one in result.respawned_by] == [(77, True)]
    assert 77 in {one.pid for one in result.processes}


@pytest.mark.parametrize("case", ["protected", "systemd", "containers", "above Stanch"])
async def test_one_that_must_not_be_touched_is_not_ended_for_restarting(endpoint, case):
    """Init, systemd, Stanch, and whoever Stanch stands below: it is told what they keep up."""
    with_restarter(endpoint)
    if case == "systemd":
        program = {"executable": EndpointPath("/usr/lib/systemd/systemd"), "name": "anything"}
        endpoint.processes.table[77] = endpoint.processes.table[77].model_copy(update=program)
    elif case == "containers":
        program = {"executable": EndpointPath("/usr/bin/containerd-shim-runc-v2")}
        endpoint.processes.table[77] = endpoint.processes.table[77].model_copy(update=program)
    elif case == "protected":
        endpoint.processes.protected[77] = "it is a part of Stanch"
    else:
        endpoint.processes.add(78, parent=77)
        endpoint.processes.protected[78] = "it is Stanch's agent"
    with pytest.raises(ActionFailed, match="PID 77"):
        await kill_process.run(endpoint.host, KillProcess(pid=ROOT, respawner=True))
    assert {77} <= set(endpoint.processes.table)
    assert 77 not in {one.pid for one in endpoint.processes.killed}


@pytest.mark.parametrize(("name", "program"), [("systemd", "/tmp/x"), ("init", "/home/eve/init"), ("systemd", None)])
async def test_who_only_calls_itself_init_is_ended_for_restarting(endpoint, name, program):
    """A name is free for the taking, and a program of that name in one's own folder, too."""
    with_restarter(endpoint)
    looks = {"name": name, "executable": None if program is None else EndpointPath(program)}
    endpoint.processes.table[77] = endpoint.processes.table[77].model_copy(update=looks)
    await kill_process.run(endpoint.host, KillProcess(pid=ROOT, respawner=True))
    assert 77 in {one.pid for one in endpoint.processes.killed}


async def test_who_was_taken_out_of_the_pen_is_ended_all_the_same(endpoint, monkeypatch):
    """Who is root can move a process out of a control group between our look and our stroke."""

    async def miss(pen):
        members = pen._processes.pens[pen._task]
        members.remove(next(one for one in members if one.pid == CHILD))
        await kill_all(pen)

    kill_all = FakePen.kill
    monkeypatch.setattr(FakePen, "kill", miss)
    await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, BYSTANDER]


async def test_a_tree_with_long_command_lines_is_ended(endpoint):
    """A record has its limit, which must not protect whoever calls himself by thousands of odd characters."""
    for pid in range(1000, 1600):
        endpoint.processes.add(pid, parent=ROOT, arguments="\u0416" * 4000)
    await kill_process.run(endpoint.host, THE_TREE)
    assert left(endpoint) == [1, BYSTANDER]
    assert max(len(json.dumps(one)) for one in endpoint.journal.records) < MAX_RECORD_BYTES
    recorded = {one["pid"] for one in endpoint.journal.records[-1]["targets"]}
    assert recorded >= {ROOT, CHILD, *range(1000, 1600)}


async def test_what_init_starts_again_is_named_by_its_own_unit(endpoint):
    """Init is nobody in particular; the unit can be disabled."""
    endpoint.processes.forks.clear()
    endpoint.processes.table[ROOT] = endpoint.processes.table[ROOT].model_copy(update={"unit": "miner.service"})
    endpoint.processes.respawns, endpoint.processes.times = {1}, {1: 1}
    result = await kill_process.run(endpoint.host, THE_TREE)
    assert [one.words for one in result.respawned_by] == ["PID 1 (miner.service)"]


async def test_what_fits_and_appears_later_is_ended(endpoint):
    """Of a path, whoever runs it while it is watched is meant, whoever started it."""
    endpoint.processes.later = [{"pid": 300, "parent": 77, "executable": "/bin/p100"}]
    result = await kill_process.run(endpoint.host, KillProcess(path="/bin/p100"))
    assert 300 not in endpoint.processes.table
    assert result.respawned == 1


async def test_others_that_are_started_meanwhile_are_left_alone(endpoint):
    """Life goes on beside it."""
    endpoint.processes.later = [{"pid": 300}, {"pid": 301, "parent": 300}]
    result = await kill_process.run(endpoint.host, THE_TREE)
    assert {300, 301} <= set(endpoint.processes.table)
    assert result.respawned == 0


async def test_without_a_watch_nobody_is_waited_for(endpoint):
    """`watch` none comes back at once."""
    endpoint.processes.later = [{"pid": 300, "executable": "/bin/p100", "arguments": "p100"}]
    await kill_process.run(endpoint.host, KillProcess(path="/bin/p100", watch=None))
    assert endpoint.processes.later


# --- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [ROOT, GRANDCHILD])
async def test_a_protected_process_saves_its_tree(endpoint, pid):
    """Nobody is ended, nobody stays stopped, and the reason is given."""
    endpoint.processes.protected[pid] = "it is Stanch's agent"
    with pytest.raises(Protected, match=rf"Process {pid} .*got it is Stanch's agent"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert endpoint.processes.killed == []
    assert endpoint.processes.frozen == set()


async def test_a_protected_process_that_turns_up_late_lets_all_go_on(endpoint):
    """A child that is born while its tree is being stopped is looked at like any other."""
    endpoint.processes.protected[BYSTANDER + 1] = "it is a part of Stanch"
    with pytest.raises(Protected):
        await kill_process.run(endpoint.host, THE_TREE)
    assert [step for step in endpoint.life.steps if "catch" in step]
    assert endpoint.processes.frozen == set()
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


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_failure_in_the_middle_leaves_nobody_stopped(endpoint, nth):
    """Whatever fails before the first is ended, the tree goes on."""
    endpoint.journal = FullDisk(nth, life=endpoint.life)
    with pytest.raises(OSError, match="No space"):
        await kill_process.run(endpoint.host, THE_TREE)
    assert endpoint.processes.killed == []
    assert endpoint.processes.frozen == set()


async def test_more_than_allowed_is_refused_and_nobody_touched(endpoint):
    """Both numbers are in the error."""
    with pytest.raises(TooLarge, match=r"got 3, expected at most 2"):
        await kill_process.run(endpoint.host, KillProcess(pid=ROOT, most=2))
    assert endpoint.life.steps == []


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


async def test_a_plan_says_who_is_left_alone(endpoint):
    """Of those that fit."""
    for pid in (CHILD, BYSTANDER):
        endpoint.processes.table[pid] = endpoint.processes.table[pid].model_copy(update={"executable": "/tmp/m"})
    endpoint.processes.protected[CHILD] = "it is a part of Stanch"
    plan = await kill_process.plan(endpoint.host, KillProcess(path="/tmp/m"))
    assert [step.target for step in plan.steps] == ["200 p200"]
    assert (plan.changes, plan.warnings) == (True, ("Left alone: 101 (p101): it is a part of Stanch",))


async def test_a_plan_names_the_signal(endpoint):
    """It does not say that anybody is killed."""
    plan = await kill_process.plan(endpoint.host, KillProcess(pid=BYSTANDER, signal=Signal.USR1))
    assert [step.what for step in plan.steps] == ["Send SIGUSR1 to"]


async def test_verify_sees_that_something_fits_again(endpoint):
    """Of a path, a new process that runs it is as bad as the old one."""
    order = KillProcess(path="/bin/p200", watch=None)
    result = await kill_process.run(endpoint.host, order)
    endpoint.processes.add(300, executable="/bin/p200")
    check = await kill_process.verify(endpoint.host, order, result)
    assert (check.verdict, check.detail) == (Verdict.ABSENT, "still running: [300]")


async def test_a_result_of_the_first_version_is_read(endpoint):
    """Orders of before are still shown."""
    old = {"processes": [{"pid": CHILD, "started": 5}]}
    assert kill_process.parse_result(old).ended == ()


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
        assert endpoint.processes.frozen == set()
        if result is not None:
            assert {one.pid for one in result.processes} == {ROOT, CHILD, GRANDCHILD, BYSTANDER + 1}


async def test_killed_anywhere_a_later_process_with_the_pid_lives():
    """If the pid was given to another while the agent was dead, that one is not touched."""
    for endpoint in await killed_at_every_step(with_tree, kill_process, KillProcess(pid=ROOT, started=1002)):
        endpoint.processes.pens.clear()
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
    assert len(endpoint.processes.frozen) == 1
