"""Does a descriptor mean exactly one process, and is waiting for many bounded and left clean?"""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from stanch.agent.host import pidfds
from stanch.agent.host.procfs import read_stat
from stanch.core.errors import ActionFailed, Unsupported
from stanch.core.processes import ProcessId
from tests.fakes.waiting import wait_until

WAITS = "print('ready', flush=True); input()"


def identity(process):
    return ProcessId(pid=process.pid, started=read_stat(process.pid).started)


def open_descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


def test_a_process_is_held_as_long_as_it_is_that_one(child):
    """Not another one with its pid, and not one that has ended."""
    mine = child(WAITS)
    one = identity(mine)
    before = open_descriptors()
    with pidfds.hold(one) as held:
        assert not pidfds.has_ended(held)
    with pidfds.hold(ProcessId(pid=one.pid, started=one.started + 1)) as held:
        assert held is None
    assert pidfds.send(one, signal.SIGKILL)
    wait_until(lambda: read_stat(mine.pid).state == "Z")
    with pidfds.hold(one) as held:
        assert held is None
    assert not pidfds.send(one, signal.SIGKILL)
    assert open_descriptors() == before


async def test_waiting_goes_over_several_batches(child, monkeypatch):
    """Those that have not ended in time are told, in order."""
    monkeypatch.setattr(pidfds, "BATCH", 2)
    ones = [identity(child(WAITS)) for _ in range(5)]
    for one in (ones[0], ones[3]):
        pidfds.send(one, signal.SIGKILL)
    loop = asyncio.get_running_loop()
    assert await pidfds.wait_gone([ones[0], ones[3]], loop.time() + 20) == ()
    before = open_descriptors()
    assert await pidfds.wait_gone(ones, loop.time()) == (ones[1], ones[2], ones[4])
    assert open_descriptors() == before


async def test_who_is_stopped_stands_still(child):
    """When `stop` comes back."""
    mine = child(WAITS)
    assert await pidfds.stop(identity(mine))
    assert read_stat(mine.pid).state == "T"
    assert not await pidfds.stop(ProcessId(pid=mine.pid, started=1))


@pytest.mark.parametrize(("number", "error"), [(38, Unsupported), (24, ActionFailed)])
def test_what_the_kernel_refuses_is_told(monkeypatch, number, error):
    """No pidfds at all, or no more descriptors."""

    def refuse(_pid):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(error), pidfds.pidfd_of(1):
        pass


def test_a_signal_that_is_not_allowed_is_an_error_with_what_it_takes(child, monkeypatch):
    """Without root, a process of another account takes none."""
    mine = child(WAITS)

    def refuse(_pidfd, _number):
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with pytest.raises(ActionFailed, match="CAP_KILL"):
        pidfds.send(identity(mine), signal.SIGTERM)
