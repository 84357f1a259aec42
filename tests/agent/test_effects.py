"""Lasting effects: on the disk before they are in force, lifted at their deadline whatever happens in between."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest

from stanch.actions import load
from stanch.agent.effects import TaskEffects
from stanch.core.errors import ActionFailed, Conflict
from stanch.core.frames import MAX_EFFECTS, MAX_FRAME_BYTES, Heartbeat
from stanch.core.host import Effect, Host
from stanch.core.isolation import ReleaseCode, status
from stanch.core.network import IsolationState, KernelIsolation
from stanch.core.task import State
from stanch.core.types import hours, minutes, seconds
from tests.fakes.agent import Agent, Hold, Machine, Script, order_of, scripted
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
        mine = agent.effects.of(order_of("tsk_1"))
        held = await hold(mine, allow=["10.0.0.0/8"])
        assert (held.task, held.detail) == ("tsk_1", {"allow": ["10.0.0.0/8"]})
        assert held.until is not None
        assert held.until - held.since == hours(1)
        await hold(mine, None, name="other")
    async with machine.agent() as agent:
        mine = agent.effects.of(order_of("tsk_2"))
        assert mine.current("isolation") == held
        assert [one.name for one in agent.effects.active()] == ["isolation", "other"]
        await mine.drop("isolation")
        await mine.drop("nothing")
    async with machine.agent() as agent:
        assert [one.name for one in agent.effects.active()] == ["other"]


async def test_what_is_in_force_is_news_when_it_changes(machine: Machine) -> None:
    """The server is told at once of what is held and dropped, and of nothing that stays as it is."""
    async with machine.agent() as agent:
        mine, told = agent.effects.of(order_of("tsk_1")), list[bool]()
        for change in (hold(mine), hold(mine), mine.drop("isolation"), mine.drop("isolation")):
            agent.effects.news.clear()
            await change
            told.append(agent.effects.news.is_set())
        assert told == [True, False, True, False]


async def test_replacing_keeps_the_beginning_and_sets_a_new_deadline(machine: Machine) -> None:
    """An isolation that is ordered again lasts anew, but began when it began."""
    async with machine.agent() as agent:
        agent.clock.observe(int(machine.endpoint.clock.now().timestamp()))
        first = await hold(agent.effects.of(order_of("tsk_1")))
        machine.endpoint.clock.advance(minutes(30))
        second = await hold(agent.effects.of(order_of("tsk_2")))
        assert second.since == first.since
        assert second.until == machine.endpoint.clock.now() + hours(1)


async def test_the_end_is_told_by_the_time_as_it_is_known(machine: Machine) -> None:
    """An effect that was put in force before any time was known tells its true end as soon as there is one."""
    async with machine.agent() as agent:
        await hold(agent.effects.of(order_of("tsk_1")))
        agent.clock.observe(int(machine.endpoint.clock.now().timestamp()))
        (effect,) = agent.effects.active()
        assert effect.until == machine.endpoint.clock.now() + hours(1)


async def test_a_task_that_says_it_again_does_not_prolong_it(machine: Machine) -> None:
    """A task that goes on after a crash holds its effect again: the deadline stays."""
    async with machine.agent() as agent:
        agent.clock.observe(int(machine.endpoint.clock.now().timestamp()))
        await hold(agent.effects.of(order_of("tsk_1")), confirmed=False)
        first = await hold(agent.effects.of(order_of("tsk_1")), confirmed=True)
    machine.endpoint.clock.advance(minutes(30))
    async with machine.agent() as agent:
        assert await hold(agent.effects.of(order_of("tsk_1")), confirmed=True) == first


async def test_too_many_effects_are_refused(machine: Machine) -> None:
    """No more are held than a hello can tell, and there is always a place for the isolation."""
    async with machine.agent() as agent:
        mine = agent.effects.of(order_of("tsk_1"))
        for n in range(MAX_EFFECTS - 1):
            await hold(mine, name=f"e{n}")
        with pytest.raises(Conflict):
            await hold(mine, name="one more")
        await hold(mine, name="e0")
        await hold(mine)
        with pytest.raises(Conflict):
            await hold(mine, name="one more")
        assert len(agent.effects.active()) == MAX_EFFECTS


async def test_an_effect_that_cannot_be_written_is_not_held(machine: Machine) -> None:
    """Memory never says more than the disk."""
    async with machine.agent() as agent:
        mine = agent.effects.of(order_of("tsk_1"))
        await agent.journal.write("break", lambda db: db.execute("ALTER TABLE effects RENAME TO elsewhere"))
        with pytest.raises(Exception, match="cannot be written"):
            await hold(mine)
        assert mine.current("isolation") is None


async def test_who_ordered_it_and_why_is_written_down(machine: Machine) -> None:
    """An effect tells by itself, after a restart too, whose it is."""
    async with machine.agent() as agent:
        await hold(agent.effects.of(order_of("tsk_1", order="ord_7", origin="rule", reason="beacon")))
    async with machine.agent() as agent:
        (one,) = agent.effects.all()
        assert (one.task, one.order, one.by, one.origin, one.reason) == ("tsk_1", "ord_7", "alice", "rule", "beacon")


async def test_what_is_private_stays_here(machine: Machine) -> None:
    """The rules and what recognises the release code are on the disk, and in no frame."""
    code = ReleaseCode.of("ABCD", bytes(16), iterations=1)
    async with machine.agent() as agent:
        mine = agent.effects.of(order_of("tsk_1", release_code=code))
        await mine.hold(
            "isolation",
            lift_action="release",
            lift_params={},
            detail={},
            private={"rules": {"dhcp": False}},
            lasts=None,
        )
    async with machine.agent() as agent:
        private = {"rules": {"dhcp": False}, "release_code": code.model_dump()}
        assert [one.private for one in agent.effects.all()] == [private]
        assert [one.private for one in agent.effects.active()] == [{}]


async def test_ten_thousand_exclusions_fit_in_a_frame(machine: Machine) -> None:
    """An endpoint that says too much about its isolation could never connect again: the rest is counted."""
    allow = [f"out tcp {n:05}.{'x' * 60}.{'y' * 60}.{'z' * 60} remote 443 user backup" for n in range(10_000)]
    async with machine.agent() as agent:
        await hold(agent.effects.of(order_of("tsk_1")), allow=allow, profiles=["dhcp"])
        assert agent.effects.all()[0].detail["allow"] == allow
        (told,) = agent.effects.active()
        assert told.detail == {"allow": [*allow[:100], "... and 9900 more"], "profiles": ["dhcp"]}
        isolation = status(
            agent.effects.all()[0], KernelIsolation(state=IsolationState.ISOLATED, rules=None, remaining=None)
        )
        beat = Heartbeat(effects=agent.effects.active(), isolation=isolation)
        assert len(beat.model_dump_json()) < MAX_FRAME_BYTES / 4


async def test_a_part_is_amended_and_the_rest_stays(machine: Machine) -> None:
    """Neither the deadline nor what is not named changes; the disk knows it; nobody is told of nothing."""
    async with machine.agent() as agent:
        mine = agent.effects.of(order_of("tsk_1"))
        before = await hold(mine, phase="in-force", allow=["10.0.0.0/8"])
        machine.endpoint.clock.advance(minutes(20))
        agent.effects.news.clear()
        await mine.amend("isolation", detail={"phase": "in-force"})
        await mine.amend("nothing", detail={"phase": "releasing"})
        assert not agent.effects.news.is_set()
        await mine.amend("isolation", detail={"phase": "releasing"}, private={"rules": {}})
        assert agent.effects.news.is_set()
    async with machine.agent() as agent:
        (after,) = agent.effects.all()
        assert (after.detail, after.private) == ({"phase": "releasing", "allow": ["10.0.0.0/8"]}, {"rules": {}})
        assert (after.task, after.since) == (before.task, before.since)
        assert agent.effects.remaining("isolation") == minutes(40)


async def test_what_is_left_of_a_deadline(machine: Machine) -> None:
    """It runs down to nothing, not below; what has no end, or is not there, has none."""
    async with machine.agent() as agent:
        mine = agent.effects.of(order_of("tsk_1"))
        await hold(mine, minutes(3))
        await hold(mine, None, name="for ever")
        left = [mine.remaining("isolation")]
        for _ in range(2):
            machine.endpoint.clock.advance(minutes(2))
            left.append(mine.remaining("isolation"))
        assert left == [minutes(3), minutes(1), minutes(0)]
        assert (mine.remaining("for ever"), mine.remaining("nothing")) == (None, None)
        assert mine.all() == agent.effects.all()


async def test_names_that_mean_something_else_do_not_prolong_it(machine: Machine) -> None:
    """A task that goes on after a crash may find other addresses for its names: they are taken, the deadline stays."""
    async with machine.agent() as agent:
        for minute in (0, 20):
            machine.endpoint.clock.advance(minutes(minute))
            rules = {"rules": {"minute": minute}}
            await agent.effects.of(order_of("tsk_1")).hold(
                "isolation", lift_action="release", lift_params={}, detail={}, private=rules, lasts=hours(1)
            )
        assert agent.effects.remaining("isolation") == minutes(40)
        assert [one.private for one in agent.effects.all()] == [{"rules": {"minute": 20}}]


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
        await hold(agent.effects.of(order_of("tsk_1")), hours(1))
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
        await hold(agent.effects.of(order_of("tsk_1")), None)
    machine.reboot()
    machine.endpoint.clock.advance(hours(9999))
    async with machine.agent() as agent:
        assert not agent.effects.is_due("isolation")


async def test_the_loop_remembers_every_minute(machine: Machine) -> None:
    """Time and remainders go to the disk by themselves."""
    async with machine.agent() as agent, watched(agent):
        await agent.executor.accept(machine.server.order("tsk_1", "list_processes"))
        await agent.ended("tsk_1")
        await hold(agent.effects.of(order_of("tsk_1")), hours(1))
        machine.endpoint.clock.advance(minutes(2))
        poke(agent)
        await eventually(lambda: written(machine, "SELECT remaining FROM effects") == 3600 - 120)
        assert agent.journal.get("clock")["time"] == machine.endpoint.clock.now().timestamp()


async def test_a_renewed_effect_is_not_lifted_by_its_old_deadline(machine: Machine) -> None:
    """A lift that waited for its lane looks again whether the effect is still due."""
    async with machine.agent() as agent:
        old = await hold(agent.effects.of(order_of("tsk_1")), minutes(1))
        machine.endpoint.clock.advance(minutes(2))
        await hold(agent.effects.of(order_of("tsk_2")), hours(1))
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


class HangsOnce:
    """In the place of a method of the firewall: waits for ever the first time, and is itself afterwards."""

    def __init__(self, real: Callable[..., Awaitable[object]]) -> None:
        self.inside = asyncio.Event()
        self._real = real

    async def __call__(self, *arguments: object, **options: object) -> object:
        if not self.inside.is_set():
            self.inside.set()
            await asyncio.Event().wait()
        return await self._real(*arguments, **options)


async def test_a_cancelled_release_leaves_it_isolated(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled, the endpoint stays isolated until its deadline, and does not call itself releasing."""
    hangs = HangsOnce(machine.endpoint.firewall.lift)
    monkeypatch.setattr(machine.endpoint.firewall, "lift", hangs)
    async with machine.agent() as agent, watched(agent):
        await agent.executor.accept(machine.server.order("tsk_1", "isolate", params={"duration": "10m"}))
        assert await agent.state("tsk_1") is State.DONE
        await agent.executor.accept(machine.server.order("tsk_2", "release"))
        await hangs.inside.wait()
        await agent.executor.accept(machine.server.cancel("tsk_2"))
        assert await agent.state("tsk_2") is State.CANCELLED
        (effect,) = agent.effects.all()
        assert (effect.task, effect.detail["phase"]) == ("tsk_1", "in-force")
        assert agent.effects.remaining("isolation") == minutes(10)
        assert machine.endpoint.firewall.in_force


async def test_a_release_that_is_stopped_too_late_is_isolated_again_at_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel had let go already: cancelled means isolated as before, and not some time later."""
    lift, lifted = machine.endpoint.firewall.lift, asyncio.Event()

    async def lift_and_hang() -> bool:
        await lift()
        lifted.set()
        return await asyncio.Event().wait()

    async with machine.agent() as agent, watched(agent):
        await agent.executor.accept(machine.server.order("tsk_1", "isolate", params={"duration": "10m"}))
        assert await agent.state("tsk_1") is State.DONE
        with monkeypatch.context() as patch:
            patch.setattr(machine.endpoint.firewall, "lift", lift_and_hang)
            await agent.executor.accept(machine.server.order("tsk_2", "release"))
            await lifted.wait()
            until = agent.effects.all()[0].until
            await agent.executor.accept(machine.server.cancel("tsk_2"))
            assert await agent.state("tsk_2") is State.CANCELLED
        assert machine.endpoint.firewall.in_force
        assert machine.endpoint.firewall.until == until


@pytest.mark.parametrize(("renews", "ends"), [(False, State.CANCELLED), (True, State.DONE)])
async def test_a_block_that_is_cancelled(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, *, renews: bool, ends: State
) -> None:
    """Nothing remains of a new one; one that renews what another order has blocked is finished instead of opened."""
    async with machine.agent() as agent, watched(agent):
        if renews:
            earlier = {"network": "203.0.113.0/24", "direction": "in"}
            await agent.executor.accept(machine.server.order("tsk_1", "block_address", params=earlier))
            assert await agent.state("tsk_1") is State.DONE
        hangs = HangsOnce(machine.endpoint.firewall.block)
        monkeypatch.setattr(machine.endpoint.firewall, "block", hangs)
        params = {"network": "203.0.113.0/24"}
        await agent.executor.accept(machine.server.order("tsk_2", "block_address", params=params))
        await hangs.inside.wait()
        await agent.executor.accept(machine.server.cancel("tsk_2"))
        assert await agent.state("tsk_2") is ends
        await eventually(lambda: len(agent.effects.all()) == (2 if renews else 0))
        await eventually(lambda: not agent.executor._carrier.running)
        assert len(await machine.endpoint.firewall.blocks()) == (2 if renews else 0)


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
        await hold(agent.effects.of(order_of("tsk_1")), seconds(1))
        machine.endpoint.clock.advance(minutes(1))
        poke(agent)
        await eventually(lambda: not agent.effects.active())
        await eventually(lambda: not agent.executor._carrier.running)
        assert [one.kind for one in await agent.notices()] == ["effect-lift-failed", "effect-lifted"]


async def test_a_lift_action_that_does_not_drop_its_effect(tmp_path: Path) -> None:
    """A lift that is done ends the effect even if its action forgot to say so."""
    machine = Machine(tmp_path, scripted(Script()))
    async with machine.agent() as agent, watched(agent):
        await agent.effects.hold(order_of("tsk_1"), "e", lift_action="act", lift_params={}, detail={}, lasts=seconds(1))
        machine.endpoint.clock.advance(minutes(1))
        poke(agent)
        await eventually(lambda: not agent.effects.active())


@pytest.mark.parametrize("damage", ["{}", '{"name": 7}', "no JSON", '"text"'])
async def test_an_effect_of_another_version_ends_nobody_and_is_not_lost(machine: Machine, damage: str) -> None:
    """The isolation stays in force until its own deadline, and can be released; a block that cannot be read is gone."""
    async with machine.agent() as agent:
        await hold(agent.effects.of(order_of("tsk_1")), hours(2))
        await hold(agent.effects.of(order_of("tsk_1")), name="block:198.51.100.7/32:in")
    with closing(sqlite3.connect(machine.folder / "journal.db")) as db:
        db.execute("UPDATE effects SET effect = ?", (damage,))
        db.commit()
    async with machine.agent() as agent:
        (effect,) = agent.effects.all()
        assert effect.name == "isolation"
        assert hours(1.9) < (agent.effects.remaining("isolation") or hours(0)) <= hours(2)
        await agent.executor.accept(machine.server.order("tsk_2", "release"))
        assert await agent.state("tsk_2") is State.DONE
        assert not agent.effects.all()


async def test_an_effect_with_a_new_field_is_an_effect() -> None:
    """An agent that was upgraded, and then not, reads what the newer one wrote."""
    known = {"name": "isolation", "task": "tsk_1", "since": "2026-11-24T12:00:00Z", "until": None, "lift_action": "x"}
    assert Effect.model_validate({**known, "unheard": 1}) == Effect.model_validate(known)
