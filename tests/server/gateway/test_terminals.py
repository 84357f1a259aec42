"""Terminals, where agents join them: each endpoint its own, and only while its task runs."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from stanch.core.terminal_wire import TERMINAL_PATH, Gone, HangUp, Joined, read_word
from tests.server.live import SOON, Agent, Live, Wire


@pytest.fixture
async def agent(live: Live) -> Agent:
    return await live.enrol()


@pytest.fixture
async def wire(agent: Agent) -> AsyncIterator[Wire]:
    async with agent.linked(actions={"shell": 1}) as one:
        yield one


async def ordered(live: Live, wire: Wire) -> str:
    """A terminal whose order has reached the endpoint."""
    answer = await (await live.admin()).order("shell", endpoints=[wire.agent.endpoint])
    assert answer.status == 201, answer.body
    await wire.hear_order()
    return str(answer.json["tasks"][0]["id"])


async def status(agent: Agent, task: str) -> int:
    """The HTTP status of an attempt to join."""
    try:
        async with agent.session.ws_connect(f"{agent.url}{TERMINAL_PATH}/{task}", ssl=agent.tls):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def test_its_own_terminal(live: Live, wire: Wire) -> None:
    """The endpoint whose task it is may join."""
    assert await status(wire.agent, await ordered(live, wire)) == 101


async def test_anothers_terminal_does_not_exist(live: Live, wire: Wire) -> None:
    """Another endpoint cannot even tell that it is there."""
    task = await ordered(live, wire)
    other = await live.enrol("web-02")
    assert await status(other, task) == 404
    assert await status(wire.agent, "tsk_unknown") == 404


async def test_a_task_that_is_over(live: Live, wire: Wire) -> None:
    """An agent that comes back too late is told that it is gone, so that it ends its shell."""
    task = await ordered(live, wire)
    await wire.report(1, task, "failed")
    assert await status(wire.agent, task) == 410


async def test_a_hostile_agent_is_cut_off(live: Live, wire: Wire) -> None:
    """It is told what was wrong, and the terminal goes on without it."""
    task = await ordered(live, wire)
    agent = wire.agent
    async with agent.session.ws_connect(f"{agent.url}{TERMINAL_PATH}/{task}", ssl=agent.tls) as socket:
        assert isinstance(read_word(await socket.receive_str(timeout=SOON)), Joined)
        await socket.send_str(Joined(have=0).model_dump_json())
        await socket.send_str(HangUp().model_dump_json())
        assert isinstance(read_word(await socket.receive_str(timeout=SOON)), Gone)
        async with asyncio.timeout(SOON):
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert await status(agent, task) == 101


async def test_a_message_that_is_too_large(live: Live, wire: Wire) -> None:
    """The connection is closed; the server keeps nothing of it."""
    task = await ordered(live, wire)
    agent = wire.agent
    async with agent.session.ws_connect(f"{agent.url}{TERMINAL_PATH}/{task}", ssl=agent.tls) as socket:
        await socket.receive_str(timeout=SOON)
        await socket.send_str(Joined(have=0).model_dump_json())
        await socket.send_bytes(b"x" * 100_000)
        async with asyncio.timeout(SOON):
            while (await socket.receive()).type not in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
                pass
    session = await live.services.terminals.for_agent(agent.endpoint, task)
    assert session.person.outgoing.end == 0
