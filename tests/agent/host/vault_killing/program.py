"""Runs something in a child that is killed, or watched, at its steps on the disk.

A step is whatever changes the disk or waits for it: Python tells of most of them itself (its audit events), fsync and
the one system call that it does not know are wrapped. The kill comes just before the step. SIGKILL does not lose what
the kernel holds: the order of the steps shows what a power cut would leave.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from stanch.agent.host import pinned

_CHANGES = {
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.removexattr",
    "os.rename",
    "os.rmdir",
    "os.setxattr",
    "os.symlink",
    "os.truncate",
    "os.utime",
}
_SET_FLAGS = 0x4008_6602

Run = Callable[[], Awaitable[object]]
Step = tuple[str, ...]


class Steps:
    """Counts steps, writes them down, and kills at one."""

    def __init__(self, tell: Callable[[Step], None], *, kill_at: int | None) -> None:
        self._tell = tell
        self._kill_at = kill_at
        self._count = 0

    def watch(self) -> None:
        """From now on. It cannot be undone: only in a child."""
        sys.addaudithook(self._hook)
        for module, name in ((os, "fsync"), (os, "mknod"), (pinned, "rename_without_replacing")):
            self._wrap(module, name)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "fcntl.ioctl" and arguments[1] == _SET_FLAGS):
            self._step((event, *map(_shown, arguments)))
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT:
            self._step(("create", _shown(arguments[0])))

    def _wrap(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            self._step((name, *map(_shown, arguments)))
            return real(*arguments, **more)

        setattr(module, name, wrapped)

    def _step(self, step: Step) -> None:
        self._count += 1
        if self._count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._tell(step)


def _shown(argument: object) -> str:
    """What a step was done to: the name of a file where there is a descriptor."""
    text = os.fsdecode(argument) if isinstance(argument, str | bytes) else str(argument)
    link = Path(f"/proc/self/fd/{text.removeprefix('/proc/self/fd/')}")
    try:
        return str(link.readlink())
    except (OSError, ValueError):
        return text


def killed_at(run: Run, step: int) -> bool:
    """Run it in a child that is killed just before a step; False if it ended before that."""
    child = os.fork()
    if child == 0:
        _child(run, Steps(lambda step: None, kill_at=step))
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed: see its traceback"
    return False


def steps_of(run: Run, notes: Path) -> list[Step]:
    """Its steps in their order, when nobody kills it."""
    child = os.fork()
    if child == 0:
        out = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _child(run, Steps(lambda step: _note(out, step), kill_at=None))
    assert os.waitpid(child, 0)[1] == 0, "the child failed: see its traceback"
    return [tuple(line.split("\0")) for line in notes.read_text(errors="surrogateescape").splitlines()]


def _note(out: int, step: Step) -> None:
    os.write(out, os.fsencode("\0".join(step).replace("\n", " ") + "\n"))


def _child(run: Run, steps: Steps) -> None:
    """Never returns: what the test's process had to do at its end is not the child's."""
    try:
        steps.watch()
        asyncio.run(run())  # type: ignore[arg-type]  # a coroutine function's
    except BaseException:  # noqa: BLE001 - whatever it was, the parent must see it
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
