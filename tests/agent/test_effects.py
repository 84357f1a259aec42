"""Lasting effects: on the disk before they are in force, lifted at their deadline whatever happens in between."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest

from stanch.actions import load
from stanch.agent.effects import MAX_HELD, TaskEffects
from stanch.core.errors import ActionFailed, Conflict
from stanch.core.host import Effect, Host
from stanch.core.task import State
from stanch.core.types import hours, minutes, seconds
from tests.fakes.agent import Agent, Hold, Machine, Script, scripted
from tests.fakes.host import socket_to
from tests.fakes.waiting import eventually


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, load())


async def hold(
    effects: TaskEffects, lasts: timedelta | None = hours(1), *, name: str = "isolation", **detail: object
) -> Effect:
    return await effects.hold(name, lift_action="release", lift_params={}, detail=detail, lasts=lasts)


@asynccontextmanager
async def watched(agent: Agent) -> AsyncIterator[None]:
    """The agent with its deadline loop."""
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(agent.effects.due_loop(agent.executor.lift))
        yield
        loop.cancel()


def poke(agent: Agent) -> None:
    """Let the loop look now: it sleeps by the machine's clock, which a test does not wait for."""
    agent.effects._changed.set()


def written(machine: Machine, query: str) -> object:
    """What another reader of the journal's file finds."""
    with closing(sqlite3.connect(machine.folder / "journal.db")) as db:
        return db.execute(query).fetchone()[0]


# --- holding ---------------------------------------------------------------------------------------------------------


async def test_an_effect_is_held_until_it_is_dropped(machine: Machine) -> None:
    """What is held is known after a restart, with its times; what is dropped is gone."""
    async with machine.agent() as agent:
        mine = agent.effects.of("tsk_1")
        held = await hold(mine, allow=["10.0.0.0/8"])
        assert (held.task, held.detail) == ("tsk_1", {"allow": ["10.0.0.0/8"]})
        assert held.until is not None
        assert held.until - held.since == hours(1)
        await hold(mine, None, name="other")
    async with machine.agent() as agent:
        mine = agent.effects.of("tsk_2")
        assert mine.current("isolation") == held
        assert [one.name for one in agent.effects.active()] == ["isolation", "other"]
        await mine.drop("isolation")
        await mine.drop("nothing")
    async with machine.agent() as agent:
        assert [one.name for one in agent.effects.active()] == ["other"]


async def test_what_is_in_force_is_news_when_it_changes(machine: Machine) -> None:
    """The server is told at once of what is held and dropped, and of nothing that stays as it is."""
    async with machine.agent() as agent:
        mine, told = agent.effects.of("tsk_1"), list[bool]()
        for change in (hold(mine), hold(mine), mine.drop("isolation"), mine.drop("isolation")):
            agent.effects.news.clear()
            await change
            told.append(agent.effects.news.is_set())
        assert told == [True, False, True, False]


async def test_replacing_keeps_the_beginning_and_sets_a_new_deadline(machine: Machine) -> None:
    """An isolation that is ordered again lasts anew, but began when it began."""
    async with machine.agent() as agent:
        agent.clock.observe(int(machine.endpoint.clock.now().timestamp()))
        first = await hold(agent.effects.of("tsk_1"))
        machine.endpoint.clock.advance(minutes(30))
        second = await hold(agent.effects.of("tsk_2"))
        assert second.since == first.since
        assert second.until == machine.endpoint.clock.now() + hours(1)


async def test_the_end_is_told_by_the_time_as_it_is_known(machine: Machine) -> None:
    """An effect that was put in force before any time was known tells its true end as soon as there is one."""
    async with machine.agent() as agent:
        await hold(agent.effects.of("tsk_1"))
        agent.clock.observe(int(machine.endpoint.clock.now().timestamp()))
        (effect,) = agent.effects.active()
        assert effect.until == machine.endpoint.clock.now() + hours(1)


async def test_a_task_that_says_it_again_does_not_prolong_it(machine: Machine) -> None:
    """A task that goes on after a crash holds its effect again: the deadline stays."""
    async with machine.agent() as agent:
        agent.clock.observe(int(machine.endpoint.clock.now().timestamp()))
        await hold(agent.effects.of("tsk_1"), confirmed=False)
        first = await hold(agent.effects.of("tsk_1"), confirmed=True)
    machine.endpoint.clock.advance(minutes(30))
    async with machine.agent() as agent:
        assert await hold(agent.effects.of("tsk_1"), confirmed=True) == first


async def test_too_many_effects_are_refused(machine: Machine) -> None:
    """No more are held than a hello can tell."""
    async with machine.agent() as agent:
        mine = agent.effects.of("tsk_1")
        for n in range(MAX_HELD):
            await hold(mine, name=f"e{n}")
        with pytest.raises(Conflict):
            await hold(mine, name="one more")
        await hold(mine, name="e0")


async def test_an_effect_that_cannot_be_written_is_not_held(machine: Machine) -> None:
    """Memory never says more than the disk."""
    async with machine.agent() as agent:
        mine = agent.effects.of("tsk_1")
        await agent.journal.write("break", lambda db: db.execute("ALTER TABLE effects RENAME TO elsewhere"))
        with pytest.raises(Exception, match="cannot be written"):
            await hold(mine)
        assert mine.current("isolation") is None


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_the_deadline_lifts_offline(machine: Machine) -> None:
    """At its deadline an isolation is lifted by its own lift action, and a notice waits for the server."""
    machine.endpoint.firewall.sockets = [socket_to("203.0.113.9:443")]
    async with machine.agent() as agent, watched(agent):
        await agent.executor.accept(machine.server.order("tsk_1", "isolate", params={"duration": "10m"}))
        assert await agent.state("tsk_1") is State.DONE
        machine.endpoint.clock.advance(minutes(9))
        poke(agent)
        assert agent.effects.current("isolation") is not None
        machine.endpoint.clock.advance(minutes(2))
        poke(agent)
        await eventually(lambda: not agent.effects.active())
        await eventually(agent.spool.changed.is_set)
        await eventually(lambda: not agent.executor._carrier.running)
        (notice,) = await agent.notices()
        assert (notice.kind, notice.detail["effect"], notice.detail["state"]) == ("effect-lifted", "isolation", "done")
    assert not machine.endpoint.firewall.in_force


async def test_a_deadline_that_passed_while_the_agent_was_dead(machine: Machine) -> None:
    """An agent that was dead at the deadline cleans up at its next start."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "isolate", params={"duration": "10m"}))
        await agent.ended("tsk_1")
    machine.endpoint.clock.advance(minutes(11))
    async with machine.agent() as agent, watched(agent):
        await eventually(lambda: not agent.effects.active())
        await eventually(lambda: not agent.executor._carrier.running)
        assert len(await agent.notices("effect-lifted")) == 1
    assert machine.endpoint.firewall.rules is None


async def test_after_a_reboot_the_rest_counts(machine: Machine) -> None:
    """What was left at the last write counts from the start of the new boot; what was off does not count."""
    async with machine.agent() as agent:
        await hold(agent.effects.of("tsk_1"), hours(1))
        machine.endpoint.clock.advance(minutes(20))
        await agent.effects.remember()
    machine.endpoint.clock.advance(hours(12))
    machine.reboot()
    machine.endpoint.clock.advance(minutes(39))
    async with machine.agent() as agent:
        assert not agent.effects.is_due("isolation")
        held = agent.effects.current("isolation")
        assert held is not None
        assert held.until is not None
        assert held.until - agent.clock.stamp() == minutes(1)
        machine.endpoint.clock.advance(minutes(1))
        assert agent.effects.is_due("isolation")


async def test_no_deadline_is_never_due(machine: Machine) -> None:
    """An isolation without end stays through restarts and reboots."""
    async with machine.agent() as agent:
        await hold(agent.effects.of("tsk_1"), None)
    machine.reboot()
    machine.endpoint.clock.advance(hours(9999))
    async with machine.agent() as agent:
        assert not agent.effects.is_due("isolation")


async def test_the_loop_remembers_every_minute(machine: Machine) -> None:
    """Time and remainders go to the disk by themselves."""
    async with machine.agent() as agent, watched(agent):
        await agent.executor.accept(machine.server.order("tsk_1", "list_processes"))
        await agent.ended("tsk_1")
        await hold(agent.effects.of("tsk_1"), hours(1))
        machine.endpoint.clock.advance(minutes(2))
        poke(agent)
        await eventually(lambda: written(machine, "SELECT remaining FROM effects") == 3600 - 120)
        assert agent.journal.get("clock")["time"] == machine.endpoint.clock.now().timestamp()


async def test_a_renewed_effect_is_not_lifted_by_its_old_deadline(machine: Machine) -> None:
    """A lift that waited for its lane looks again whether the effect is still due."""
    async with machine.agent() as agent:
        old = await hold(agent.effects.of("tsk_1"), minutes(1))
        machine.endpoint.clock.advance(minutes(2))
        await hold(agent.effects.of("tsk_2"), hours(1))
        await agent.executor.lift(old)
        assert agent.effects.current("isolation") is not None
        assert await agent.notices() == []


async def test_what_a_cancelled_task_has_put_in_force_is_lifted(tmp_path: Path) -> None:
    """Cancelled means that nothing remains, even if the action did not clean up after itself."""
    script, waits = Script(), Hold()
    machine = Machine(tmp_path, scripted(script))

    async def put_in_force(host: Host) -> None:
        await host.effects.hold("e", lift_action="read", lift_params={"key": "lift"}, detail={}, lasts=None)
        await waits(host)

    script.behave["a"] = put_in_force
    async with machine.agent() as agent, watched(agent):
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await waits.inside.wait()
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        assert await agent.state("tsk_1") is State.CANCELLED
        script.behave.clear()
        await eventually(lambda: not agent.effects.active())


async def test_a_lift_that_fails_is_told_and_tried_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An effect that cannot be lifted stays, is reported, and is tried again; other effects go on."""
    monkeypatch.setattr("stanch.agent.effects.RETRY_AFTER", seconds(0.05))
    fails = [ActionFailed("nft is broken")]
    lift = machine.endpoint.firewall.lift

    async def broken() -> bool:
        if fails:
            raise fails.pop()
        return await lift()

    monkeypatch.setattr(machine.endpoint.firewall, "lift", broken)
    async with machine.agent() as agent, watched(agent):
        await hold(agent.effects.of("tsk_1"), seconds(1))
        machine.endpoint.clock.advance(minutes(1))
        poke(agent)
        await eventually(lambda: not agent.effects.active())
        await eventually(lambda: not agent.executor._carrier.running)
        assert [one.kind for one in await agent.notices()] == ["effect-lift-failed", "effect-lifted"]


async def test_a_lift_action_that_does_not_drop_its_effect(tmp_path: Path) -> None:
    """A lift that is done ends the effect even if its action forgot to say so."""
    machine = Machine(tmp_path, scripted(Script()))
    async with machine.agent() as agent, watched(agent):
        await agent.effects.hold("tsk_1", "e", lift_action="act", lift_params={}, detail={}, lasts=seconds(1))
        machine.endpoint.clock.advance(minutes(1))
        poke(agent)
        await eventually(lambda: not agent.effects.active())
