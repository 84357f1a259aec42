"""Hold a container still, and let it go on."""

from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Check, Concurrency, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.containers import Container, ContainerState, chosen
from stanch.core.errors import Conflict, Protected
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.types import minutes

ContainerName = Annotated[str, Field(min_length=1, max_length=300)]


class PauseContainer(Params):
    """Which container."""

    container: ContainerName
    """Its id, 12 characters or more of its beginning, or its name."""


class ContainerPaused(Result):
    """The container that is held still."""

    changed: bool
    """False if it was paused already."""

    container: Container
    """The container, as it is now."""


class ResumeContainer(Params):
    """Which container."""

    container: ContainerName
    """Its id, 12 characters or more of its beginning, or its name."""


class ContainerResumed(Result):
    """The container that goes on."""

    changed: bool
    """False if it was not paused."""

    container: Container
    """The container, as it is now."""


class _Begun(Model):
    """What is written down before anything is changed."""

    changed: bool
    container: Container


async def _target(host: Host, name: str) -> Container:
    """The container, if it runs, paused or not; Conflict if it does not."""
    one = await chosen(host.containers, name)
    if not one.state.alive:
        raise Conflict("The container does not run", got=f"{one} is {one.state}", expected="one that runs")
    return one


async def _begin(host: Host, name: str, wanted: ContainerState) -> _Begun:
    """What an earlier run of this task wrote down; otherwise choose it, and write down whether it is to be changed."""
    recorded = host.journal.recorded()
    if recorded is not None:
        return _Begun.model_validate(recorded)
    one = await _target(host, name)
    why = await host.containers.why_protected(one)
    if why is not None and wanted is ContainerState.PAUSED:
        raise Protected(f"The container {one} must not be paused", got=why)
    begun = _Begun(changed=one.state is not wanted, container=one)
    await host.journal.record(begun.model_dump(mode="json"))
    return begun


async def _now(host: Host, one: Container) -> Container:
    """As it is now; as it was, if it has gone."""
    return await host.containers.find(one.id) or one


async def _check(host: Host, one: Container | None, wanted: ContainerState) -> Check:
    """Is it so? After a crash, the record says which one was meant."""
    recorded = host.journal.recorded()
    if one is None and recorded is not None:
        one = _Begun.model_validate(recorded).container
    if one is None:
        return Check.of(False, "nothing was begun")
    now = await host.containers.find(one.id)
    return Check.of(now is not None and now.state is wanted, f"{one} is {now.state if now else 'not there'}")


# --- pause -----------------------------------------------------------------------------------------------------------


async def _plan_pause(host: Host, params: PauseContainer) -> Plan:
    """Which container, and how many processes it has."""
    one = await _target(host, params.container)
    why = await host.containers.why_protected(one)
    changes = one.state is ContainerState.RUNNING and why is None
    step = Step(what=f"Pause, with {one.processes} processes", target=_target_text(one))
    warnings = (
        f"Will be refused: {why}" if why else "",
        "" if one.user is None else f"User {one.user} can let it go on: lock the account and end its sessions first",
    )
    return Plan(
        changes=changes,
        steps=(step,) if one.state is ContainerState.RUNNING else (),
        warnings=tuple(one for one in warnings if one),
    )


def _target_text(one: Container) -> str:
    return f"{one}, {one.image}"[:4000] if one.image else str(one)


async def _verify_pause(host: Host, _params: PauseContainer, result: ContainerPaused | None) -> Check:
    """Is it held still?"""
    return await _check(host, result.container if result else None, ContainerState.PAUSED)


@action(
    "pause_container",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan_pause,
    verify=_verify_pause,
    undo=Undo(
        "resume_container",
        lambda _params, result: ResumeContainer(container=result.container.id) if result.changed else None,
    ),
    examples=("web-01 --container shop --wait", "web-01 --container 4f5e0a1b2c3d --dry-run"),
)
async def pause_container(host: Host, params: PauseContainer) -> ContainerPaused:
    """Hold all processes of a container still, with everything in its memory and files.

    By its runtime, if that is one of the machine; otherwise, and for users' own runtimes, by its control group. It
    stays paused when the agent ends or is started anew, until it is resumed or killed.
    """
    begun = await _begin(host, params.container, ContainerState.PAUSED)
    if begun.changed:
        await host.containers.pause(begun.container)
    return ContainerPaused(changed=begun.changed, container=await _now(host, begun.container))


# --- resume ----------------------------------------------------------------------------------------------------------


async def _plan_resume(host: Host, params: ResumeContainer) -> Plan:
    """Is it paused?"""
    one = await _target(host, params.container)
    step = Step(what=f"Let go on, with {one.processes} processes", target=_target_text(one))
    paused = one.state is ContainerState.PAUSED
    return Plan(changes=paused, steps=(step,) if paused else ())


async def _verify_resume(host: Host, _params: ResumeContainer, result: ContainerResumed | None) -> Check:
    """Does it go on?"""
    return await _check(host, result.container if result else None, ContainerState.RUNNING)


@action(
    "resume_container",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan_resume,
    verify=_verify_resume,
    undo=Undo(
        "pause_container",
        lambda _params, result: PauseContainer(container=result.container.id) if result.changed else None,
    ),
    examples=("web-01 --container shop --wait", "web-01 --container 4f5e0a1b2c3d --reason 'false alarm'"),
)
async def resume_container(host: Host, params: ResumeContainer) -> ContainerResumed:
    """Let a paused container go on, whoever paused it.

    By its runtime and by its control group, so that it does go on if either of them was used to pause it.
    """
    begun = await _begin(host, params.container, ContainerState.RUNNING)
    if begun.changed:
        await host.containers.resume(begun.container)
    return ContainerResumed(changed=begun.changed, container=await _now(host, begun.container))
