"""The executor: what it accepts, what it refuses, and that each task ends once and truthfully."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws

from stanch.agent.carrier import Bounds
from stanch.core.envelope import PolicyBody
from stanch.core.host import Host
from stanch.core.task import State
from stanch.core.types import minutes, seconds
from tests.fakes.agent import ENDPOINT, FakeSigner, Hold, Machine, Script, new_key, scripted
from tests.fakes.waiting import eventually


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def machine(tmp_path: Path, script: Script) -> Machine:
    return Machine(tmp_path, scripted(script))


# --- the way of an order ---------------------------------------------------------------------------------------------


async def test_an_order_is_done_and_reported(machine: Machine, script: Script) -> None:
    """An order takes effect, and its one report says done with the result."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act", params={"key": "x"}))
        report = await agent.ended("tsk_1")
        assert (report.state, report.result, report.error) == (State.DONE, {"key": "x"}, None)
        assert report.at == machine.endpoint.clock.now().timestamp()
        assert [one.state for one in await agent.reports()] == [State.DONE]
    assert script.effects == ["x"]


async def test_a_long_task_says_that_it_has_begun(machine: Machine, script: Script) -> None:
    """A task that does not end soon reports running before its end."""
    hold = script.behave["a"] = Hold()
    async with machine.agent(bounds=Bounds(started_after=seconds(0))) as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await hold.inside.wait()
        await agent.spool.changed.wait()
        hold.free.set()
        await agent.ended("tsk_1")
        assert [one.state for one in await agent.reports()] == [State.RUNNING, State.DONE]


async def test_a_dry_run_only_plans(machine: Machine, script: Script) -> None:
    """A dry run answers with the plan and runs nothing."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act", dry_run=True))
        await agent.executor.accept(machine.server.order("tsk_2", "read", dry_run=True))
        report = await agent.ended("tsk_1")
        assert report.result is not None
        assert report.result["steps"] == [{"what": "Do", "target": "a"}]
        assert (await agent.ended("tsk_2")).state is State.DONE
    assert not script.begun


async def test_progress_is_told_by_task(machine: Machine, script: Script) -> None:
    """What an action tells of its progress leaves with its task, within the frame's bounds."""

    async def tell(host: Host) -> None:
        host.progress(-1, 10, "u" * 100, "t" * 1000)
        host.progress(10, 10, "files", "end")

    script.behave["a"] = tell
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await agent.ended("tsk_1")
        assert [(one.task, one.done, len(one.unit), len(one.text)) for one in agent.progress] == [
            ("tsk_1", 0, 40, 200),
            ("tsk_1", 10, 5, 3),
        ]


# --- seen before -----------------------------------------------------------------------------------------------------


async def test_a_second_delivery_changes_nothing(machine: Machine, script: Script) -> None:
    """While a task runs, its second delivery is ignored, even if both come at the same time."""
    hold = script.behave["a"] = Hold()
    order = machine.server.order("tsk_1", "act")
    async with machine.agent() as agent:
        await asyncio.gather(*(agent.executor.accept(order) for _ in range(5)))
        await hold.inside.wait()
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        hold.free.set()
        assert await agent.state("tsk_1") is State.DONE
    assert script.begun == ["tsk_1"]


async def test_a_delivery_after_the_end_is_answered_again(machine: Machine, script: Script) -> None:
    """The outcome of a finished task is told again if the server had acknowledged it, and not doubled if it had not."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act", params={"key": "x"}))
        first = await agent.ended("tsk_1")
        await agent.executor.accept(machine.server.order("tsk_1", "act", params={"key": "x"}))
        assert await agent.ended("tsk_1") == first
        await agent.spool.ack([first.seq])
        assert await agent.reports() == []
        await agent.executor.accept(machine.server.order("tsk_1", "act", params={"key": "x"}))
        again = await agent.ended("tsk_1")
        assert (again.state, again.result, again.seq > first.seq) == (first.state, first.result, True)
    assert script.begun == ["tsk_1"]


async def test_finished_tasks_are_known_after_a_restart(machine: Machine, script: Script) -> None:
    """A restart does not forget what was done."""
    order = machine.server.order("tsk_1", "act")
    for _ in range(3):
        async with machine.agent() as agent:
            await agent.executor.accept(order)
            assert await agent.state("tsk_1") is State.DONE
    assert script.begun == ["tsk_1"]


async def test_a_forgotten_order_cannot_be_replayed(
    machine: Machine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that was done and forgotten, though still valid, is refused by its age; a newer one is not."""
    monkeypatch.setattr("stanch.agent.tasks.KEPT_TASKS", 1)
    old = machine.server.order("tsk_1", "act", valid_for=10**6)
    async with machine.agent() as agent:
        await agent.executor.accept(old)
        await agent.ended("tsk_1")
        machine.endpoint.clock.advance(minutes(1))
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
        await agent.ended("tsk_2")
    async with machine.agent() as agent:
        assert await agent.executor.ledger.find("tsk_1") is None
        await agent.executor.accept(old)
        (notice,) = await agent.notices("envelope-refused")
        assert notice.detail["error"]["code"] == "replayed"
        await agent.executor.accept(machine.server.order("tsk_3", "act"))
        assert await agent.state("tsk_3") is State.DONE
    assert script.begun == ["tsk_1", "tsk_2", "tsk_3"]


# --- refused ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown action": ({"action": "dance"}, "unknown-action"),
    "unknown field": ({"action": "act", "params": {"speed": 1}}, "invalid"),
    "wrong type": ({"action": "act", "params": {"key": 7}}, "invalid"),
    "newer version with a field that is unknown here": (
        {"action": "act", "action_version": 9, "params": {"speed": 1}},
        "unsupported",
    ),
    "too late": ({"action": "act", "ago": 7200}, "expired"),
    "forbidden action": ({"action": "once"}, "forbidden-here"),
    "forbidden path": ({"action": "act", "params": {"path": "/root/.ssh/id"}}, "forbidden-here"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_refused_orders_change_nothing_and_say_why(machine: Machine, script: Script, what: str) -> None:
    """An order that cannot or must not be done is answered with refused, and its code."""
    fields, code = REFUSED[what]
    machine.policy_file.write_text('[actions]\nforbid = ["once"]\n[paths]\nforbid = ["/root"]\n')
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_0", "read"))
        await agent.executor.accept(machine.server.order("tsk_1", **fields))
        report = await agent.ended("tsk_1")
        assert report.state is State.REFUSED
        assert report.error is not None
        assert report.error.code == code
        await agent.ended("tsk_0")
    assert script.begun == ["tsk_0"]


async def test_a_newer_version_that_is_understood_is_obeyed(machine: Machine) -> None:
    """A newer server with an older agent works as long as it uses nothing new."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act", action_version=9))
        assert await agent.state("tsk_1") is State.DONE


async def test_a_link_to_a_forbidden_path_is_refused(machine: Machine, script: Script, tmp_path: Path) -> None:
    """A symbolic link is no way around the local policy."""
    (tmp_path / "link").symlink_to("/etc")
    machine.policy_file.write_text('[paths]\nforbid = ["/etc"]\n')
    async with machine.agent() as agent:
        path = f"{tmp_path}/link/passwd"
        await agent.executor.accept(machine.server.order("tsk_1", "act", params={"path": path}))
        assert await agent.state("tsk_1") is State.REFUSED
    assert not script.begun


async def test_too_many_tasks_are_refused(machine: Machine, script: Script) -> None:
    """The queue is bounded."""
    hold = script.behave["a"] = Hold()
    async with machine.agent(bounds=Bounds(open_tasks=2)) as agent:
        for task in ("tsk_1", "tsk_2", "tsk_3"):
            await agent.executor.accept(machine.server.order(task, "act"))
        report = await agent.ended("tsk_3")
        assert (report.state, report.error and report.error.code) == (State.REFUSED, "unavailable")
        hold.free.set()
        assert [await agent.state("tsk_1"), await agent.state("tsk_2")] == [State.DONE] * 2


def raw(machine: Machine, **fields: Any) -> str:
    """A payload that is signed as it should be, though nobody should have."""
    body = {"kind": "policy", "settings": {}}
    payload = {"endpoint": ENDPOINT, "id": "env_0", "iat": 1, "version": 1, "body": body} | fields
    key = machine.server.key
    return jws.serialize_compact(
        {"alg": "Ed25519", "kid": str(key.kid)}, json.dumps(payload).encode(), key, ["Ed25519"]
    )


ROTTEN: dict[str, Any] = {
    "no envelope": lambda _machine: "rubbish",
    "enormous": lambda _machine: "x" * 2_000_000,
    "signed by a stranger": lambda m: FakeSigner(m.endpoint.clock.now, key=new_key("k1")).order("tsk_1", "act"),
    "key that is not trusted": lambda m: FakeSigner(m.endpoint.clock.now, key=new_key("k9")).order("tsk_1", "act"),
    "for another endpoint": lambda m: FakeSigner(m.endpoint.clock.now, endpoint="ep_2").order("tsk_1", "act"),
    "changed": lambda m: m.server.order("tsk_1", "act").replace(".", ".e30", 1),
    "from no possible time": lambda m: raw(m, iat=2**60),
    "without a body": lambda m: raw(m, body=None),
    "with a body of no kind": lambda m: raw(m, body={"kind": "shell", "command": "sh"}),
    "settings without a version": lambda m: m.server.sign(PolicyBody(settings={})),
    "settings too late": lambda m: m.server.sign(PolicyBody(settings={}), version=1, ago=60, valid_for=1),
}


@pytest.mark.parametrize("what", ROTTEN)
async def test_rotten_envelopes_only_cause_a_notice(machine: Machine, script: Script, what: str) -> None:
    """What is not signed for us, well-formed and in time is refused with a notice."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_0", "read"))
        await agent.ended("tsk_0")
        await agent.executor.accept(ROTTEN[what](machine))
        assert len(await agent.notices("envelope-refused")) == 1
        assert [one.task for one in await agent.reports()] == ["tsk_0"]
    assert script.begun == ["tsk_0"]


async def test_notices_about_rubbish_are_rate_limited(machine: Machine) -> None:
    """Somebody who sends rubbish fills neither the spool nor hides how much it was."""
    async with machine.agent(bounds=Bounds(refusals_per_minute=3)) as agent:
        for _ in range(50):
            await agent.executor.accept("rubbish")
        assert len(await agent.notices("envelope-refused")) == 3
        machine.endpoint.clock.advance(minutes(2))
        await agent.executor.accept("rubbish")
        *_, last = await agent.notices("envelope-refused")
        assert last.detail["suppressed_before"] == 47


# --- the agent's own orders ------------------------------------------------------------------------------------------


async def test_own_orders_are_told_as_notices(machine: Machine, script: Script) -> None:
    """What root orders on the machine is done whatever the policy says, and the server learns of it."""
    machine.policy_file.write_text("[actions]\nallow = []\n")
    async with machine.agent() as agent:
        outcome = await agent.executor.run_own("act", {"key": "x"}, requested_by="root")
        assert (outcome.state, outcome.result) == (State.DONE, {"key": "x"})
        (notice,) = await agent.notices("local-order")
        assert (notice.detail["action"], notice.detail["state"]) == ("act", "done")
        assert await agent.reports() == []
    assert script.effects == ["x"]


async def test_a_clean_stop_leaves_tasks_for_the_next_start(machine: Machine, script: Script) -> None:
    """A task that runs or waits while the agent stops goes on at the next start, unreported until then."""
    script.behave["a"] = Hold()
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await agent.executor.accept(machine.server.order("tsk_2", "act"))
        await eventually(lambda: script.begun)
        assert agent.executor.open_tasks() == ("tsk_1", "tsk_2")
    script.behave.clear()
    async with machine.agent() as agent:
        assert await agent.state("tsk_1") is State.DONE
        assert await agent.state("tsk_2") is State.DONE
    assert script.begun == ["tsk_1", "tsk_1", "tsk_2"]


async def test_an_order_signed_again_after_its_validity_is_answered(machine: Machine, script: Script) -> None:
    """The server delivers what may have been lost again, even late; without an answer the task stayed open for ever."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act", valid_for=-60))
        report = await agent.ended("tsk_1")
        assert report.error is not None
        assert (report.state, report.error.code) == (State.REFUSED, "expired")
    assert script.begun == []


async def test_an_error_that_is_not_unicode_does_not_end_the_agent(machine: Machine, script: Script) -> None:
    """What an action says of a file with a strange name is an outcome like any other."""

    async def fail(_host: Host) -> None:
        raise OSError("no such file: \udcff")

    script.behave["a"] = fail
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        assert (await agent.ended("tsk_1")).state is State.FAILED
        await agent.executor.accept(machine.server.order("tsk_2", "act", params={"key": "b"}))
        assert (await agent.ended("tsk_2")).state is State.DONE


async def test_content_is_in_use_until_its_tasks_end(machine: Machine, script: Script) -> None:
    """Of what runs and of what waits, after a restart too."""
    script.behave["a"] = Hold()
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act", params={"key": "a", "content": ["apt"]}))
        await agent.executor.accept(machine.server.order("tsk_2", "act", params={"key": "b", "content": ["more"]}))
        await eventually(lambda: script.begun)
        assert agent.executor.content_in_use() == {"apt", "more"}
    script.behave.clear()
    async with machine.agent() as agent:
        await agent.ended("tsk_1")
        await agent.ended("tsk_2")
        await eventually(lambda: agent.executor.content_in_use() == frozenset())
