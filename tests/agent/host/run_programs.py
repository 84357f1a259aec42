"""What the tests of running programs share: a task of their own, programs to run, and the look at what is left."""

import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from stanch.agent.host.marks import of_task
from stanch.agent.host.procfs import read_stat
from stanch.agent.host.program_tree import send
from stanch.agent.host.programs import LinuxPrograms
from stanch.core.processes import ProcessId
from stanch.core.programs import Exit, Output, Program
from stanch.core.types import EndpointPath, seconds
from tests.fakes.waiting import PATIENCE

PYTHON = EndpointPath(sys.executable)

DETACHES = """
import os, signal, sys
if os.fork():
    os.wait()
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for stream in range(3):
    os.close(stream)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.execve('/bin/sleep', ['quiet', '1000'], {})
"""
"""Forks twice, begins a session, closes its streams, ignores SIGTERM, and clears its environment."""


def python(code: str, *words: str, **more) -> Program:
    """A Python program to run."""
    return Program(path=PYTHON, arguments=("-I", "-S", "-c", code, *words), **more)


def shell(line: str, **more) -> Program:
    """A line for the shell to run."""
    return Program(path=EndpointPath("/bin/sh"), arguments=("-c", line), **more)


def runs(one: ProcessId) -> bool:
    """Is it there, and no zombie?"""
    stat = read_stat(one.pid)
    return stat is not None and stat.started == one.started and stat.state not in "ZX"


def now(pid: int) -> ProcessId:
    """The process that has this pid."""
    stat = read_stat(pid)
    assert stat is not None
    return ProcessId(pid=pid, started=stat.started)


@dataclass(frozen=True)
class Ended:
    """A program that has run to its end."""

    one: ProcessId
    exit: Exit
    out: Output
    err: Output


@dataclass
class World:
    """A task that may run programs."""

    programs: LinuxPrograms

    @property
    def task(self) -> str:
        return self.programs.task

    @property
    def spool(self) -> Path:
        return self.programs.spool

    def left(self) -> tuple[ProcessId, ...]:
        """What the task has running."""
        return of_task(self.task)

    @asynccontextmanager
    async def begun(self, program: Program):
        """Run it, and let it begin."""
        async with self.programs.run(program) as running:
            await running.begin()
            yield running

    async def run(self, program: Program) -> Ended:
        """Run it to its end."""
        async with self.begun(program) as running:
            exit_ = await running.wait(within=seconds(PATIENCE))
            assert exit_ is not None, "it does not end"
            return Ended(running.id, exit_, running.stdout(), running.stderr())


@contextmanager
def new_world(folder: Path, **more) -> Iterator[World]:
    """A task of its own, nothing of which is left afterwards."""
    made = World(LinuxPrograms(task=f"tsk_{token_hex(8)}", spool=folder / "spool", **more))
    yield made
    for one in made.left():
        send(one.pid, one.started, 9)
