"""What `stanch local` does by itself where no agent answers: see the isolation of this machine, and lift it.

Whoever stands in front of a machine that is cut off must not need a server, or even a working agent, to let it back on.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.actions.isolate import EFFECT
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.identity import Binding, Identity
from stanch.agent.journal import Journal
from stanch.agent.settings import Settings
from stanch.agent.spool import Spool
from stanch.core.host import Effect, KernelIsolation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """As much of an agent as it takes."""

    firewall: NftFirewall
    effects: Effects
    spool: Spool


async def isolation_status(state: Path) -> Mapping[str, Any]:
    """The isolation as the kernel and the journal in `state` have it."""
    async with _machine(state) as here:
        return show_isolation(await here.firewall.isolation(), here.effects.current(EFFECT))


async def isolation_off(state: Path) -> Mapping[str, Any]:
    """Lift the isolation, forget its deadline, and leave a notice that the next agent sends to the server."""
    async with _machine(state) as here:
        lifted = await here.firewall.lift()
        await here.effects.drop(EFFECT)
        detail = {"action": "release", "state": "done", "changed": lifted, "agent": "not running"}
        await here.spool.put(here.spool.notice("local-order", detail))
        return {"changed": lifted, **show_isolation(await here.firewall.isolation(), None)}


def show_isolation(kernel: KernelIsolation, effect: Effect | None) -> dict[str, Any]:
    """The isolation in plain JSON, flat, for people and programs."""
    rules, remaining = kernel.rules, kernel.remaining
    return {
        "state": str(kernel.state),
        "remaining_seconds": None if remaining is None else round(remaining.total_seconds()),
        "since": effect.since.isoformat(timespec="seconds") if effect else None,
        "until": effect.until.isoformat(timespec="seconds") if effect and effect.until else None,
        "servers": [f"{peer.address} port {peer.port}" for peer in rules.servers] if rules else [],
        "allow": [str(network) for network in rules.allow] if rules else [],
        "not_covered": list(kernel.not_covered),
    }


@asynccontextmanager
async def _machine(state: Path) -> AsyncIterator[_Machine]:
    Identity.load(state).binding.check(Binding.here(boot_id()))
    firewall, journal = NftFirewall(Namespace.current("net")), Journal(Settings(state=state).journal)
    try:
        clock = AgentClock(journal, boot_seconds, boot_id())
        yield _Machine(firewall=firewall, effects=Effects(journal, clock), spool=Spool(journal, clock))
    finally:
        await journal.close()
        await firewall.close()
