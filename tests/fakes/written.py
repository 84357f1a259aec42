"""What an agent leaves on the disk, written by the real parts: identity, addresses, journal with effects."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from stanch.actions.block_address import effect_names
from stanch.actions.isolate import EFFECT
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects, TaskEffects
from stanch.agent.identity import Binding, Identity, make_private
from stanch.agent.journal import Journal
from stanch.core.envelope import OrderBody
from stanch.core.exclusion import Direction
from stanch.core.isolation import Phase, rules_json
from stanch.core.network import IsolationRules
from stanch.core.types import AnyNetwork, hours
from stanch.disk.atomic import atomic_write
from tests.fakes.agent import KEY, jwk

ORDER = OrderBody(
    task="tsk_1", order="ord_1", action="isolate", action_version=1, params={}, origin="console", requested_by="alice"
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A state folder, and the boot in which its agent wrote."""

    state: Path
    boot_id: str = "boot-1"
    boot_seconds: float = 1000.0

    def enrol(self, binding: Binding, *urls: str) -> None:
        """Leave an identity that may act there."""
        make_private(self.state)
        identity = Identity(
            endpoint="ep_1", urls=urls or ("https://192.0.2.1:8444",), ca="", signing_keys=(jwk(KEY),), binding=binding
        )
        identity.save(self.state, b"no key is needed here")

    async def isolation(
        self,
        rules: IsolationRules | Mapping[str, Any],
        *,
        phase: Phase = Phase.IN_FORCE,
        lasts: timedelta | None = hours(1),
    ) -> None:
        """Leave an isolation."""
        kept = {"rules": rules_json(rules) if isinstance(rules, IsolationRules) else rules}

        async def hold(effects: TaskEffects) -> None:
            await effects.hold(
                EFFECT, lift_action="release", lift_params={}, detail={"phase": phase}, private=kept, lasts=lasts
            )

        await self._write(hold)

    async def block(
        self, network: AnyNetwork, direction: Direction = Direction.BOTH, *, lasts: timedelta | None = hours(1)
    ) -> None:
        """Leave a block."""

        async def hold(effects: TaskEffects) -> None:
            for name in effect_names(network, direction):
                await effects.hold(name, lift_action="unblock_address", lift_params={}, detail={}, lasts=lasts)

        await self._write(hold)

    async def nothing(self) -> None:
        """Leave an empty journal."""

        async def hold(_effects: TaskEffects) -> None:
            return

        await self._write(hold)

    def spoil(self) -> None:
        """Damage the journal."""
        atomic_write(self.state / "journal.db", b"this is no journal" * 1000)

    async def _write(self, change: Callable[[TaskEffects], Awaitable[None]]) -> None:
        make_private(self.state)
        journal = Journal(self.state / "journal.db")
        try:
            clock = AgentClock(journal, lambda: self.boot_seconds, self.boot_id)
            await change(Effects(journal, clock).of(ORDER))
        finally:
            await journal.close()
