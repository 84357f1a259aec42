"""Carry out an action on this machine while no agent runs: `stanch local quarantine` must not need one.

The executor, journal, vault and policy are the agent's own, and so are its rules: what a crash cuts short, the next
start of the agent finishes, and it tells the server of what was done. Only the ways to the server are shut.
"""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

from stanch.agent.executor import Executor
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked
from stanch.core.errors import Conflict
from stanch.core.network import Peer


async def run_alone(config: Path, state: Path, action: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result of an action, or its error; Conflict if an agent runs after all, NotFound if there never was one."""
    from stanch.agent.desk import run_for_root

    async with _executor(Settings(config=config, state=state)) as executor:
        return await run_for_root(executor, action, params)


@asynccontextmanager
async def _executor(settings: Settings) -> AsyncIterator[Executor]:
    from stanch.agent.wire import executor_alone

    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(locked(settings.state))
        except BlockingIOError:
            raise Conflict(
                "The agent runs, but does not answer", got=settings.socket, hint="Name its socket with --socket."
            ) from None
        # Standard output is the answer's: a line of the log would make no JSON of it.
        stack.enter_context(redirect_stdout(sys.stderr))
        yield await stack.enter_async_context(executor_alone(settings, server=NoServer()))


class NoServer:
    """The server, out of reach."""

    def peers(self) -> tuple[Peer, ...]:
        """None."""
        return ()

    def proxies(self) -> tuple[Peer, ...]:
        """None."""
        return ()

    async def confirm(self, *, within: timedelta) -> bool:  # noqa: ARG002 - of the protocol
        """It never answers."""
        return False
