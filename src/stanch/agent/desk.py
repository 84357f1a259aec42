"""What root on this machine, and everybody on it, may ask of the running agent, through its control sockets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stanch import __version__
from stanch.agent.control import Answer, Question, alone
from stanch.agent.effects import Effects
from stanch.agent.executor import Executor
from stanch.agent.identity import Identity
from stanch.agent.keeper import Keeper
from stanch.agent.link import Link
from stanch.agent.local import show_isolation
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.release_code import ReleaseDoor
from stanch.agent.tasks import Outcome
from stanch.core.errors import Invalid, StanchError, Unavailable
from stanch.core.network import Firewall
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
    keeper: Keeper
    policy: LocalPolicy
    door: ReleaseDoor

    def answers(self) -> Mapping[str, Answer]:
        """The words that are understood from root."""
        return {
            "status": alone(self.status),
            "isolation-status": alone(self.isolation_status),
            "isolation-off": alone(self.isolation_off),
            "run": self.run,
        }

    def answers_to_everybody(self) -> Mapping[str, Answer]:
        """The words that are understood from every user of the machine."""
        return {"isolation-status": alone(self.isolation_in_short), "release-code": self.release_code}

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
        return show_isolation(await self.keeper.status(), await self.firewall.isolation())

    async def isolation_off(self) -> Mapping[str, Any]:
        """Lift it, whoever ordered it; the server hears of it by a notice."""
        try:
            changed = await lift_isolation(self.executor, "root")
        except Unavailable as error:
            hint = f"{error.hint or ''} Or end the agent, and say it again: then it is lifted all the same.".strip()
            raise Unavailable(error.message, got=error.got, hint=hint) from error
        return {"changed": changed, **await self.isolation_status()}

    async def run(self, question: Question) -> Mapping[str, Any]:
        """Carry out an action on this machine for root, and return its result; the server hears of it by a notice."""
        action, params = question.said.get("action"), question.said.get("params")
        if not isinstance(action, str) or not isinstance(params, dict):
            raise Invalid("The line names no action", expected='{"do": "run", "action": "...", "params": {...}}')
        return await run_for_root(self.executor, action, params)

    async def isolation_in_short(self) -> Mapping[str, Any]:
        """What a person at the machine needs to know, and no more."""
        told = await self.keeper.status()
        short = told.model_dump(mode="json", include={"state", "since", "until", "task"})
        return {name: value for name, value in short.items() if value not in {None, ""}}

    async def release_code(self, question: Question) -> Mapping[str, Any]:
        """Lift it for whoever has its code."""
        code = question.said.get("code")
        if not isinstance(code, str):
            raise Invalid("The line brings no code", expected='{"do": "release-code", "code": "..."}')
        return {**await self.door.enter(code, question.uid), **await self.isolation_in_short()}


async def lift_isolation(executor: Executor, requested_by: str) -> bool:
    """Lift it through the executor; did that change anything? The outcome's error if it could not be."""
    result = _result_of(await executor.run_own(RELEASE, {}, requested_by=requested_by))
    return bool(result.get("changed"))


async def run_for_root(executor: Executor, action: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Carry out an action through the executor; its result, or the outcome's error."""
    return _result_of(await executor.run_own(action, params, requested_by="root"))


def _result_of(outcome: Outcome) -> Mapping[str, Any]:
    if outcome.state is State.DONE:
        return outcome.result or {}
    if outcome.error is None:
        raise StanchError("It was not done", got=outcome.state)
    raise StanchError.from_body(outcome.error)
