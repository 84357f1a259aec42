"""What `stanch local` does by itself where no agent answers: see the isolation of this machine, and lift it.

Whoever stands in front of a machine that is cut off must not need a server, or even a working agent, to let it back on.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.actions.isolate import EFFECT
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.metadata import account_name
from stanch.agent.host.namespace import Namespace
from stanch.agent.identity import Binding, Identity
from stanch.agent.journal import Journal
from stanch.agent.release_code import Attempts, ReleaseDoor
from stanch.agent.settings import Settings
from stanch.agent.spool import Spool
from stanch.core.errors import Unavailable
from stanch.core.isolation import IsolationStatus, status
from stanch.core.network import KernelIsolation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """As much of an agent as it takes."""

    firewall: NftFirewall
    effects: Effects
    spool: Spool
    attempts: Attempts

    async def shown(self) -> dict[str, Any]:
        """The isolation as it is now."""
        kernel = await self.firewall.isolation()
        told = status(self.effects.current(EFFECT), kernel, due=self.effects.is_due(EFFECT))
        return show_isolation(told, kernel)


async def isolation_status(state: Path) -> Mapping[str, Any]:
    """The isolation as the kernel and the journal in `state` have it."""
    async with _machine(state) as here:
        return await here.shown()


async def isolation_off(state: Path) -> Mapping[str, Any]:
    """Lift the isolation, forget its deadline, and leave a notice that the next agent sends to the server.

    Unavailable if the disk takes nothing: then it is lifted all the same, but an agent that starts puts it back.
    """
    try:
        async with _machine(state) as here:
            lifted = await here.firewall.lift()
            await here.effects.drop(EFFECT)
            detail = {"action": "release", "state": "done", "changed": lifted, "agent": "not running"}
            await here.spool.put(here.spool.notice("local-order", detail))
            return {"changed": lifted, **await here.shown()}
    except Unavailable as error:
        await _lift_unwritten()
        raise Unavailable(
            "The isolation is lifted, but that cannot be written down: an agent that starts now puts it back",
            got=error.got or error.message,
            hint=f"{error.hint or 'Look at the disk.'} Then say it again, before the agent starts.",
        ) from error


async def _lift_unwritten() -> None:
    """Whoever stands in front of the machine must not need its disk either."""
    firewall = NftFirewall(Namespace.current("net"))
    try:
        with redirect_stdout(sys.stderr):
            await firewall.lift()
    finally:
        await firewall.close()


async def isolation_release_code(state: Path, code: str) -> Mapping[str, Any]:
    """Lift the isolation for its release code, as the agent does; wrong ones count as at the agent."""
    async with _machine(state) as here:

        async def lift(_requested_by: str) -> bool:
            lifted = await here.firewall.lift()
            await here.effects.drop(EFFECT)
            return lifted

        door = ReleaseDoor(
            attempts=here.attempts, effects=here.effects, spool=here.spool, lift=lift, account=account_name
        )
        return {**await door.enter(code, os.geteuid()), **await here.shown()}


def show_isolation(told: IsolationStatus, kernel: KernelIsolation) -> dict[str, Any]:
    """The isolation in plain JSON, flat, for people and programs."""
    rules, remaining = kernel.rules, kernel.remaining
    return {
        **told.model_dump(mode="json", exclude_none=True),
        "remaining_seconds": None if remaining is None else round(remaining.total_seconds()),
        "servers": [f"{peer.address} port {peer.port}" for peer in (*rules.servers, *rules.proxies)] if rules else [],
    }


@asynccontextmanager
async def _machine(state: Path) -> AsyncIterator[_Machine]:
    Identity.load(state).binding.check(Binding.here(boot_id()))
    firewall, journal = NftFirewall(Namespace.current("net")), Journal(Settings(state=state).journal)
    try:
        clock = AgentClock(journal, boot_seconds, boot_id())
        # Standard output is the answer's: a line of the log would make no JSON of it.
        with redirect_stdout(sys.stderr):
            yield _Machine(
                firewall=firewall,
                effects=Effects(journal, clock),
                spool=Spool(journal, clock),
                attempts=Attempts(journal, clock),
            )
    finally:
        await journal.close()
        await firewall.close()
