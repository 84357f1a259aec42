"""What root may ask of a running agent, on a fake endpoint."""

from pathlib import Path
from typing import Any

import pytest

from stanch import actions
from stanch.actions.isolate import EFFECT
from stanch.agent.desk import Desk
from stanch.agent.link import Link
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.resolve import AddressBook
from stanch.core.errors import ActionFailed, StanchError
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
    return Desk(
        identity=identity,
        link=Link(tls=identity.tls(state), book=book, outbox=agent.spool, seconds=lambda: 5.0),
        executor=agent.executor,
        effects=agent.effects,
        firewall=machine.endpoint.firewall,
        policy=LocalPolicy(machine.policy_file),
    )


async def ask(machine: Machine, agent: Agent, do: str) -> dict[str, Any]:
    return dict(await desk(machine, agent).answers()[do]())


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
