"""End a container with all its processes."""

from typing import Annotated

from pydantic import Field

from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Params,
    Plan,
    Result,
    Risk,
    Step,
    Verdict,
    action,
)
from stanch.core.containers import Container, chosen, tells_of
from stanch.core.errors import Protected
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.types import Text, minutes, seconds

WATCHED = seconds(3)
"""How long to watch whether it is started anew: a runtime that does so at once is seen."""


class KillContainer(Params):
    """Which container."""

    container: Annotated[str, Field(min_length=1, max_length=300)]
    """Its id, 12 characters or more of its beginning, or its name."""


class ContainerKilled(Result):
    """The container that was ended."""

    changed: bool
    """False if it did not run."""

    container: Container
    """The container, as it was before."""

    restarts: Text = ""
    """Who may start it anew, in words; empty if nobody is known to."""

    started_anew: Container | None = None
    """What was started in its place within a few seconds; null if nothing was."""


class _Begun(Model):
    """What is written down before anything is changed."""

    container: Container
    restarts: Text


async def _plan(host: Host, params: KillContainer) -> Plan:
    """Which container, how many processes it has, who would start it anew, and what is lost."""
    one = await chosen(host.containers, params.container)
    why = await host.containers.why_protected(one)
    restarts, loses = await host.containers.restarts(one), await host.containers.loses(one)
    step = Step(what=f"End, with {one.processes} processes", target=f"{one}, {one.image}"[:4000])
    warnings = (
        f"Will be refused: {why}" if why else "",
        f"May be started anew by {restarts}"[:4000] if restarts else "",
        f"{loses}: pause it and get them first"[:4000] if loses else "",
    )
    return Plan(
        changes=one.state.alive and why is None,
        steps=(step,) if one.state.alive else (),
        warnings=tuple(one for one in warnings if one),
    )


async def _verify(host: Host, _params: KillContainer, result: ContainerKilled | None) -> Check:
    """Does none of its processes run? One that was started anew is another; after a crash, the record tells which."""
    recorded = host.journal.recorded()
    if result is None and recorded is None:
        return Check.of(False, "nothing was begun")
    one = result.container if result else _Begun.model_validate(recorded).container
    now = await host.containers.find(one.id)
    if now is None and not one.cgroup_number and await _silent(host, one):
        return Check(Verdict.CANNOT_TELL, f"{one.runtime}, which alone knows of {one}, does not answer")
    if now is None or not now.state.alive:
        return Check.of(True, f"{one} does not run")
    anew = result.started_anew if result else None
    if not now.is_same_run(one) or (anew is not None and now.is_same_run(anew)):
        return Check.of(True, f"{one} was ended, and has been started anew")
    return Check.of(False, f"{one} runs, with {now.processes} processes")


async def _silent(host: Host, one: Container) -> bool:
    """Does no runtime answer that would tell of it?"""
    ways = [way for way in await host.containers.runtimes() if tells_of(way.name, one)]
    return bool(ways) and not any(way.answers for way in ways)


@action(
    "kill_container",
    version=1,
    # As with a process: what runs is ended, and nothing is deleted by Stanch. What its runtime deletes then (a
    # container that was started with --rm), the plan says.
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("What its processes had in memory is gone; start the container again by its runtime."),
    examples=("web-01 --container shop --wait", "web-01 --container 4f5e0a1b2c3d --dry-run"),
)
async def kill_container(host: Host, params: KillContainer) -> ContainerKilled:
    """End a container with all its processes, see that they are gone, and watch whether it is started anew.

    By its runtime, if that is one of the machine; otherwise, and for users' own runtimes, by its control group. The
    answer says who may start it anew: a pod is started again by the kubelet, others as their restart policy says. To
    keep its memory and files for evidence, pause it instead.
    """
    recorded = host.journal.recorded()
    begun = await _begin(host, params) if recorded is None else _Begun.model_validate(recorded)
    one, anew = begun.container, None
    if one.state.alive:
        await host.containers.kill(one)
        host.progress(0, None, "containers", f"{one} has ended; watching whether it is started anew"[:4000])
        anew = await host.containers.started_anew(one, within=WATCHED)
    return ContainerKilled(changed=one.state.alive, container=one, restarts=begun.restarts, started_anew=anew)


async def _begin(host: Host, params: KillContainer) -> _Begun:
    """Choose it, and write down which one is meant, and who may start it anew: that is not known afterwards."""
    one = await chosen(host.containers, params.container)
    why = await host.containers.why_protected(one)
    if why is not None:
        raise Protected(f"The container {one} must not be ended", got=why)
    begun = _Begun(container=one, restarts=(await host.containers.restarts(one) or "")[:4000])
    await host.journal.record(begun.model_dump(mode="json"))
    return begun
