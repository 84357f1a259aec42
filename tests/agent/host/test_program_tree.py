"""Is everybody below a process found, and nobody else signalled?"""

import os
import signal

from stanch.agent.host.program_tree import children, descendants, send, started
from tests.fakes.waiting import wait_until

TREE = """
import os, time
for _ in range(3):
    if os.fork():
        break
print('ready', flush=True)
time.sleep(1000)
"""


def test_all_descendants_are_found(child):
    """At any depth, each with its start time; the process itself is not among them."""
    process = child(TREE)
    wait_until(lambda: len(descendants(process.pid)) == 3)
    found = descendants(process.pid)
    assert process.pid not in found
    assert all(started(pid) == ticks > 0 for pid, ticks in found.items())
    assert found.items() <= descendants().items()
    assert process.pid in children()


def test_a_signal_reaches_exactly_whom_it_was_meant_for(child):
    """Not a later process with the same pid, and nobody for a pid that is free."""
    process = child("print('ready', flush=True); input()")
    send(process.pid, started(process.pid) + 1, signal.SIGKILL)
    send(2**22, 1, signal.SIGKILL)
    assert process.poll() is None
    send(process.pid, started(process.pid), signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert started(process.pid) == 0


def test_nobody_is_below_who_is_not_there():
    """A free pid has no children."""
    assert descendants(2**22) == {}
    assert os.getpid() not in children()
