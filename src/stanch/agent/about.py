"""What the agent says about itself and its machine: the first frame on a link, and heartbeats."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from stanch import __version__
from stanch.core.action import Registry
from stanch.core.frames import Heartbeat, Hello, Inventory
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus

INVENTORY_SECONDS = 600.0
"""How often heartbeats look whether the inventory has changed: it costs more than all else that an idle agent does."""

MAX_OPEN_TASKS = 10_000


class Policy(Protocol):
    """The local policy, as far as the server hears of it."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        ...


class About:
    """Puts together what the server should know."""

    def __init__(
        self,
        *,
        registry: Registry,
        inventory: Callable[[], Inventory],
        capabilities: Callable[[], Mapping[str, str]],
        policy: Policy,
        effects: Callable[[], tuple[Effect, ...]],
        isolation: Callable[[], Awaitable[IsolationStatus]],
        news: asyncio.Event,
        open_tasks: Callable[[], Sequence[str]],
        seconds: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._inventory = inventory
        self._capabilities = capabilities
        self._policy = policy
        self._effects = effects
        self._isolation = isolation
        self.news = news
        self._open_tasks = open_tasks
        self._seconds = seconds
        self._told: Inventory | None = None
        self._looked = seconds()

    async def hello(self, nonce: str) -> Hello:
        """Everything, as it is now."""
        # In threads: these read many small files, and ask programs.
        self._told = await asyncio.to_thread(self._inventory)
        self._looked = self._seconds()
        return Hello(
            nonce=nonce,
            agent_version=__version__,
            inventory=self._told,
            actions=self._registry.versions(),
            capabilities=await asyncio.to_thread(self._capabilities),
            policy_digest=self._policy.digest,
            effects=self._effects(),
            isolation=await self._isolation(),
            open_tasks=tuple(self._open_tasks())[:MAX_OPEN_TASKS],
        )

    async def heartbeat(self) -> Heartbeat:
        """The effects in force, and from time to time the inventory, if it has changed."""
        return Heartbeat(
            effects=self._effects(), isolation=await self._isolation(), inventory=await self._changed_inventory()
        )

    async def _changed_inventory(self) -> Inventory | None:
        if self._seconds() - self._looked < INVENTORY_SECONDS:
            return None
        self._looked = self._seconds()
        now = await asyncio.to_thread(self._inventory)
        if now == self._told:
            return None
        self._told = now
        return now
