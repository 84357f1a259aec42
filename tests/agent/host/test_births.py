"""Is every birth, and every change of program, noticed, and is nothing else?"""

import asyncio
from contextlib import aclosing

import pytest

from stanch.agent.host import births as module
from stanch.agent.host.births import births, last_pid
from stanch.core.types import minutes, seconds
from tests.fakes.waiting import PATIENCE, wait_until

EXECS_ON_DEMAND = "import os; print('ready', flush=True); input(); os.execvp('cat', ['cat'])"


async def test_it_comes_back_at_once_and_ends_in_time():
    """Whoever asks looks once more after the watch has begun, so that nobody slips in between."""
    seen = [one async for one in births(within=seconds(0.001))]
    assert seen


async def test_a_birth_is_noticed(child):
    """While somebody waits."""
    async with aclosing(births(within=minutes(5))) as found, asyncio.timeout(PATIENCE):
        await anext(found)
        await asyncio.to_thread(child, "print('ready', flush=True); input()")
        await anext(found)


def test_another_program_is_noticed(child):
    """A process is born with the program of its parent, and begins to run its own a moment later."""
    watch = module._Watch()
    watch.look()
    mine = child(EXECS_ON_DEMAND)
    assert watch.look()
    before = watch.young[mine.pid]
    mine.stdin.write(b"\n")
    mine.stdin.flush()
    wait_until(lambda: module._program(mine.pid) != before)
    assert watch.look()
    assert watch.young[mine.pid].endswith("cat")


def test_where_nobody_is_born_nothing_is_noticed(monkeypatch):
    """While the last number stays the same, nobody is even asked."""
    monkeypatch.setattr(module, "last_pid", lambda: 77)
    watch = module._Watch()
    assert watch.look()
    monkeypatch.setattr(module, "pids", pytest.fail)
    assert not watch.look()


def test_without_the_last_number_everybody_is_asked(monkeypatch, child):
    """A kernel that does not tell it costs time, and hides nobody."""
    monkeypatch.setattr(module, "last_pid", lambda: 0)
    watch = module._Watch()
    watch.look()
    mine = child("print('ready', flush=True); input()")
    assert watch.look()
    assert mine.pid in watch.young


@pytest.mark.parametrize(("text", "last"), [("0.1 0.2 0.3 1/80 4711\n", 4711), ("", 0), ("0.1 x\n", 0)])
def test_the_last_number_is_read(tmp_path, monkeypatch, text, last):
    """0 if it cannot be told."""
    monkeypatch.setattr(module, "PROC", tmp_path)
    assert last_pid() == 0
    (tmp_path / "loadavg").write_text(text)
    assert last_pid() == last
