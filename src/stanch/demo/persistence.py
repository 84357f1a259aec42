"""The demo's harmless persistence: a cron of its own, and a tree of processes that comes back. Standard library only.

`cron` starts what the lines of a crontab say, again and again, as cron does, only every fifth of a second. `tree` is
what an attacker would let it start: a root with many children, which replaces each child that ends and is replaced by
its children if it ends itself. It makes no more than a few thousand processes in all, whatever is done to it.
"""

import argparse
import mmap
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

CRON_SECONDS = 0.2
WATCH_SECONDS = 0.02
MOST_FORKS = 5000
FIELDS = 5
"""When a line is due; this cron finds that everything is due."""


def commands(crontab: Path) -> Iterator[list[str]]:
    """The command of each line that says one."""
    with suppress(OSError):
        for line in crontab.read_text().splitlines():
            words = line.split(maxsplit=FIELDS)
            if not line.lstrip().startswith("#") and len(words) > FIELDS:
                yield shlex.split(words[FIELDS])


def cron(crontab: Path) -> NoReturn:
    """Keep everything running that the crontab names."""
    running: dict[tuple[str, ...], int] = {}
    while True:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                running = {command: pid for command, pid in running.items() if pid != ended}
        for command in commands(crontab):
            if tuple(command) not in running:
                running[tuple(command)] = os.posix_spawn(command[0], command, dict(os.environ), setsid=True)
        time.sleep(CRON_SECONDS)


class Tree:
    """The tree; all of it counts its forks in one page that it shares."""

    def __init__(self, children: int) -> None:
        self._children = children
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def root(self) -> NoReturn:
        """Have as many children as there should be."""
        name("updater")
        living: set[int] = set()
        while True:
            while len(living) < self._children:
                living.add(self._fork(self.child))
            with suppress(ChildProcessError):
                living.discard(os.waitpid(-1, os.WNOHANG)[0])
            time.sleep(WATCH_SECONDS)

    def child(self) -> NoReturn:
        """Watch the root, and become it when it ends."""
        name("updater-child")
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        with suppress(OSError):
            os.setsid()
        self.root()

    def _fork(self, run: Callable[[], NoReturn]) -> int:
        forks = int.from_bytes(self._page[:8], "little") + 1
        if forks > MOST_FORKS:
            raise SystemExit("this is harmless, and enough")
        self._page[:8] = forks.to_bytes(8, "little")
        child = os.fork()
        if child == 0:
            run()
        return child


def name(text: str) -> None:
    """Take a short name in the process table."""
    Path("/proc/self/comm").write_text(text)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Be one of the two."""
    parser = argparse.ArgumentParser(description="Harmless persistence for the demo.")
    parser.add_argument("--crontab", type=Path, help="be the cron that reads this")
    parser.add_argument("--children", type=int, default=20, help="be a tree of so many")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if chosen.crontab is not None:
        name("cron")
        print("ready", flush=True)  # noqa: T201 - whoever starts it waits for this
        cron(chosen.crontab)
    Tree(chosen.children).root()


if __name__ == "__main__":
    main(sys.argv[1:])
