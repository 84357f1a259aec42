"""Processes that a test may do anything to, ended with all their descendants afterwards; and a look at tables."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stanch.agent.host.cgroups import hierarchy
from stanch.agent.host.owner import Looking
from stanch.agent.host.pen import Groups
from stanch.core.errors import Unsupported
from tests.fakes.waiting import PATIENCE, wait_until


@pytest.fixture
def child():
    """Start a Python program that prints `ready` (or a command), and come back when it has, and `until` holds."""
    started = []

    def start(program, *arguments, command=None, until=lambda _pid: True):
        process = subprocess.Popen(
            command or [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        if command is None:
            assert select.select([process.stdout], [], [], PATIENCE)[0], "the child said nothing"
            process.stdout.readline()
        wait_until(lambda: until(process.pid))
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def looking() -> Iterator[Looking]:
    """A connection for looking at tables, opened where it is first used."""
    made = Looking()
    yield made
    made.close()


@pytest.fixture
def groups() -> Iterator[Groups]:
    """A control group below which pens are made, with nobody in it; gone afterwards. For tests marked `root`."""
    try:
        root = hierarchy().root
    except Unsupported as error:
        pytest.skip(str(error))
    mine = root / f"stanch-test-{os.getpid()}"
    mine.mkdir()
    yield Groups(root=root, parent=mine)
    wait_until(lambda: _removed(mine))


def _removed(group: Path) -> bool:
    inside = sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True)
    for one in (*inside, group):
        with suppress(OSError):
            (one / "cgroup.kill").write_text("1")
        with suppress(OSError):
            one.rmdir()
    return not group.exists()
