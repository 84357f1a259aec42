"""An endpoint whose certificate is revoked is out, at once and for good."""

import pytest

from stanch.core.errors import StanchError
from stanch.core.task import State
from tests.integration.stack import LiveAgent, LiveServer, until

pytestmark = pytest.mark.slow


async def test_a_revoked_endpoint_is_cut_off_and_stays_out(server: LiveServer, agent: LiveAgent):
    """Its link is closed, its reconnects are refused, and orders do not reach it."""
    await server.api.ask(server.api.client.revoke, agent.endpoint)
    view = await until(lambda: now if not (now := server.api.client.endpoint(agent.endpoint)).online else None)
    assert view.revoked
    before = agent.said.count("\n")
    await until(lambda: agent.said.count("\n") > before + 1)  # it has tried to come back
    view = await server.api.ask(server.api.client.endpoint, agent.endpoint)
    assert (view.online, view.revoked) == (False, True)
    try:
        order = await server.api.submit("list_processes", agent.endpoint, {})
    except StanchError:
        return
    (task,) = (await server.api.ask(server.api.client.order, order.id)).tasks
    assert task.state not in {State.SENT, State.RUNNING, State.DONE}
