"""Is exactly the container that was meant held still and let go, and taken back only what was done?"""

import pytest

from stanch.actions.pause_container import PauseContainer, ResumeContainer, pause_container, resume_container
from stanch.core.action import Verdict
from stanch.core.containers import ContainerState
from stanch.core.errors import Conflict, Protected, TargetGone, Unsupported
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

PAUSE, RESUME = PauseContainer(container="shop"), ResumeContainer(container="shop")
BOTH = pytest.mark.parametrize(
    ("action", "params", "before", "after"),
    [
        (pause_container, PAUSE, ContainerState.RUNNING, ContainerState.PAUSED),
        (resume_container, RESUME, ContainerState.PAUSED, ContainerState.RUNNING),
    ],
    ids=["pause", "resume"],
)


def with_containers(state):
    endpoint = FakeEndpoint()
    endpoint.containers.add("shop", state=state)
    endpoint.containers.add("blog")
    return endpoint


def state_of(endpoint, name="shop"):
    return next(one.state for one in endpoint.containers.table.values() if one.name == name)


@BOTH
async def test_it_is_done_to_the_one_that_was_meant(action, params, before, after):
    """The result shows the container as it is then; the one beside it is not touched."""
    endpoint = with_containers(before)
    result = await action.run(endpoint.host, params)
    assert (result.changed, result.container.state, state_of(endpoint)) == (True, after, after)
    assert state_of(endpoint, "blog") is ContainerState.RUNNING
    assert (await action.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE


@BOTH
async def test_what_is_so_already_is_not_changed(action, params, before, after):
    """Nothing is done, and so nothing would be taken back."""
    endpoint = with_containers(after)
    result = await action.run(endpoint.host, params)
    assert not result.changed
    assert endpoint.life.steps == ["journal.record"]
    assert action.undo_params(params, result) is None


@BOTH
async def test_the_undo_is_by_id(action, params, before, after):
    """Another container may have taken the name meanwhile."""
    endpoint = with_containers(before)
    result = await action.run(endpoint.host, params)
    name, back = action.undo_params(params, result)
    assert (name, back.container) == (
        "resume_container" if action is pause_container else "pause_container",
        result.container.id,
    )


@BOTH
async def test_one_that_does_not_run_is_a_conflict(action, params, before, after):
    """The message says how it is, and nothing is written down."""
    endpoint = with_containers("stopped")
    with pytest.raises(Conflict, match="is stopped"):
        await action.run(endpoint.host, params)
    assert endpoint.life.steps == []


@BOTH
async def test_a_name_of_two_is_a_conflict(action, params, before, after):
    """Nobody is chosen by chance."""
    endpoint = with_containers(before)
    endpoint.containers.add("shop", id="f" * 64, runtime="podman", state=before)
    with pytest.raises(Conflict, match="Several containers"):
        await action.run(endpoint.host, params)
    assert endpoint.life.steps == []


@BOTH
async def test_nobody_is_target_gone(action, params, before, after):
    """A name that no container has; and a machine without any is unsupported."""
    endpoint = with_containers(before)
    with pytest.raises(TargetGone):
        await action.run(endpoint.host, params.model_copy(update={"container": "shops"}))
    endpoint.containers.table.clear()
    with pytest.raises(Unsupported):
        await action.run(endpoint.host, params)


async def test_stanch_own_container_is_not_paused():
    """The reason is given, before anything is done."""
    endpoint = with_containers("running")
    endpoint.containers.protected[(await endpoint.containers.find("shop")).id] = "Stanch's agent runs in it"
    with pytest.raises(Protected, match="Stanch's agent runs in it"):
        await pause_container.run(endpoint.host, PAUSE)
    plan = await pause_container.plan(endpoint.host, PAUSE)
    assert (plan.changes, plan.warnings) == (False, ("Will be refused: Stanch's agent runs in it",))
    assert endpoint.life.steps == []


async def test_a_plan_says_that_a_user_can_let_their_own_go_on():
    """The kernel lets whoever has the control group write to it."""
    endpoint = FakeEndpoint()
    endpoint.containers.add("shop", user=1000)
    plan = await pause_container.plan(endpoint.host, PauseContainer(container="shop"))
    assert plan.changes
    assert "User 1000 can let it go on" in plan.warnings[0]


@BOTH
async def test_a_plan_names_it_and_touches_nothing(action, params, before, after):
    """What would be done, or that there is nothing to do."""
    endpoint = with_containers(before)
    plan = await action.plan(endpoint.host, params)
    assert plan.changes
    assert [step.target for step in plan.steps] == ["shop (docker 73686f700000)"]
    assert endpoint.life.steps == []
    plan = await action.plan(with_containers(after).host, params)
    assert (plan.changes, plan.steps) == (False, ())


@BOTH
async def test_verify_sees_one_that_is_not_so(action, params, before, after):
    """A result that says more than is true does not pass; nor does a container that has gone."""
    endpoint = with_containers(before)
    result = await action.run(endpoint.host, params)
    one = result.container
    endpoint.containers.table[one.id] = one.model_copy(update={"state": before})
    assert (await action.verify(endpoint.host, params, result)).verdict is Verdict.ABSENT
    del endpoint.containers.table[one.id]
    assert (await action.verify(endpoint.host, params, result)).verdict is Verdict.ABSENT


@BOTH
@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_killed_anywhere_it_is_done_and_told_truly(action, params, before, after, kill):
    """After `kill -9` at any step: it is so, and the result still says that this order did it."""

    async def prepare():
        return with_containers(before)

    for endpoint in await kill(prepare, action, params):
        result = await run_again(endpoint, action, params)
        assert (result.changed, state_of(endpoint)) == (True, after)
