"""The endpoint as it outlives the agent: fakes whose state is on the disk before every step, and the step that kills.

A step is a commit of the journal (just before, and just after) or a change of the endpoint (just before). The state is
saved at each, so that whatever was done up to a SIGKILL is what the next start of the agent finds, as on a machine.
"""

import asyncio
import io
import json
import os
import pickle
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.host import FakeEndpoint, Life

AGENTS_OWN = {"journal", "effects", "progress", "life", "task", "order", "origin", "settings"}
"""Parts of a fake endpoint that belong to the agent, and die with it."""

NOT_THE_ENDPOINT = {"server", "clock", "detections"}
"""What may differ between a run that was killed and one that was not: telling something twice does no harm."""

NOT_ITS_STATE = {"life", "clock", "files", "nodes", "processes", "here", "sent", "ordered", "read", "ended_early"}
"""Attributes of a part that are no state of it, or may differ, too: asking somebody twice to end does no harm."""


@dataclass
class KillingLife(Life):
    """A life whose every step may be the last."""

    folder: Path = Path()
    kill_at: int | None = None
    endpoint: FakeEndpoint | None = None
    taken: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """The journal has a thread of its own: its steps and the endpoint's may come at once."""

    def step(self, what: str) -> None:
        """Save the world, note the step, and die of it if it is the one."""
        assert self.endpoint is not None
        with self.turn:
            self.taken += 1
            save(self.folder, self.endpoint)
            with (self.folder / "steps").open("a") as file:
                file.write(what + "\n")
            if self.taken == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def change(self, what: str) -> None:
        """A step of the journal, told apart from those of the endpoint."""
        self.step(f"journal: {what}")


def endpoint_steps(folder: Path) -> list[str]:
    """Every change of the endpoint that was begun, by all agents that lived on it."""
    return [one for one in all_steps(folder) if not one.startswith("journal: ")]


def all_steps(folder: Path) -> list[str]:
    """Every step that was taken."""
    return (folder / "steps").read_text().splitlines()


def settle(endpoint: FakeEndpoint) -> dict[str, Any]:
    """The state of the endpoint, to be compared."""
    return {
        name: {key: repr(value) for key, value in vars(part).items() if key not in NOT_ITS_STATE}
        for name, part in parts(endpoint).items()
        if name not in NOT_THE_ENDPOINT
    }


def parts(endpoint: FakeEndpoint) -> dict[str, Any]:
    """The fakes that outlive the agent."""
    return {name: part for name, part in vars(endpoint).items() if name not in AGENTS_OWN}


def save(folder: Path, endpoint: FakeEndpoint) -> None:
    """Put the state of the endpoint on the disk."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(parts(endpoint))
    (folder / "world.new").write_bytes(buffer.getvalue())
    (folder / "world.new").replace(folder / "world")


def load(folder: Path, *, kill_at: int | None) -> tuple[FakeEndpoint, KillingLife]:
    """The endpoint as it was left, and the agent's new life on it."""
    life = KillingLife(folder=folder, kill_at=kill_at)
    endpoint = FakeEndpoint(life=life)
    life.endpoint = endpoint
    if (folder / "world").exists():
        vars(endpoint).update(_Unpickler(io.BytesIO((folder / "world").read_bytes()), life).load())
        # The kernel closes what a killed process had open.
        endpoint.files.is_open.clear()
    return endpoint, life


class _Pickler(pickle.Pickler):
    """Leaves the agent's life out of the world."""

    def persistent_id(self, obj: object) -> str | None:
        return "life" if isinstance(obj, Life) else "event" if isinstance(obj, asyncio.Event) else None


class _Unpickler(pickle.Unpickler):
    """Gives the world a new agent."""

    def __init__(self, file: io.BytesIO, life: Life) -> None:
        super().__init__(file)
        self._life = life

    def persistent_load(self, pid: str) -> object:
        return self._life if pid == "life" else asyncio.Event()


@dataclass
class Ended:
    """What a run that was not killed leaves behind."""

    states: list[str]
    """The final states that were reported, in order."""
    result: dict[str, Any] | None
    error: str | None
    notices: list[str]
    world: dict[str, Any]
    effects: list[Any]
    steps: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        (folder / "ended").write_text(json.dumps(vars(self)))

    @classmethod
    def read(cls, folder: Path) -> "Ended":
        return cls(**json.loads((folder / "ended").read_text()))
