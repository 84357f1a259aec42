"""What root, and everybody else, may ask of a running agent, on a fake endpoint."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stanch import actions
from stanch.actions.isolate import EFFECT
from stanch.agent.control import Question
from stanch.agent.desk import Desk, lift_isolation
from stanch.agent.keeper import Keeper
from stanch.agent.link import Link
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.release_code import Attempts, ReleaseDoor
from stanch.agent.resolve import AddressBook
from stanch.core.errors import ActionFailed, Invalid, StanchError, TargetGone, UnknownAction
from stanch.core.isolation import ReleaseCode
from stanch.core.task import State
from tests.fakes.agent import Agent, Machine
from tests.fakes.gateway import ENDPOINT, FakeGateway


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An endpoint in memory, with the real actions."""
    return Machine(folder=tmp_path, registry=actions.load())


def desk(machine: Machine, agent: Agent) -> Desk:
    """The desk of a running agent that has no link yet."""
    server, state = FakeGateway(machine.folder, port=8444), machine.folder / "state"
    identity = server.identity(state)
    book = AddressBook(machine.folder / "book", urls=identity.urls)
    one = machine.endpoint
    keeper = Keeper(
        firewall=one.firewall,
        turn=asyncio.Lock(),
        names=one.names,
        server=one.server,
        effects=agent.effects,
        spool=agent.spool,
        clock=agent.clock,
    )
    door = ReleaseDoor(
        attempts=Attempts(agent.journal, agent.clock),
        effects=agent.effects,
        spool=agent.spool,
        lift=partial(lift_isolation, agent.executor),
        account=str,
    )
    return Desk(
        identity=identity,
        link=Link(tls=identity.tls(state), book=book, outbox=agent.spool, seconds=lambda: 5.0),
        executor=agent.executor,
        effects=agent.effects,
        firewall=machine.endpoint.firewall,
        keeper=keeper,
        policy=LocalPolicy(machine.policy_file),
        door=door,
    )


async def ask(machine: Machine, agent: Agent, do: str) -> dict[str, Any]:
    """As root."""
    return dict(await desk(machine, agent).answers()[do](Question(uid=0, said={"do": do})))


async def ask_as_user(machine: Machine, agent: Agent, do: str, **said: object) -> dict[str, Any]:
    """As somebody else on the machine."""
    answers = desk(machine, agent).answers_to_everybody()
    return dict(await answers[do](Question(uid=1000, said={"do": do, **said})))


async def test_status_tells_how_the_agent_is(machine):
    """Who it is, how the link is, what is in force and what runs."""
    async with machine.agent() as agent:
        status = await ask(machine, agent, "status")
    assert (status["endpoint"], status["server"], status["open_tasks"]) == (ENDPOINT, None, 0)
    assert status["link"] == "down: not connected yet"
    assert status["local_policy"] == "no limits"


async def test_isolation_can_be_seen_and_lifted_without_the_server(machine):
    """Root on the machine lifts what the server ordered, and the server hears of it by a notice."""
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "isolate", params={"duration": "1h"}))
        assert await agent.state("tsk_1") is State.DONE
        seen = await ask(machine, agent, "isolation-status")
        assert (seen["state"], seen["servers"]) == ("isolated", ["192.0.2.1 port 8443"])
        assert seen["until"] > seen["since"]
        assert (await ask(machine, agent, "status"))["effects"] == [EFFECT]
        lifted = await ask(machine, agent, "isolation-off")
        assert (lifted["changed"], lifted["state"]) == (True, "released")
        (notice,) = await agent.notices("local-order")
        assert (notice.detail["action"], notice.detail["state"]) == ("release", "done")
        assert agent.effects.active() == ()
    assert not machine.endpoint.firewall.in_force


async def test_lifting_nothing_changes_nothing(machine):
    """Without an isolation the answer is that there was none."""
    async with machine.agent() as agent:
        lifted = await ask(machine, agent, "isolation-off")
    assert (lifted["changed"], lifted["state"]) == (False, "released")


async def test_the_local_policy_does_not_bind_root(machine):
    """An owner who forbids `release` to the server still has it at the machine itself."""
    machine.policy_file.write_text('[actions]\nforbid = ["release"]\n')
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "isolate"))
        await agent.ended("tsk_1")
        assert (await ask(machine, agent, "isolation-off"))["changed"]


async def test_a_lift_that_fails_is_told(machine, monkeypatch):
    """What the firewall cannot do is an error with its reason, not a silent success."""

    async def fail() -> bool:
        raise ActionFailed("nft is gone")

    async with machine.agent() as agent:
        monkeypatch.setattr(machine.endpoint.firewall, "lift", fail)
        with pytest.raises(StanchError, match="nft is gone"):
            await ask(machine, agent, "isolation-off")


CODE = "7KQ29XTRM4WB0ZHD"


async def test_a_user_with_the_code_lifts_the_isolation(machine):
    """Through the executor, as an order of the machine itself, in the name of the code's task."""
    code = ReleaseCode.of(CODE, bytes(16), iterations=1)
    async with machine.agent() as agent:
        envelope = machine.server.order("tsk_1", "isolate", reason="secret", release_code=code.model_dump())
        await agent.executor.accept(envelope)
        assert await agent.state("tsk_1") is State.DONE
        seen = await ask_as_user(machine, agent, "isolation-status")
        assert (seen["state"], seen["task"]) == ("isolated", "tsk_1")
        assert set(seen) == {"state", "since", "until", "task"}
        done = await ask_as_user(machine, agent, "release-code", code=CODE.lower())
        assert (done["changed"], done["state"], done["task"]) == (True, "released", "tsk_1")
        (used,) = await agent.notices("release-code-used")
        assert (used.detail["uid"], used.detail["account"]) == (1000, "1000")
    assert not machine.endpoint.firewall.in_force


@pytest.mark.parametrize("said", [{}, {"code": 7}, {"code": None}, {"code": ["x"]}])
async def test_a_line_without_a_code_is_refused(machine, said):
    """Whatever stands in its place."""
    async with machine.agent() as agent:
        with pytest.raises(Invalid):
            await ask_as_user(machine, agent, "release-code", **said)


async def test_users_have_two_words(machine):
    """And none that changes anything without the code."""
    async with machine.agent() as agent:
        assert set(desk(machine, agent).answers_to_everybody()) == {"isolation-status", "release-code"}


async def test_root_carries_out_an_action(machine):
    """The result comes back, the server hears of it, and an error is the action's own."""
    machine.endpoint.files.content["/tmp/dropper"] = b"malware"
    async with machine.agent() as agent:
        answers = desk(machine, agent).answers()

        async def run(**said: object) -> dict[str, Any]:
            return dict(await answers["run"](Question(uid=0, said={"do": "run", **said})))

        done = await run(action="quarantine", params={"path": ["/tmp/dropper"]})
        assert [one["path"] for one in done["items"]] == ["/tmp/dropper"]
        (notice,) = await agent.notices("local-order")
        assert notice.detail["action"] == "quarantine"
        with pytest.raises(TargetGone):
            await run(action="quarantine", params={"path": ["/tmp/dropper"]})
        for wrong in (
            {},
            {"action": 7, "params": {}},
            {"action": "quarantine"},
            {"action": "quarantine", "params": []},
        ):
            with pytest.raises(Invalid):
                await run(**wrong)
        with pytest.raises(UnknownAction):
            await run(action="none", params={})
    assert "/tmp/dropper" not in machine.endpoint.files.content
