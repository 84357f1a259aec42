"""Processes that a test may do anything to, ended with all their descendants afterwards; and a look at tables."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from stanch.agent.host.owner import Looking
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
