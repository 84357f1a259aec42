"""What the agent says about itself."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stanch import __version__
from stanch.agent.about import INVENTORY_SECONDS, MAX_OPEN_TASKS, About
from stanch.core.action import Registry
from stanch.core.frames import Inventory
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus
from stanch.core.network import IsolationState

EFFECT = Effect(
    name="isolation", task="tsk_1", since=datetime(2026, 1, 1, tzinfo=UTC), until=None, lift_action="release"
)


@dataclass
class Machine:
    """What the agent sees, under the control of a test."""

    hostname: str = "web-01"
    now: float = 0.0
    digest: str = "d1"
    tasks: list[str] = field(default_factory=lambda: ["tsk_1"])
    looks: int = 0

    def inventory(self) -> Inventory:
        self.looks += 1
        return Inventory(hostname=self.hostname)

    async def isolation(self) -> IsolationStatus:
        return IsolationStatus(state=IsolationState.ISOLATED)

    def about(self) -> About:
        return About(
            registry=Registry(()),
            inventory=self.inventory,
            capabilities=lambda: {"nftables": "yes"},
            policy=self,
            effects=lambda: (EFFECT,),
            isolation=self.isolation,
            news=asyncio.Event(),
            open_tasks=lambda: self.tasks,
            seconds=lambda: self.now,
        )


async def test_hello_tells_everything():
    """The first frame has all that the server needs to know, and its own nonce."""
    hello = await Machine().about().hello("n1")
    assert (hello.nonce, hello.agent_version, hello.inventory.hostname) == ("n1", __version__, "web-01")
    assert (hello.capabilities, hello.policy_digest) == ({"nftables": "yes"}, "d1")
    assert (hello.effects, hello.open_tasks) == ((EFFECT,), ("tsk_1",))
    assert hello.isolation == IsolationStatus(state=IsolationState.ISOLATED)


async def test_the_list_of_open_tasks_is_bounded():
    """More open tasks than a frame may name are cut."""
    machine = Machine(tasks=[f"tsk_{n}" for n in range(MAX_OPEN_TASKS + 5)])
    assert len((await machine.about().hello("n")).open_tasks) == MAX_OPEN_TASKS


async def test_heartbeats_tell_the_inventory_only_when_it_changed():
    """An idle agent does not read its machine for every heartbeat, and repeats nothing."""
    machine = Machine()
    about = machine.about()
    await about.hello("n")
    assert (await about.heartbeat()).inventory is None
    machine.now = INVENTORY_SECONDS
    assert (await about.heartbeat()).inventory is None
    assert machine.looks == 2
    machine.hostname, machine.now = "web-02", 2 * INVENTORY_SECONDS
    beat = await about.heartbeat()
    assert beat.inventory is not None
    assert beat.inventory.hostname == "web-02"
    assert beat.effects == (EFFECT,)
    assert (await about.heartbeat()).inventory is None
