"""Notices that processes are started, or begin to run another program, without asking each of them all the time.

The kernel tells the number that it gave last, to a process or thread, in /proc/loadavg: while it stays the same, nobody
was born. Only those born since are asked what they run, because a process is born with the program of its parent.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from stanch.agent.host.procfs import PROC, pids, read_stat

EVERY = 0.05
"""Seconds between two looks."""

MAX_YOUNG = 1000
"""Young processes that are asked what they run, the youngest."""

_MAX_LOADAVG = 200


async def births(*, within: timedelta) -> AsyncIterator[None]:
    """Comes back at once, and then each time that somebody was born or has begun to run another program."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within.total_seconds()
    watch = _Watch()
    await asyncio.to_thread(watch.look)
    yield
    while (left := deadline - loop.time()) > 0:
        await asyncio.sleep(min(EVERY, left))
        if await asyncio.to_thread(watch.look):
            yield


@dataclass(slots=True)
class _Watch:
    """What was seen at the last look."""

    last: int = 0
    known: dict[int, int] = field(default_factory=dict)
    """Pid to start time."""
    young: dict[int, str] = field(default_factory=dict)
    """Pid of those born since the first look to what they run."""

    def look(self) -> bool:
        """Has anything changed since the last look?"""
        last, first = last_pid(), not self.known
        born = self._born() if first or not last or last != self.last else {}
        self.last = last
        runs = {pid: _program(pid) for pid in ([] if first else list(self.young | born)[-MAX_YOUNG:])}
        changed = runs.items() - self.young.items() if not first else set()
        self.young = {pid: program for pid, program in runs.items() if program}
        return bool(born) or any(program for _pid, program in changed)

    def _born(self) -> dict[int, str]:
        now = {pid: stat.started for pid in pids() if (stat := read_stat(pid)) is not None}
        born = dict.fromkeys((pid for pid, started in now.items() if self.known.get(pid) != started), "")
        self.known = now
        return born


def last_pid() -> int:
    """The number that was given last in this pid namespace; 0 if it cannot be told."""
    with suppress(OSError, IndexError, ValueError):
        file = os.open(PROC / "loadavg", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(file, _MAX_LOADAVG).split()[-1])
        finally:
            os.close(file)
    return 0


def _program(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"{PROC}/{pid}/exe")  # noqa: PTH115 - a link of the kernel, not a path
    return ""
