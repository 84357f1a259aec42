"""Containers in memory: the fake of `core.containers`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from stanch.core.containers import Container, ContainerState, Runtime, choose
from stanch.core.errors import TargetGone
from tests.fakes.life import Life


@dataclass
class FakeContainers:
    """Containers in a table; `add` them, and say which of them come back."""

    life: Life = field(default_factory=Life)
    table: dict[str, Container] = field(default_factory=dict)
    """By id."""
    protected: dict[str, str] = field(default_factory=dict)
    """Id to the reason."""
    restarting: dict[str, str] = field(default_factory=dict)
    """Id to who starts it anew, as soon as it has ended."""
    removed: set[str] = field(default_factory=set)
    """Ids of those that vanish when they end."""
    ways: list[Runtime] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    groups: int = 1000
    """The newest control group."""

    def add(self, name: str, **fields: Any) -> Container:
        """A container that runs, its id made of its name unless it is given."""
        self.groups += 1
        known = {"id": name.encode().hex().ljust(64, "0")[:64], "name": name, "runtime": "docker", "state": "running"}
        one = Container.model_validate(known | {"processes": 2, "pid": 4000, "cgroup_number": self.groups} | fields)
        self.table[one.id] = one
        return one

    async def list(self) -> Sequence[Container]:
        return list(self.table.values())

    async def runtimes(self) -> Sequence[Runtime]:
        return list(self.ways)

    async def find(self, name: str) -> Container | None:
        return choose(await self.list(), name)

    async def why_protected(self, one: Container) -> str | None:
        return self.protected.get(one.id)

    async def pause(self, one: Container) -> None:
        self._hold("pause", one, ContainerState.PAUSED)

    async def resume(self, one: Container) -> None:
        self._hold("resume", one, ContainerState.RUNNING)

    def _hold(self, what: str, one: Container, state: ContainerState) -> None:
        self.life.step(f"containers.{what} {one.name}")
        now = self.table.get(one.id)
        if now is None or not now.state.alive:
            raise TargetGone("The container does not run", got=one.name)
        self._change(one, state=state)

    async def kill(self, one: Container) -> None:
        self.life.step(f"containers.kill {one.name}")
        now = self.table.get(one.id)
        if now is None or not now.state.alive or not now.is_same_run(one):
            return
        self.killed.append(one.id)
        if one.id in self.restarting:
            self.groups += 1
            self._change(one, state=ContainerState.RUNNING, cgroup_number=self.groups)
        elif one.id in self.removed:
            del self.table[one.id]
        else:
            self._change(one, state=ContainerState.STOPPED, cgroup_number=0, pid=0, processes=0)

    def _change(self, one: Container, **fields: Any) -> None:
        self.table[one.id] = self.table[one.id].model_copy(update=fields)

    async def restarts(self, one: Container) -> str | None:
        return self.restarting.get(one.id)

    async def loses(self, one: Container) -> str | None:
        return "its runtime removes it, with its files" if one.id in self.removed else None

    async def started_anew(self, one: Container, *, within: timedelta) -> Container | None:
        now = self.table.get(one.id)
        return now if now is not None and now.state.alive and not now.is_same_run(one) else None
