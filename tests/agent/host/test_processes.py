"""Is exactly the process that was meant stopped or ended, and its whole tree, however it fights back?"""

import asyncio
import hashlib
import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.kill_process import KillProcess, kill_process
from stanch.agent.host import pidfds
from stanch.agent.host import processes as module
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses, in_tree_order
from stanch.agent.host.procfs import Stat, pids, read_stat, read_threads
from stanch.core.errors import Protected, TargetGone, Unsupported
from stanch.core.processes import Detail, Process, ProcessId
from stanch.core.types import seconds
from tests.fakes.host import fake_host
from tests.fakes.programs import MAIN_THREAD_ENDS

WAITS = "print('ready', flush=True); input()"

FORKS = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.write(1, b'ready\\n')
for _ in range(100_000):
    if os.fork() == 0:
        time.sleep(0.002)
        os._exit(0)
"""
"""Forks as fast as it can; its children are short-lived."""

RESPAWNS = """
import os, time

def live(depth, fresh):
    if fresh and depth == 0:
        os.write(1, b'ready\\n')
    while True:
        child = os.fork() if depth else 0
        if child == 0:
            return live(depth - 1, fresh) if depth else time.sleep(1000)
        os.waitpid(child, 0)
        fresh = False

live(3, True)
"""
"""A chain of four; each replaces its child as soon as that has ended."""


@pytest.fixture
def processes():
    """The processes of the namespace that the tests run in; they touch only children of their own."""
    return LinuxProcesses(Namespace.current("pid"), groups=nowhere)


def nowhere():
    """No control groups: those of the machine are not ours."""


def identity(pid):
    return ProcessId(pid=pid, started=read_stat(pid).started)


def state(process):
    return read_stat(process.pid).state


def open_descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


# --- listing ---------------------------------------------------------------------------------------------------------


async def test_lists_everything_in_tree_order(processes, child):
    """Parents come before their children, which are one deeper; our child stands below us."""
    mine = child(WAITS)
    rows = await processes.list()
    at = {row.pid: number for number, row in enumerate(rows)}
    assert len(at) == len(rows)
    for row in rows:
        if row.depth:
            assert at[row.parent] < at[row.pid]
            assert rows[at[row.parent]].depth == row.depth - 1
    assert rows[at[mine.pid]].parent == os.getpid()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_no_process_is_lost_however_odd_the_tree(parents):
    """Missing parents and circles, as a look at a changing tree gives them, hide nobody and repeat nobody."""
    rows = [row(pid, parent) for pid, parent in enumerate(parents, start=1)]
    ordered = in_tree_order(rows)
    assert sorted(one.pid for one in ordered) == [one.pid for one in rows]
    for before, one in pairwise(ordered):
        assert one.depth <= before.depth + 1


def row(pid, parent):
    return Process(
        pid=pid, parent=parent, started=pid, user="u", name="n", executable=None, arguments="", state="S", memory=0
    )


def sha256_of(pid):
    return hashlib.sha256(Path(f"/proc/{pid}/exe").read_bytes()).hexdigest()


async def test_details_are_listed_in_tree_order(processes, child):
    """The same rows, with the hash of each program that can be read."""
    mine = child(WAITS)
    rows = await processes.list(details=[Detail.HASH])
    (found,) = [one for one in rows if one.pid == mine.pid]
    assert found.sha256 == sha256_of(mine.pid)
    assert found.depth == next(one.depth for one in rows if one.pid == os.getpid()) + 1
    assert await processes.detailed([found], [Detail.HASH]) == [found]


async def test_finds_a_process_by_its_pid(processes, child):
    """What `find` says is what the list says."""
    mine = child(WAITS)
    found = await processes.find(mine.pid)
    assert found.id == identity(mine.pid)
    assert found.parent == os.getpid()


async def test_the_number_of_a_thread_is_no_process(processes, child):
    """A number that only a thread has finds nothing, though /proc knows it."""
    threads = child(
        "import threading, time; thread = threading.Thread(target=time.sleep, args=(100,)); thread.start()\n"
        "print('ready', flush=True)"
    )
    (other,) = {thread.pid for thread in read_threads(threads.pid)} - {threads.pid}
    assert read_stat(other) is not None
    assert await processes.find(other) is None


async def test_finds_nobody(processes):
    """A pid that nobody has is None."""
    assert await processes.find(4_194_304) is None


# --- identity --------------------------------------------------------------------------------------------------------


async def test_a_zombie_does_not_live(processes, child):
    """A process that has ended is not alive, whether its parent has asked for its status or not."""
    mine = child(WAITS)
    one = identity(mine.pid)
    assert await processes.alive(one)
    assert await processes.kill(one)
    assert await processes.wait_gone([one], within=seconds(20)) == ()
    assert state(mine) == "Z"
    assert not await processes.alive(one)
    assert not await processes.kill(one)
    mine.wait(20)
    assert not await processes.alive(one)


async def test_a_process_that_only_looks_like_a_zombie_lives_and_can_be_ended(processes, child):
    """When the main thread has ended and another goes on, the process is alive until it is killed."""
    hidden = child(
        MAIN_THREAD_ENDS,
        until=lambda pid: read_stat(pid).state == "Z",
    )
    one = identity(hidden.pid)
    assert await processes.alive(one)
    assert await processes.kill(one)
    assert await processes.wait_gone([one], within=seconds(20)) == ()


async def test_a_later_process_with_the_same_pid_is_never_hit(processes, child):
    """With another start time, no signal reaches whoever has the pid now."""
    mine = child(WAITS)
    earlier = ProcessId(pid=mine.pid, started=identity(mine.pid).started - 1)
    assert not await processes.alive(earlier)
    assert not await processes.stop(earlier)
    assert not await processes.kill(earlier)
    assert not await processes.resume(earlier)
    assert await processes.wait_gone([earlier], within=seconds(20)) == ()
    assert await processes.why_protected(earlier) is None
    assert mine.poll() is None


# --- signals ---------------------------------------------------------------------------------------------------------


async def test_stops_and_resumes(processes, child):
    """A stopped process stands still when `stop` comes back, and runs again after `resume`."""
    mine = child(WAITS)
    one = identity(mine.pid)
    assert await processes.stop(one)
    assert state(mine) == "T"
    assert await processes.resume(one)
    mine.communicate(b"\n", timeout=20)
    assert mine.returncode == 0


async def test_a_stopped_process_forks_no_more(processes, child):
    """After `stop`, the youngest pid of a process that forks all the time stays the same."""
    forker = child(FORKS)
    for _ in range(20):
        assert await processes.stop(identity(forker.pid))
        before = [one.pid for one in await processes.list() if one.parent == forker.pid]
        after = [one.pid for one in await processes.list() if one.parent == forker.pid]
        assert set(after) <= set(before)
        assert await processes.resume(identity(forker.pid))


async def test_says_who_has_not_ended(processes, child):
    """Waiting ends at its time with those that still run, over several batches."""
    ones = [identity(child(WAITS).pid) for _ in range(5)]
    batch, pidfds.BATCH = pidfds.BATCH, 2
    try:
        await processes.kill(ones[0])
        await processes.kill(ones[3])
        assert await processes.wait_gone([ones[0], ones[3]], within=seconds(20)) == ()
        assert await processes.wait_gone(ones, within=seconds(0.05)) == (ones[1], ones[2], ones[4])
    finally:
        pidfds.BATCH = batch


async def test_waiting_can_be_cancelled(processes, child):
    """A wait for a process that does not end gives way at once, and closes what it held."""
    mine = child(WAITS)
    before = open_descriptors()
    waiting = asyncio.create_task(processes.wait_gone([identity(mine.pid)], within=seconds(1000)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert open_descriptors() == before


# --- protection ------------------------------------------------------------------------------------------------------


async def test_init_ourselves_and_our_ancestors_are_protected(processes):
    """Each has its own reason."""
    assert "init" in await processes.why_protected(identity(1))
    assert "Stanch's agent" in await processes.why_protected(identity(os.getpid()))
    if os.getppid() != 1:
        assert "started Stanch's agent" in await processes.why_protected(identity(os.getppid()))


async def test_a_child_of_the_supervisor_is_protected_and_another_process_is_not(child):
    """The parts of Stanch stand side by side below the supervisor."""
    mine = identity(child(WAITS).pid)
    assert await LinuxProcesses(Namespace.current("pid")).why_protected(mine) is None
    supervised = LinuxProcesses(Namespace.current("pid"), supervisor=os.getpid())
    assert "part of Stanch" in await supervised.why_protected(mine)


def test_kernel_threads_are_protected(processes):
    """Whatever its parent is."""
    thread = Stat(pid=9, name=b"k", state="I", parent=2, kernel_thread=True, threads=1, started=5, memory=0)
    assert "kernel" in processes._why_protected(thread)


@pytest.mark.parametrize("call", ["stop", "resume", "kill", "alive", "why_protected"])
async def test_another_namespace_is_refused(child, call):
    """Bound to another pid namespace, nothing is done to a process that has this pid here."""
    mine = child(WAITS)
    elsewhere = LinuxProcesses(Namespace(kind="pid", device=0, inode=1))
    with pytest.raises(Protected, match="another pid namespace"):
        await getattr(elsewhere, call)(identity(mine.pid))
    assert state(mine) != "T"
    assert mine.poll() is None


async def test_the_proc_of_another_namespace_is_refused(processes, tmp_path, monkeypatch):
    """Where /proc shows other processes than ours, its pids mean nothing here."""
    (tmp_path / "self").symlink_to("4711")
    monkeypatch.setattr(module, "PROC", tmp_path)
    with pytest.raises(Unsupported, match="mount -t proc"):
        await processes.list()


# --- a whole tree, with the action itself ----------------------------------------------------------------------------


def group(process):
    """Every process of the child's session that has not ended."""
    found = []
    for pid in pids():
        with suppress(ProcessLookupError):
            stat = read_stat(pid)
            if os.getsid(pid) == process.pid and stat is not None and stat.state != "Z":
                found.append(pid)
    return found


async def test_a_tree_that_respawns_is_ended(processes, child):
    """Each process of a chain replaces its child at once; none is left afterwards."""
    chain = child(RESPAWNS)
    assert len(group(chain)) == 4
    killed = await kill_process.run(fake_host(processes=processes), KillProcess(pid=chain.pid, watch=None))
    assert len(killed.processes) == 4
    assert killed.processes[0].pid == chain.pid
    assert group(chain) == []


async def test_a_tree_that_grows_is_ended(processes, child):
    """A process that forks all the time is ended with all that it has made."""
    forker = child(FORKS)
    one = identity(forker.pid)
    killed = await kill_process.run(
        fake_host(processes=processes), KillProcess(pid=one.pid, started=one.started, watch=None)
    )
    assert killed.processes[0] == one
    assert group(forker) == []


async def test_without_the_tree_only_one_is_ended(processes, child):
    """With `tree` off, the children live on."""
    chain = child(RESPAWNS)
    await kill_process.run(fake_host(processes=processes), KillProcess(pid=chain.pid, tree=False, watch=None))
    assert len(group(chain)) == 3


async def test_the_action_refuses_a_pid_that_was_given_away(processes, child):
    """The order named another process: it is gone, and whoever has its pid lives."""
    mine = child(WAITS)
    with pytest.raises(TargetGone, match="another one by now"):
        await kill_process.run(fake_host(processes=processes), KillProcess(pid=mine.pid, started=1))
    assert mine.poll() is None


async def test_a_tree_with_a_part_of_stanch_is_refused_and_goes_on(child):
    """One protected process in a tree saves all of it, and none stays stopped."""
    chain = child(RESPAWNS)
    supervised = LinuxProcesses(Namespace.current("pid"), supervisor=chain.pid, groups=nowhere)
    with pytest.raises(Protected, match="part of Stanch"):
        await kill_process.run(fake_host(processes=supervised), KillProcess(pid=chain.pid, watch=None))
    assert len(group(chain)) == 4
    assert "T" not in {read_stat(pid).state for pid in group(chain)}
