"""Carrying out: how a run ends, what runs beside what, and what a cancel does."""

import asyncio
from pathlib import Path

import pytest

from stanch.agent import attempt
from stanch.core.errors import ActionFailed, Cancelled, TargetGone, Unsupported
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.task import State
from stanch.core.types import minutes
from tests.fakes.agent import Hold, Machine, Script, scripted


class Partial(Model):
    """What an action had found."""

    found: int = 3


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def machine(tmp_path: Path, script: Script) -> Machine:
    return Machine(tmp_path, scripted(script))


# --- how a run ends --------------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Exception, State, str]] = {
    "failed": (TargetGone("gone"), State.FAILED, "target-gone"),
    "unsupported": (Unsupported("cannot"), State.REFUSED, "unsupported"),
    "cancelled by itself": (Cancelled("no"), State.CANCELLED, "cancelled"),
    "a bug": (ZeroDivisionError("oh"), State.FAILED, "action-failed"),
}


@pytest.mark.parametrize("what", ENDS)
async def test_every_exception_is_an_outcome(machine: Machine, script: Script, what: str) -> None:
    """Whatever an action raises becomes a final state with its code, and its text but no traceback."""
    error, state, code = ENDS[what]

    async def fail(_host: Host) -> None:
        raise error

    script.behave["a"] = fail
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (state, code)
        assert "Traceback" not in report.model_dump_json()


async def test_an_effect_that_is_not_seen_is_a_failure(machine: Machine, script: Script) -> None:
    """Done means that verify saw the effect."""
    script.lost.add("a")
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.FAILED, "not-verified")


async def test_an_effect_that_cannot_be_looked_at_is_unknown(machine: Machine, script: Script) -> None:
    """When verify fails, nobody can tell, and the report says so."""
    script.blind.add("a")
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.UNKNOWN, "not-verified")


async def test_a_result_too_large_for_a_report_is_a_failure(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only action whose result cannot be sent has failed; a changing one is done without its result."""
    monkeypatch.setattr("stanch.agent.attempt.MAX_RESULT_BYTES", 5)
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "read"))
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
        one, two = await agent.ended("tsk_1"), await agent.ended("tsk_2")
        assert (one.state, one.error and one.error.code) == (State.FAILED, "too-large")
        assert (two.state, two.result, two.error and two.error.code) == (State.DONE, None, "too-large")


async def test_a_result_is_measured_in_bytes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters that take four bytes cannot make a report that the link refuses again and again."""
    monkeypatch.setattr("stanch.agent.attempt.MAX_RESULT_BYTES", 60)
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "read", params={"key": "\U0001f600" * 20}))
        report = await agent.ended("tsk_1")
        assert report.error
        assert report.error.code == "too-large"


async def test_an_action_that_gives_up_by_itself_has_failed(machine: Machine, script: Script) -> None:
    """An action that cancels itself is no cancelled task."""

    async def give_up(_host: Host) -> None:
        raise asyncio.CancelledError

    script.behave["a"] = give_up
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.FAILED, "action-failed")


async def test_the_time_limit_stops_an_action(machine: Machine, script: Script) -> None:
    """An action over its limit is stopped, and the report says what it left."""
    script.behave["a"] = Hold()
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "quick"))
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.FAILED, "timed-out")
        assert report.error is not None
        assert report.error.got == "absent: effects []"


async def test_a_stubborn_action_is_abandoned_and_corrects_its_report(machine: Machine, script: Script) -> None:
    """An action that ignores its limit is unknown, blocks no other of its lane, and tells its end if it has one."""
    hold = script.behave["a"] = Hold(stubborn=True)
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "quick"))
        await agent.executor.accept(machine.server.order("tsk_2", "act", params={"key": "b"}))
        report = await agent.ended("tsk_1")
        assert (report.state, report.error and report.error.code) == (State.UNKNOWN, "timed-out")
        assert await agent.state("tsk_2") is State.DONE
        agent.spool.changed.clear()
        hold.free.set()
        await agent.spool.changed.wait()
        assert [one.state for one in await agent.reports("tsk_1")] == [State.UNKNOWN, State.DONE]
    assert script.begun == ["tsk_1", "tsk_2"]


# --- beside each other -----------------------------------------------------------------------------------------------


async def test_lanes_bound_what_runs_beside_each_other(machine: Machine, script: Script) -> None:
    """One exclusive task and two background ones at a time; readers pass; a hung one blocks only its own kind."""
    holds = {key: Hold() for key in ("e1", "e2", "b1", "b2", "b3")}
    script.behave |= holds
    async with machine.agent() as agent:
        for key in holds:
            name = "act" if key.startswith("e") else "bulk"
            await agent.executor.accept(machine.server.order(f"tsk_{key}", name, params={"key": key}))
        await agent.executor.accept(machine.server.order("tsk_r", "read", params={"key": "r"}))
        assert await agent.state("tsk_r") is State.DONE
        assert script.begun == ["tsk_e1", "tsk_b1", "tsk_b2", "tsk_r"]
        for hold in holds.values():
            hold.free.set()
        for key in holds:
            assert await agent.state(f"tsk_{key}") is State.DONE
    assert script.begun.index("tsk_e1") < script.begun.index("tsk_e2")


async def test_validity_is_judged_again_when_the_turn_comes(machine: Machine, script: Script) -> None:
    """An order that waited in its lane until its validity was over is refused."""
    hold = script.behave["a"] = Hold()
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await agent.executor.accept(machine.server.order("tsk_2", "act", valid_for=60))
        machine.endpoint.clock.advance(minutes(2))
        hold.free.set()
        report = await agent.ended("tsk_2")
        assert (report.state, report.error and report.error.code) == (State.REFUSED, "expired")
        assert await agent.state("tsk_1") is State.DONE
    assert script.begun == ["tsk_1"]


async def test_the_policy_is_asked_again_when_the_turn_comes(machine: Machine, script: Script) -> None:
    """What its owner forbids while it waits is refused."""
    hold = script.behave["a"] = Hold()
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
        machine.policy_file.write_text('[actions]\nallow = ["read"]\n')
        hold.free.set()
        report = await agent.ended("tsk_2")
        assert (report.state, report.error and report.error.code) == (State.REFUSED, "forbidden-here")
        assert len(await agent.notices("policy-changed")) == 1


# --- cancel ----------------------------------------------------------------------------------------------------------


async def test_cancel_stops_a_running_task(machine: Machine, script: Script) -> None:
    """A cancel stops what runs; nothing of it remains; repeating it changes nothing."""
    hold = script.behave["a"] = Hold()
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await hold.inside.wait()
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        assert await agent.state("tsk_1") is State.CANCELLED
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        assert await agent.state("tsk_1") is State.CANCELLED
    assert not script.effects


async def test_cancel_takes_a_waiting_task_out_of_its_lane(machine: Machine, script: Script) -> None:
    """A task that waits for its turn is cancelled without having begun."""
    hold = script.behave["a"] = Hold()
    async with machine.agent() as agent:
        for task in ("tsk_1", "tsk_2", "tsk_3"):
            await agent.executor.accept(machine.server.order(task, "act"))
        await agent.executor.accept(machine.server.cancel("tsk_2"))
        assert await agent.state("tsk_2") is State.CANCELLED
        hold.free.set()
        assert [await agent.state("tsk_1"), await agent.state("tsk_3")] == [State.DONE] * 2
    assert script.begun == ["tsk_1", "tsk_3"]


async def test_a_cancel_before_its_order_is_remembered(machine: Machine, script: Script) -> None:
    """An order that comes after its cancel, even after a restart, is not done."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        assert await agent.state("tsk_1") is State.CANCELLED
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        assert await agent.state("tsk_1") is State.CANCELLED
    assert not script.begun


async def test_a_cancel_that_came_too_late_ends_done(machine: Machine, script: Script) -> None:
    """If the effect is in place when the action stops, it is completed and reported, not denied."""
    first = Hold()

    async def effect_then_hang(host: Host) -> None:
        script.effects.append("a")
        await (first(host) if len(script.begun) == 1 else asyncio.sleep(0))

    script.behave["a"] = effect_then_hang
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await first.inside.wait()
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        report = await agent.ended("tsk_1")
        assert (report.state, report.result) == (State.DONE, {"key": "a"})


async def test_a_cancelled_program_that_must_not_run_twice_is_unknown(machine: Machine, script: Script) -> None:
    """What must not be repeated is not repeated to find out, not even after a cancel."""
    hold = Hold()

    async def effect_then_hang(host: Host) -> None:
        script.effects.append("a")
        await hold(host)

    script.behave["a"] = effect_then_hang
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "once"))
        await hold.inside.wait()
        await agent.executor.accept(machine.server.cancel("tsk_1"))
        assert await agent.state("tsk_1") is State.UNKNOWN
    assert script.begun == ["tsk_1"]


@pytest.mark.parametrize("action", ["act", "quick"])
async def test_what_was_found_until_then_stands_beside_the_error(machine: Machine, script: Script, action: str) -> None:
    """An action that fails, or is stopped at its limit, is told with what it had kept for that."""

    async def keep_and_end(host: Host) -> None:
        host.journal.keep(Partial())
        if action == "act":
            raise ActionFailed("no")
        await asyncio.Event().wait()

    script.behave["a"] = keep_and_end
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", action))
        report = await agent.ended("tsk_1")
    assert (report.state, report.result) == (State.FAILED, {"found": 3})


async def test_what_was_found_is_left_out_if_it_is_too_much(
    machine: Machine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is told in any case."""
    monkeypatch.setattr(attempt, "MAX_RESULT_BYTES", 5)

    async def keep_and_fail(host: Host) -> None:
        host.journal.keep(Partial())
        raise ActionFailed("no")

    script.behave["a"] = keep_and_fail
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        report = await agent.ended("tsk_1")
    assert (report.state, report.result, report.error and report.error.code) == (State.FAILED, None, "action-failed")
