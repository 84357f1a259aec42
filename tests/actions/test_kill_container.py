"""Is exactly the container that was meant ended, once, and is it told who starts it anew?"""

import pytest

from stanch.actions.kill_container import ContainerKilled, KillContainer, kill_container
from stanch.core.action import Irreversible, Verdict
from stanch.core.containers import ContainerState
from stanch.core.errors import ActionFailed, Conflict, Protected, TargetGone
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

SHOP = KillContainer(container="shop")
REASON = "docker, whose restart policy for it is always"


def with_containers():
    endpoint = FakeEndpoint()
    endpoint.containers.add("shop", image="registry.example/shop:3")
    endpoint.containers.add("blog")
    return endpoint


@pytest.fixture
def endpoint():
    return with_containers()


@pytest.fixture
def shop(endpoint):
    return next(iter(endpoint.containers.table.values()))


def running(endpoint):
    return [one.name for one in endpoint.containers.table.values() if one.state.alive]


async def test_the_one_that_was_meant_ends(endpoint, shop):
    """The one beside it runs on; the result shows it as it was."""
    result = await kill_container.run(endpoint.host, SHOP)
    assert result == ContainerKilled(changed=True, container=shop)
    assert running(endpoint) == ["blog"]
    assert (await kill_container.verify(endpoint.host, SHOP, result)).verdict is Verdict.IN_PLACE


@pytest.mark.parametrize("state", [ContainerState.PAUSED, ContainerState.RUNNING])
async def test_a_paused_one_ends_too(endpoint, shop, state):
    """Nobody has to let it go on first."""
    endpoint.containers.table[shop.id] = shop.model_copy(update={"state": state})
    assert (await kill_container.run(endpoint.host, SHOP)).changed
    assert running(endpoint) == ["blog"]


async def test_one_that_its_runtime_removes_has_ended(endpoint, shop):
    """It is no longer there, which is what was wanted."""
    endpoint.containers.removed = {shop.id}
    result = await kill_container.run(endpoint.host, SHOP)
    assert (await kill_container.verify(endpoint.host, SHOP, result)).verdict is Verdict.IN_PLACE


async def test_one_that_does_not_run_is_left(endpoint, shop):
    """Nothing was changed, and that is said."""
    await endpoint.containers.kill(shop)
    result = await kill_container.run(endpoint.host, SHOP)
    assert not result.changed
    assert endpoint.containers.killed == [shop.id]


async def test_it_is_told_who_starts_it_anew(endpoint, shop):
    """In words, and the new one if it was seen; ended it was nevertheless."""
    endpoint.containers.restarting = {shop.id: REASON}
    result = await kill_container.run(endpoint.host, SHOP)
    assert result.restarts == REASON
    assert result.started_anew == endpoint.containers.table[shop.id]
    assert not result.started_anew.is_same_run(shop)
    check = await kill_container.verify(endpoint.host, SHOP, result)
    assert (check.verdict, "started anew" in check.detail) == (Verdict.IN_PLACE, True)


async def test_one_that_is_started_anew_later_was_ended(endpoint, shop):
    """Nobody watched any more when it was: its control group tells that it is another run."""
    endpoint.containers.restarting = {shop.id: REASON}
    result = (await kill_container.run(endpoint.host, SHOP)).model_copy(update={"started_anew": None})
    assert (await kill_container.verify(endpoint.host, SHOP, result)).verdict is Verdict.IN_PLACE


async def test_one_whose_control_group_nobody_sees_may_be_started_anew(endpoint, shop):
    """What was seen after its end is not taken for what was to end."""
    unseen = shop.model_copy(update={"cgroup_number": 0})
    endpoint.containers.table[shop.id] = unseen
    anew = ContainerKilled(changed=True, container=unseen, started_anew=unseen)
    assert (await kill_container.verify(endpoint.host, SHOP, anew)).verdict is Verdict.IN_PLACE


async def test_a_plan_says_what_will_come_of_it(endpoint, shop):
    """Who starts it anew, and what is lost; nothing is touched."""
    endpoint.containers.restarting, endpoint.containers.removed = {shop.id: REASON}, {shop.id}
    plan = await kill_container.plan(endpoint.host, SHOP)
    assert plan.changes
    assert [step.target for step in plan.steps] == ["shop (docker 73686f700000), registry.example/shop:3"]
    assert plan.warnings == (
        f"May be started anew by {REASON}",
        "its runtime removes it, with its files: pause it and get them first",
    )
    assert endpoint.life.steps == []


async def test_stanch_own_container_is_not_ended(endpoint, shop):
    """The reason is given, by the plan too."""
    endpoint.containers.protected[shop.id] = "Stanch's agent runs in it"
    with pytest.raises(Protected, match="Stanch's agent runs in it"):
        await kill_container.run(endpoint.host, SHOP)
    assert not (await kill_container.plan(endpoint.host, SHOP)).changes
    assert running(endpoint) == ["shop", "blog"]


async def test_none_and_several(endpoint):
    """A name that nobody has, and one that two have, end nobody."""
    with pytest.raises(TargetGone):
        await kill_container.run(endpoint.host, KillContainer(container="shops"))
    endpoint.containers.add("shop", id="f" * 64)
    with pytest.raises(Conflict):
        await kill_container.run(endpoint.host, SHOP)
    assert endpoint.containers.killed == []


async def test_what_does_not_end_fails_it(endpoint, monkeypatch):
    """A container with a process inside the kernel is not called ended."""

    async def kill(_one):
        raise ActionFailed("Some processes of the container did not end", got="pids 7")

    monkeypatch.setattr(endpoint.containers, "kill", kill)
    with pytest.raises(ActionFailed, match="pids 7"):
        await kill_container.run(endpoint.host, SHOP)


async def test_verify_sees_one_that_runs(endpoint, shop):
    """A result that says more than is true does not pass."""
    check = await kill_container.verify(endpoint.host, SHOP, ContainerKilled(changed=True, container=shop))
    assert (check.verdict, check.detail) == (Verdict.ABSENT, "shop (docker 73686f700000) runs, with 2 processes")


def test_it_cannot_be_undone():
    """And says why."""
    assert isinstance(kill_container.undo, Irreversible)


@pytest.mark.parametrize("restarting", [False, True])
@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_killed_anywhere_it_ends_once(kill, restarting):
    """After `kill -9` at any step: ended once, never the one that was started anew, and the result tells the same."""

    async def prepare():
        endpoint = with_containers()
        shop = next(iter(endpoint.containers.table))
        endpoint.containers.restarting = {shop: REASON} if restarting else {}
        return endpoint

    for endpoint in await kill(prepare, kill_container, SHOP):
        result = await run_again(endpoint, kill_container, SHOP)
        assert (result.changed, result.restarts) == (True, REASON if restarting else "")
        assert (result.started_anew is not None) is restarting
        assert len(endpoint.containers.killed) == 1
