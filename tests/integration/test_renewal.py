"""An agent renews its certificate while it is connected, against the real server, over real TLS."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from stanch.agent.certificates import validity
from stanch.agent.enroll import enroll
from stanch.agent.identity import Identity
from stanch.agent.settings import Settings
from stanch.agent.wire import assembled
from stanch.core.frames import LINK_PATH
from stanch.core.rest import TokenCreate
from stanch.server.authority import Authority
from stanch.server.clock import utc_now
from tests.fakes.waiting import eventually
from tests.integration.stack import live_server

pytestmark = pytest.mark.slow

LASTS = timedelta(days=20)


class Past:
    """A clock that is days behind, until it is not."""

    behind = timedelta(days=15)

    def __call__(self) -> datetime:
        return utc_now() - self.behind


async def test_a_short_certificate_is_renewed_while_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The link begins anew with the new certificate, the old one is refused from then on, and its file is gone."""
    monkeypatch.setattr(
        "stanch.server.main.Authority", SimpleNamespace(open=partial(Authority.open, agent_lasts=LASTS))
    )
    clock, state = Past(), tmp_path / "agent"
    async with live_server(tmp_path, now=clock) as server:
        token = await server.api.ask(server.api.client.create_token, TokenCreate())
        old = await enroll(server=token.gateway_url, token=token.token, ca_pin=token.ca_pin, state=state)
        old_tls, old_file = old.tls(state), old.credentials(state)
        old_until = validity(old_file.read_bytes())[1]
        clock.behind = timedelta(0)
        settings = Settings(state=state, config=tmp_path / "agent.toml", socket=tmp_path / "agent.sock")
        async with assembled(settings) as agent, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(agent.link.run(about=agent.about, accept=agent.executor.accept)),
                group.create_task(agent.renewal.run(every=0.05)),
            ]
            await eventually(lambda: not old_file.exists())
            assert server.running.services.fleet.online == {old.endpoint}
            assert await _status(server.api.gateway_url, old_tls) == 403
            new = Identity.load(state)
            assert [one.name for one in state.glob("credentials-*")] == [new.credentials(state).name]
            assert validity(new.credentials(state).read_bytes())[1] > old_until + timedelta(days=10)
            for task in tasks:
                task.cancel()
        assert await _status(server.api.gateway_url, new.tls(state)) != 403


async def _status(url: str, tls: object) -> int:
    """What the gateway says to a request for a link that is none."""
    async with aiohttp.ClientSession() as session, session.get(url + LINK_PATH, ssl=tls) as answer:
        return answer.status
