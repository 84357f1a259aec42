"""What root on this machine may ask of the running agent, through the control socket."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stanch import __version__
from stanch.actions.isolate import EFFECT
from stanch.agent.control import Answer
from stanch.agent.effects import Effects
from stanch.agent.executor import Executor
from stanch.agent.identity import Identity
from stanch.agent.link import Link
from stanch.agent.local import show_isolation
from stanch.agent.local_policy import LocalPolicy
from stanch.core.errors import StanchError
from stanch.core.host import Firewall
from stanch.core.task import State

RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Answers questions; every change goes through the executor, as the server's orders do."""

    identity: Identity
    link: Link
    executor: Executor
    effects: Effects
    firewall: Firewall
    policy: LocalPolicy

    def answers(self) -> Mapping[str, Answer]:
        """The words that are understood."""
        return {
            "status": self.status,
            "isolation-status": self.isolation_status,
            "isolation-off": self.isolation_off,
        }

    async def status(self) -> Mapping[str, Any]:
        """How the agent is."""
        link = self.link.status()
        return {
            "endpoint": self.identity.endpoint,
            "version": __version__,
            "server": link.server,
            "link": "up" if link.server else f"down: {link.error}",
            "link_seconds": round(link.seconds),
            "effects": [effect.name for effect in self.effects.active()],
            "open_tasks": len(self.executor.open_tasks()),
            "local_policy": self.policy.broken or self.policy.digest or "no limits",
        }

    async def isolation_status(self) -> Mapping[str, Any]:
        """The isolation as the kernel has it, and until when."""
        return show_isolation(await self.firewall.isolation(), self.effects.current(EFFECT))

    async def isolation_off(self) -> Mapping[str, Any]:
        """Lift it, whoever ordered it; the server hears of it by a notice."""
        outcome = await self.executor.run_own(RELEASE, {}, requested_by="root")
        if outcome.state is not State.DONE:
            if outcome.error is None:
                raise StanchError("The isolation was not lifted", got=outcome.state)
            raise StanchError.from_body(outcome.error)
        changed = bool((outcome.result or {}).get("changed"))
        return {"changed": changed, **await self.isolation_status()}
