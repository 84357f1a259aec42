"""Do exactly those that are meant stand still, and go on exactly as they were, also when the agent dies on the way?"""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from stanch.actions.suspend_process import (
    MAX_EFFECT_NAME,
    MAX_ROUNDS,
    ResumeProcess,
    Suspended,
    SuspendProcess,
    effect_name,
    resume_process,
    suspend_process,
)
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, Protected, TargetGone, TooLarge
from stanch.core.types import minutes
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

ROOT, CHILD, GRANDCHILD, BYSTANDER = 100, 101, 102, 200
THE_TREE = SuspendProcess(pid=ROOT)
FOR_A_WHILE = SuspendProcess(pid=ROOT, duration=minutes(10))


async def with_tree():
    """A chain of three whose grandchild stands still already, one beside it, and a root that forks when stopped."""
    endpoint = FakeEndpoint()
    endpoint.processes.add(ROOT, arguments="./dropper --beacon")
    endpoint.processes.add(CHILD, parent=ROOT)
    endpoint.processes.add(GRANDCHILD, parent=CHILD, state="T")
    endpoint.processes.stopped.add(endpoint.processes.table[GRANDCHILD].id)
    endpoint.processes.add(BYSTANDER)
    endpoint.processes.forks[ROOT] = 1
    return endpoint


@pytest.fixture
async def endpoint():
    return await with_tree()


async def suspended():
    """The same tree, suspended for a while by another task."""
    endpoint = await with_tree()
    await suspend_process.run(endpoint.host, FOR_A_WHILE)
    endpoint.next_task("tsk_2")
    endpoint.life.restart()
    return endpoint


def standing(endpoint):
    return {one.pid for one in endpoint.processes.stopped}


NEWBORN = BYSTANDER + 1
TREE = {ROOT, CHILD, GRANDCHILD, NEWBORN}


# --- suspend ---------------------------------------------------------------------------------------------------------


async def test_the_tree_stands_still_and_nothing_else(endpoint):
    """What is born meanwhile, too; the named one comes first, and one that stood still before is only counted."""
    result = await suspend_process.run(endpoint.host, THE_TREE)
    assert standing(endpoint) == TREE
    assert [one.pid for one in result.processes] == [ROOT, CHILD, NEWBORN]
    assert (result.already, result.until) == (1, None)
    assert result.stopped[0].arguments == "./dropper --beacon"
    assert (await suspend_process.verify(endpoint.host, THE_TREE, result)).verdict is Verdict.IN_PLACE
    assert endpoint.effects.all() == ()


async def test_each_is_written_down_before_it_is_stopped(endpoint):
    """And so is its end."""
    await suspend_process.run(endpoint.host, FOR_A_WHILE)
    assert endpoint.life.steps[:3] == ["journal.record", "effects.hold", f"processes.stop {ROOT}"]
    assert endpoint.life.steps[-3:] == ["journal.record", "effects.amend", f"processes.stop {NEWBORN}"]


async def test_undo_lets_exactly_these_go_on(endpoint):
    """One that somebody else had stopped stays so."""
    result = await suspend_process.run(endpoint.host, THE_TREE)
    name, back = suspend_process.undo_params(THE_TREE, result)
    assert name == "resume_process"
    endpoint.next_task("tsk_2")
    resumed = await resume_process.run(endpoint.host, back)
    assert standing(endpoint) == {GRANDCHILD}
    assert resumed.processes == result.processes


async def test_where_all_stood_still_there_is_nothing_to_take_back(endpoint):
    """Nothing is changed, and no undo is offered."""
    await suspend_process.run(endpoint.host, THE_TREE)
    endpoint.next_task("tsk_2")
    endpoint.life.restart()
    result = await suspend_process.run(endpoint.host, FOR_A_WHILE)
    assert (result.processes, result.already) == ((), 4)
    assert endpoint.life.steps == ["journal.record"]
    assert suspend_process.undo_params(FOR_A_WHILE, result) is None
    assert (await suspend_process.verify(endpoint.host, FOR_A_WHILE, result)).verdict is Verdict.IN_PLACE


async def test_a_protected_one_is_refused(endpoint):
    """Nobody is stopped."""
    endpoint.processes.protected[CHILD] = "it is Stanch's agent"
    with pytest.raises(Protected, match="Stanch's agent"):
        await suspend_process.run(endpoint.host, THE_TREE)
    assert endpoint.life.steps == []


async def test_of_many_the_protected_are_left_and_told(endpoint):
    """The others are stopped."""
    for pid in (CHILD, BYSTANDER):
        endpoint.processes.table[pid] = endpoint.processes.table[pid].model_copy(update={"executable": "/tmp/m"})
    endpoint.processes.protected[CHILD] = "it is a part of Stanch"
    result = await suspend_process.run(endpoint.host, SuspendProcess(path="/tmp/m"))
    assert [one.pid for one in result.processes] == [BYSTANDER]
    assert [one.pid for one in result.left] == [CHILD]


async def test_a_protected_one_that_turns_up_late_lets_all_go_on(endpoint):
    """Also its end is not written down any more."""
    endpoint.processes.protected[NEWBORN] = "it is a part of Stanch"
    with pytest.raises(Protected):
        await suspend_process.run(endpoint.host, FOR_A_WHILE)
    assert f"processes.stop {ROOT}" in endpoint.life.steps
    assert standing(endpoint) == {GRANDCHILD}
    assert endpoint.effects.all() == ()


async def test_a_tree_that_never_stops_growing_is_let_go(endpoint):
    """Nothing stays half done."""
    endpoint.processes.forks[ROOT] = 10 * MAX_ROUNDS
    with pytest.raises(ActionFailed, match="grew faster"):
        await suspend_process.run(endpoint.host, THE_TREE)
    assert standing(endpoint) == {GRANDCHILD}


async def test_more_than_allowed_is_refused(endpoint):
    """Before any is touched."""
    with pytest.raises(TooLarge):
        await suspend_process.run(endpoint.host, SuspendProcess(pid=ROOT, most=2))
    assert endpoint.life.steps == []


async def test_a_plan_names_those_that_run(endpoint):
    """And changes nothing."""
    plan = await suspend_process.plan(endpoint.host, FOR_A_WHILE)
    assert [(one.what, one.target) for one in plan.steps] == [
        ("Suspend for 10m", "100 ./dropper --beacon"),
        ("Suspend for 10m", "101 p101"),
    ]
    assert plan.changes
    assert endpoint.life.steps == []


async def test_a_plan_says_that_it_would_be_refused(endpoint):
    """With the reason."""
    endpoint.processes.protected[CHILD] = "it is Stanch's agent"
    plan = await suspend_process.plan(endpoint.host, THE_TREE)
    assert not plan.changes
    assert "Stanch's agent" in plan.warnings[0]


async def test_verify_sees_one_that_goes_on(endpoint):
    """Somebody else has sent it SIGCONT."""
    result = await suspend_process.run(endpoint.host, THE_TREE)
    await endpoint.processes.resume(endpoint.processes.table[CHILD].id)
    check = await suspend_process.verify(endpoint.host, THE_TREE, result)
    assert (check.verdict, check.detail) == (Verdict.ABSENT, f"not stopped: [{CHILD}]")


async def test_verify_does_not_miss_one_that_has_ended(endpoint):
    """It cannot do any harm any more."""
    result = await suspend_process.run(endpoint.host, THE_TREE)
    await endpoint.processes.kill(endpoint.processes.table[CHILD].id)
    assert (await suspend_process.verify(endpoint.host, THE_TREE, result)).verdict is Verdict.IN_PLACE


# --- for a while -----------------------------------------------------------------------------------------------------


async def test_a_limited_suspension_is_an_effect_that_lifts_itself(endpoint):
    """By the action that resumes, which needs no more than the task; who stands still is the endpoint's own."""
    result = await suspend_process.run(endpoint.host, FOR_A_WHILE)
    (effect,) = endpoint.effects.all()
    assert (effect.name, effect.lift_action, effect.lift_params) == (
        "suspend:tsk_1",
        "resume_process",
        {"suspended_by": "tsk_1"},
    )
    assert result.until == effect.until
    assert effect.detail == {"processes": 3, "first": ROOT}
    endpoint.next_task("tsk_2")
    resumed = await resume_process.run(endpoint.host, ResumeProcess.model_validate(effect.lift_params))
    assert standing(endpoint) == {GRANDCHILD}
    assert endpoint.effects.all() == ()
    assert resumed.processes == result.processes


async def test_several_suspensions_stand_side_by_side(endpoint):
    """Each has its own name."""
    await suspend_process.run(endpoint.host, FOR_A_WHILE)
    endpoint.next_task("tsk_2")
    await suspend_process.run(endpoint.host, SuspendProcess(pid=BYSTANDER, duration=minutes(5)))
    assert {one.name for one in endpoint.effects.all()} == {"suspend:tsk_1", "suspend:tsk_2"}
    endpoint.next_task("tsk_3")
    await resume_process.run(endpoint.host, ResumeProcess(suspended_by="tsk_2"))
    assert standing(endpoint) == TREE
    assert [one.name for one in endpoint.effects.all()] == ["suspend:tsk_1"]


@pytest.mark.parametrize("task", ["tsk_1", "t" * 56, "t" * 57, "t" * 64])
def test_an_effect_has_a_name_that_fits(task):
    """Whatever the task is called, and no two tasks share one."""
    assert len(effect_name(task)) <= MAX_EFFECT_NAME
    assert effect_name(task) != effect_name(task[:-1] + "x")


async def test_when_all_go_on_the_suspension_is_over():
    """In whatever way they were resumed."""
    endpoint = await suspended()
    await resume_process.run(endpoint.host, ResumeProcess(pid=ROOT))
    assert standing(endpoint) == set()
    assert endpoint.effects.all() == ()


async def test_while_some_stand_still_the_suspension_goes_on():
    """Its end is still written down for the others."""
    endpoint = await suspended()
    await resume_process.run(endpoint.host, ResumeProcess(pid=CHILD))
    assert standing(endpoint) == {ROOT, NEWBORN}
    assert [one.name for one in endpoint.effects.all()] == ["suspend:tsk_1"]


async def test_a_suspension_whose_processes_have_ended_is_lifted_without_complaint():
    """There is nothing to resume, and nothing is in force any more."""
    endpoint = await suspended()
    for pid in sorted(TREE):
        await endpoint.processes.kill(endpoint.processes.table[pid].id)
    order = ResumeProcess(suspended_by="tsk_1")
    result = await resume_process.run(endpoint.host, order)
    assert result.processes == ()
    assert endpoint.effects.all() == ()
    assert (await resume_process.verify(endpoint.host, order, result)).verdict is Verdict.IN_PLACE


# --- resume ----------------------------------------------------------------------------------------------------------


async def test_those_that_stand_still_go_on(endpoint):
    """Others are not touched."""
    result = await resume_process.run(endpoint.host, ResumeProcess(pid=ROOT))
    assert [one.pid for one in result.processes] == [GRANDCHILD]
    assert endpoint.life.steps == ["journal.record", f"processes.resume {GRANDCHILD}"]
    order = ResumeProcess(pid=ROOT)
    assert (await resume_process.verify(endpoint.host, order, result)).verdict is Verdict.IN_PLACE


async def test_a_resumption_is_taken_back_for_the_rest_of_its_time():
    """Exactly those that stood still."""
    endpoint = await suspended()
    endpoint.clock.advance(minutes(4))
    order = ResumeProcess(suspended_by="tsk_1")
    result = await resume_process.run(endpoint.host, order)
    name, back = resume_process.undo_params(order, result)
    assert (name, back.processes, back.duration) == ("suspend_process", result.processes, minutes(6))
    endpoint.next_task("tsk_3")
    await suspend_process.run(endpoint.host, back)
    assert standing(endpoint) == TREE


async def test_a_resumption_of_nobody_is_not_taken_back(endpoint):
    """Nothing was changed."""
    order = ResumeProcess(pid=BYSTANDER)
    result = await resume_process.run(endpoint.host, order)
    assert resume_process.undo_params(order, result) is None


async def test_only_those_of_an_account_go_on():
    """The suspension of the others stays in force."""
    endpoint = await suspended()
    endpoint.processes.table[CHILD] = endpoint.processes.table[CHILD].model_copy(update={"user": "eve"})
    order = ResumeProcess(suspended_by="tsk_1", user="eve")
    result = await resume_process.run(endpoint.host, order)
    assert [one.pid for one in result.processes] == [CHILD]
    assert endpoint.effects.all()
    assert (await resume_process.verify(endpoint.host, order, result)).verdict is Verdict.IN_PLACE


async def test_nobody_is_target_gone(endpoint):
    """A pid that nobody has."""
    with pytest.raises(TargetGone):
        await resume_process.run(endpoint.host, ResumeProcess(pid=999))


@pytest.mark.parametrize(
    "params", [{}, {"suspended_by": "tsk_1", "pid": 7}, {"suspended_by": "tsk_1", "started": 7}, {"user": "eve"}]
)
def test_a_resumption_says_which_in_one_way(params):
    """By the suspension, or by one of the ways of every action on processes."""
    with pytest.raises(ValidationError):
        ResumeProcess(**params)


async def test_a_plan_of_a_resumption_names_those_that_stand_still(endpoint):
    """And changes nothing."""
    plan = await resume_process.plan(endpoint.host, ResumeProcess(pid=ROOT))
    assert [step.target for step in plan.steps] == ["102 p102"]
    assert endpoint.life.steps == []


async def test_verify_sees_one_that_still_stands(endpoint):
    """And a suspension that is still written down."""
    order = ResumeProcess(suspended_by="tsk_1")
    endpoint = await suspended()
    result = await resume_process.run(endpoint.host, order)
    await endpoint.processes.stop(result.processes[0])
    assert (await resume_process.verify(endpoint.host, order, result)).verdict is Verdict.ABSENT
    again = await suspended()
    done = await resume_process.run((await suspended()).host, order)
    for one in done.processes:
        await again.processes.resume(one)
    check = await resume_process.verify(again.host, order, done)
    assert (check.verdict, "written down" in check.detail) == (Verdict.ABSENT, True)


# --- kill -9 ---------------------------------------------------------------------------------------------------------


async def test_killed_anywhere_all_stand_still_and_can_be_let_go_exactly():
    """After `kill -9` at any step: the result names those that ran, and the deadline is that of the first run."""
    for endpoint in await killed_at_every_step(with_tree, suspend_process, FOR_A_WHILE):
        endpoint.clock.advance(timedelta(seconds=30))
        begun = bool(endpoint.effects.held)
        result = await run_again(endpoint, suspend_process, FOR_A_WHILE)
        assert standing(endpoint) == TREE
        assert {one.pid for one in result.processes} == {ROOT, CHILD, NEWBORN}
        assert endpoint.effects.remaining("suspend:tsk_1") == timedelta(minutes=10, seconds=-30 if begun else 0)


async def test_killed_twice_all_stand_still():
    """The second run is cut short, too."""
    for endpoint in await killed_twice(with_tree, suspend_process, THE_TREE, again=run_again):
        result = await run_again(endpoint, suspend_process, THE_TREE)
        assert standing(endpoint) == TREE
        assert isinstance(result, Suspended)
        assert {one.pid for one in result.processes} == {ROOT, CHILD, NEWBORN}


async def test_a_resumption_that_was_killed_is_finished():
    """Everybody goes on, and the result is that of the first run."""
    order = ResumeProcess(suspended_by="tsk_1")
    for endpoint in await killed_at_every_step(suspended, resume_process, order):
        result = await run_again(endpoint, resume_process, order)
        assert standing(endpoint) == {GRANDCHILD}
        assert {one.pid for one in result.processes} == {ROOT, CHILD, NEWBORN}
        assert endpoint.effects.all() == ()
