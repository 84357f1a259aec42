"""A real server and a real agent on loopback, without root: what the integration tests are made of.

The server runs in the test's own event loop, so that a test can give it another clock or listen at its seams; the
agent is a process of its own, under its real supervisor.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from stanch.agent.enroll import enroll
from stanch.client.api import Client
from stanch.core.rest import EndpointView, OrderCommon, OrderView, TaskView, TokenCreate
from stanch.core.task import State
from stanch.demo.program import Program, wait_until
from stanch.server.clock import utc_now
from stanch.server.main import Running, running
from stanch.server.settings import Settings

WAIT_SECONDS = 90.0
T = TypeVar("T")


async def until(true: Callable[[], Any], *, within: float = WAIT_SECONDS) -> Any:
    """Ask in a thread until the answer is true; the answer. Fails the test after `within` seconds."""
    answers: list[Any] = []

    def ask() -> bool:
        answers[:] = [true()]
        return bool(answers[0])

    assert await asyncio.to_thread(wait_until, ask, within=within), f"still {answers}"
    return answers[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The server as people see it: the typed client, signed in, from a thread."""

    client: Client
    gateway_url: str
    pin: str

    async def ask(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a method of the client while the server's loop goes on."""
        return await asyncio.to_thread(call, *arguments, **options)

    async def submit(
        self, action: str, endpoint: str, params: Mapping[str, Any], *, dry_run: bool = False
    ) -> OrderView:
        """Order an action on one endpoint."""
        common = OrderCommon(endpoints=(endpoint,), reason="a test", dry_run=dry_run)
        return await self.ask(self.client.submit, action, common, params)

    async def finished(self, order: OrderView) -> TaskView:
        """The one task of an order, once it is final."""
        (task,) = order.tasks
        return await until(lambda: now if (now := self.client.task(task.id)).state.final else None)

    async def run(self, action: str, endpoint: str, params: Mapping[str, Any]) -> TaskView:
        """Order an action and wait for its end, which must be a good one."""
        task = await self.finished(await self.submit(action, endpoint, params))
        assert task.state is State.DONE, task.error
        return task

    async def online(self, endpoint: str) -> EndpointView:
        """The endpoint, once its link is up."""
        return await until(lambda: view if (view := self.client.endpoint(endpoint)).online else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveServer:
    """A server in this event loop."""

    running: Running
    api: Api


@asynccontextmanager
async def live_server(folder: Path, *, now: Callable[[], datetime] = utc_now) -> AsyncIterator[LiveServer]:
    """A server on loopback, with its data in `folder`; started again on the same folder, it goes on."""
    password = folder / "password"
    if not password.exists():
        password.write_text(secrets.token_urlsafe(12))
    settings = Settings(
        data=folder / "server",
        api_listen="127.0.0.1:0",
        gateway_listen="127.0.0.1:0",
        names=("127.0.0.1",),
        admin_password_file=password,
    )
    async with running(settings, say=lambda _line: None, now=now) as server:
        authority = server.services.authority
        with await signed_in(server.api_url, authority.pem, password.read_text()) as client:
            yield LiveServer(running=server, api=Api(client=client, gateway_url=server.gateway_url, pin=authority.pin))


async def signed_in(url: str, ca: str, password: str) -> Client:
    """A client with a session of the administrator."""
    with Client(url, ca=ca) as stranger:
        session = await asyncio.to_thread(stranger.login, "admin", password)
    return Client(url, ca=ca, token=session.token)


@dataclass(slots=True)
class LiveAgent:
    """An enrolled agent: its state stays when its processes end."""

    endpoint: str
    state: Path
    programs: list[Program] = field(default_factory=list)

    def start(self) -> Program:
        """Start supervisor and agent on the state."""
        folder = self.state.parent
        env = {
            "STANCH_AGENT_STATE": os.fspath(self.state),
            "STANCH_AGENT_CONFIG": os.fspath(folder / "agent.toml"),
            "STANCH_AGENT_SOCKET": os.fspath(folder / "agent.sock"),
        }
        argv = (sys.executable, "-m", "stanch.agent.supervisor")
        self.programs.append(Program.start(argv, log=folder / "agent.log", env=env))
        return self.programs[-1]

    def stop(self) -> None:
        """End its processes."""
        for program in self.programs:
            program.stop()

    @property
    def said(self) -> str:
        """Its log."""
        return self.programs[-1].said() if self.programs else ""


@asynccontextmanager
async def live_agent(api: Api, folder: Path) -> AsyncIterator[LiveAgent]:
    """An agent that enrolled at this server and is online."""
    token = await api.ask(api.client.create_token, TokenCreate())
    state = folder / "agent"
    identity = await enroll(server=token.gateway_url, token=token.token, ca_pin=token.ca_pin, state=state)
    agent = LiveAgent(identity.endpoint, state)
    agent.start()
    try:
        await api.online(agent.endpoint)
        yield agent
    finally:
        await asyncio.to_thread(agent.stop)
