"""Kill the agent at each step of an action, then let it start again and finish, as the agent's recovery does."""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from stanch.core.action import AnyAction, Params, Verdict
from tests.fakes.host import AgentKilled, FakeEndpoint

Prepare = Callable[[], Awaitable[FakeEndpoint]]
GoOn = Callable[[FakeEndpoint, AnyAction, Params], Awaitable[Any]]


async def run_until_killed(endpoint: FakeEndpoint, action: AnyAction, params: Params) -> bool:
    """Run it; was the agent killed on the way?"""
    try:
        await action.run(endpoint.host, params)
    except AgentKilled:
        return True
    return False


async def steps_of(prepare: Prepare, action: AnyAction, params: Params) -> int:
    """How many steps a run takes that nobody disturbs."""
    endpoint = await prepare()
    assert not await run_until_killed(endpoint, action, params)
    return len(endpoint.life.steps)


async def killed_at_every_step(prepare: Prepare, action: AnyAction, params: Params) -> list[FakeEndpoint]:
    """One endpoint for each step, killed just before that step, its agent started again."""
    found = []
    for step in range(1, await steps_of(prepare, action, params) + 1):
        endpoint = await prepare()
        endpoint.life.restart(ends_at=step)
        assert await run_until_killed(endpoint, action, params)
        endpoint.restart()
        found.append(endpoint)
    assert found
    return found


async def killed_twice(
    prepare: Prepare, action: AnyAction, params: Params, *, again: GoOn | None = None
) -> list[FakeEndpoint]:
    """The same, but each is killed again at each step of going on (`again`: how it does)."""
    found = []
    for first in range(1, await steps_of(prepare, action, params) + 1):
        for second in count(1):
            endpoint = await prepare()
            endpoint.life.restart(ends_at=first)
            assert await run_until_killed(endpoint, action, params)
            endpoint.restart(ends_at=second)
            try:
                await (again or go_on)(endpoint, action, params)
            except AgentKilled:
                endpoint.restart()
                found.append(endpoint)
            else:
                break
    assert found
    return found


async def go_on(endpoint: FakeEndpoint, action: AnyAction, params: Params) -> Any:
    """What the agent does at its start with a task that it had begun: is it there? if not, run it again.

    Its result, or None if the effect was there already.
    """
    check = await action.verify(endpoint.host, params, None)  # type: ignore[misc]  # callers pass actions that have one
    if check.verdict is Verdict.IN_PLACE:
        return None
    return await action.run(endpoint.host, params)


async def run_again(endpoint: FakeEndpoint, action: AnyAction, params: Params) -> Any:
    """The same for an action that completes what is partly in place, guided by its record."""
    await action.verify(endpoint.host, params, None)  # type: ignore[misc]  # callers pass actions that have one
    return await action.run(endpoint.host, params)
