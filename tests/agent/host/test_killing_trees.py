"""Do real trees that fight back end, and stay dead: with a frozen control group, and by signals where there is none?

The action itself on the real processes of Linux. All of a test's programs stand below a child of the test that inherits
and reaps the orphans, and end by themselves after a minute.
"""

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from stanch.actions.kill_process import KillProcess, kill_process
from stanch.actions.suspend_process import ResumeProcess, SuspendProcess, resume_process, suspend_process
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.agent.host.procfs import pids, read_stat
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, TargetGone
from stanch.core.processes import ProcessId, Signal
from tests.fakes.host import FakeEndpoint
from tests.fakes.programs import MAIN_THREAD_ENDS
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.root

REAPER = """
import ctypes, os, signal, sys
signal.alarm(60)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)      # orphans below it become its children
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    signal.alarm(60)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
print('ready', flush=True)
while True:
    signal.pause()
"""

RESPAWNING = """
import os, signal, time

def live(children, depth):
    signal.alarm(60)
    def start():
        if os.fork() == 0:
            live(24, depth - 1) if depth > 1 else (signal.alarm(60), time.sleep(1000))
    for _ in range(children):
        start()
    while True:
        os.wait()
        start()

live(8, 2)
"""
"""201 processes: each of the upper 9 replaces a child at once."""

ORPHANING = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def leave(_number, _frame):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.alarm(60)
                time.sleep(1000)
            os._exit(0)

signal.signal(signal.SIGUSR1, leave)
while True:
    time.sleep(1000)
"""
"""Makes three orphans, each in a session of its own, when it is told to."""

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"

CHAIN = """[ "$2" -gt 0 ] || exit 0
sleep 0.01
"$1" "$0" "$1" $(($2 - 1)) &
"""
"""A program that lives for a moment, and starts itself anew before it ends; 30,000 times at most."""

TRACING = """
import ctypes, os, signal, time
libc, pid = ctypes.CDLL(None), os.fork()
signal.alarm(60)
if pid == 0:
    signal.alarm(60)
    libc.ptrace(0, 0, 0, 0)                  # by whoever started it
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1000)
os.waitpid(pid, 0)
libc.ptrace(7, pid, 0, 0)                    # let it go on, and from now on with each signal that it gets
while True:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        break
    libc.ptrace(7, pid, 0, os.WSTOPSIG(status))
"""
"""Traces its child, and passes every signal on."""

KEEPER = """
n=0
while [ "$n" -lt "$2" ]; do
    "$1" -c 'sleep 60; true'
    n=$((n + 1))
done
sleep 61
"""
"""Starts a program again as soon as it has ended, so many times."""


@pytest.fixture(params=["group", "signals"])
def processes(request):
    """Both ways of holding still."""
    groups = request.getfixturevalue("groups") if request.param == "group" else None
    return LinuxProcesses(Namespace.current("pid"), groups=lambda: groups)


@pytest.fixture
def endpoint(processes):
    """An endpoint whose processes are real."""
    made = FakeEndpoint()
    made.processes = processes
    return made


@pytest.fixture
def shell(tmp_path):
    """A shell of a test's own, with a content of its own: whoever runs it is meant, and nobody else on the machine."""
    path = tmp_path / "bad"
    shutil.copy("/bin/sh", path)
    with path.open("ab") as file:
        file.write(os.urandom(32))
    return path


@pytest.fixture
def under_reaper(child):
    """Start a command below a process that inherits what is orphaned; the reaper, and those below it that run."""

    def start(*command):
        reaper = child(REAPER, *map(str, command))
        wait_until(lambda: below(reaper.pid))
        return reaper

    return start


def stats():
    return {one: stat for one in pids() if (stat := read_stat(one)) is not None}


def below(pid):
    """Everybody below it that has not ended."""
    known, found = stats(), {pid}
    while more := {one for one, stat in known.items() if stat.parent in found} - found:
        found |= more
    return sorted(one for one in found - {pid} if known[one].state not in "ZX")


def children(pid):
    return [one for one, stat in stats().items() if stat.parent == pid and stat.state not in "ZX"]


def identity(pid):
    return ProcessId(pid=pid, started=read_stat(pid).started)


async def kill(endpoint, **order):
    params = KillProcess.model_validate({"watch": None, **order})
    result = await kill_process.run(endpoint.host, params)
    check = await kill_process.verify(endpoint.host, params, result)
    assert check.verdict is Verdict.IN_PLACE, check.detail
    return result


# --- trees -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_tree_of_200_that_respawns_is_ended(endpoint, under_reaper):
    """Whoever is ended would be replaced at once by its parent: none is left."""
    reaper = under_reaper(sys.executable, "-c", RESPAWNING)
    wait_until(lambda: len(below(reaper.pid)) == 201)
    result = await kill(endpoint, pid=children(reaper.pid)[0])
    assert below(reaper.pid) == []
    assert len(result.processes) >= 201


async def test_what_leaves_the_tree_while_it_is_held_is_ended(endpoint, processes, under_reaper, monkeypatch):
    """Orphans in sessions of their own, born after the first look, are known by their looks."""
    reaper = under_reaper(sys.executable, "-c", ORPHANING)
    root = children(reaper.pid)[0]
    wait_until(lambda: int(_field(root, "SigCgt"), 16) & 1 << signal.SIGUSR1 - 1)
    first = processes.list

    async def list_and_fork(**details):
        rows = await first(**details)
        monkeypatch.setattr(processes, "list", first)
        assert await processes.send(identity(root), Signal.USR1)
        wait_until(lambda: len(children(reaper.pid)) == 4)
        return rows

    monkeypatch.setattr(processes, "list", list_and_fork)
    result = await kill(endpoint, pid=root)
    assert below(reaper.pid) == []
    assert len(result.processes) == 4


def _field(pid, name):
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next(value.strip() for key, _, value in lines if key == name)


async def test_a_chain_that_forks_and_leaves_is_ended_by_its_path(endpoint, under_reaper, shell, tmp_path):
    """Each lives for a moment only, an orphan of an orphan: the one that lives now is found, and has no heir."""
    script = tmp_path / "chain.sh"
    script.write_text(CHAIN)
    reaper = under_reaper(shell, script, shell, 30_000)
    result = await kill(endpoint, path=str(shell))
    assert below(reaper.pid) == []
    assert result.processes


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(endpoint, under_reaper):
    """And one that heeds it is not."""
    deaf = under_reaper(sys.executable, "-c", DEAF)
    pid = children(deaf.pid)[0]
    wait_until(lambda: int(_field(pid, "SigIgn"), 16) & 1 << signal.SIGTERM - 1)
    await kill(endpoint, pid=pid, signal="term", grace=1)
    assert below(deaf.pid) == []
    heeds = under_reaper("/bin/sleep", "1000")
    wait_until(lambda: read_stat(children(heeds.pid)[0]).name == b"sleep")
    result = await kill(endpoint, pid=children(heeds.pid)[0], signal="term", grace=60)
    assert below(heeds.pid) == []
    assert [one.name for one in result.ended] == ["sleep"]


async def test_one_whose_main_thread_has_ended_is_ended(endpoint, child):
    """It looks like a zombie, and runs."""
    hidden = child(MAIN_THREAD_ENDS, until=lambda pid: read_stat(pid).state == "Z")
    result = await kill(endpoint, pid=hidden.pid)
    assert [one.pid for one in result.processes] == [hidden.pid]
    assert hidden.wait(20) == -signal.SIGKILL


async def test_a_zombie_is_told_as_one(endpoint, child):
    """There is nothing to end."""
    mine = child("print('ready', flush=True); input()")
    mine.stdin.close()
    wait_until(lambda: read_stat(mine.pid).state == "Z")
    with pytest.raises(TargetGone, match="zombie"):
        await kill(endpoint, pid=mine.pid)


async def test_a_pid_that_was_given_away_between_plan_and_run_is_not_hit(endpoint, child):
    """The plan named one, and another has its pid when the order runs."""
    mine = child("print('ready', flush=True); input()")
    with pytest.raises(TargetGone, match="another one by now"):
        await kill(endpoint, pid=mine.pid, started=identity(mine.pid).started - 1)
    assert mine.poll() is None


# --- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["path", "deleted", "sha256", "md5"])
async def test_whoever_runs_a_program_is_ended(endpoint, under_reaper, shell, way):
    """By its path, also if it was deleted; by its hash, which is taken of what runs."""
    content = shell.read_bytes()
    reaper = under_reaper(shell, "-c", "sleep 60; true")
    wait_until(lambda: len(below(reaper.pid)) == 2)
    if way != "path":
        shell.unlink()
    hashes = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
    order = {way: hashes[way]} if way in hashes else {"path": str(shell)}
    result = await kill(endpoint, **order)
    assert below(reaper.pid) == []
    assert len(result.processes) == 2
    assert result.ended[0].executable.removesuffix(" (deleted)") == str(shell)


async def test_what_a_task_has_started_is_ended(endpoint, under_reaper):
    """By the mark that all of it carries, an orphan too; who carries none lives."""
    reaper = under_reaper(
        "/bin/sh", "-c", "STANCH_TASK=tsk_trees sh -c '(sleep 60 &) ; sleep 60; true' & sleep 62; true"
    )
    wait_until(lambda: len(below(reaper.pid)) == 5 and len(children(reaper.pid)) == 2)
    result = await kill(endpoint, task="tsk_trees")
    assert len(result.processes) == 3
    assert len(below(reaper.pid)) == 2


async def test_a_choice_without_the_tree_leaves_the_children(endpoint, under_reaper, shell):
    """They are the reaper's now, and run."""
    reaper = under_reaper(shell, "-c", "sleep 60; true")
    wait_until(lambda: len(below(reaper.pid)) == 2)
    await kill(endpoint, path=str(shell), tree=False)
    assert [read_stat(pid).name for pid in below(reaper.pid)] == [b"sleep"]


# --- staying dead ----------------------------------------------------------------------------------------------------


def the_bad_one(shell, reaper):
    return [pid for pid in below(reaper.pid) if os.path.realpath(f"/proc/{pid}/exe") == str(shell)]


@pytest.fixture
def kept_up(under_reaper, shell, tmp_path):
    """A program that another one starts again, so many times; the reaper above both."""

    def start(times):
        script = tmp_path / "keeper.sh"
        script.write_text(KEEPER)
        reaper = under_reaper("/bin/sh", script, shell, times)
        wait_until(lambda: the_bad_one(shell, reaper))
        return reaper

    return start


@pytest.mark.slow
@pytest.mark.parametrize("by", ["path", "pid"])
async def test_what_is_started_again_is_ended_again_and_told(endpoint, shell, kept_up, by):
    """By whom, with pid and name; after that it stays dead."""
    reaper = kept_up(3)
    order = {"path": str(shell)} if by == "path" else {"pid": the_bad_one(shell, reaper)[0]}
    result = await kill(endpoint, watch=1, **order)
    assert the_bad_one(shell, reaper) == []
    assert result.respawned >= 1
    assert [one.pid for one in result.respawned_by] == children(reaper.pid)


@pytest.mark.slow
async def test_what_is_started_again_for_ever_is_an_error_with_the_culprit(endpoint, shell, kept_up):
    """The culprit goes on."""
    reaper = kept_up(1_000_000)
    culprit = children(reaper.pid)[0]
    with pytest.raises(ActionFailed, match=rf"restarted by PID {culprit} \(.*--respawner"):
        await kill(endpoint, path=str(shell), watch=1)
    assert culprit in below(reaper.pid)


@pytest.mark.slow
async def test_the_culprit_is_ended_if_that_was_ordered(endpoint, shell, kept_up):
    """Nothing is left of either."""
    reaper = kept_up(1_000_000)
    result = await kill(endpoint, path=str(shell), watch=1, respawner=True)
    assert below(reaper.pid) == []
    assert [one.ended for one in result.respawned_by] == [True]


# --- suspending ------------------------------------------------------------------------------------------------------


async def test_a_tree_is_suspended_and_goes_on(endpoint, under_reaper):
    """All of it stands still as people know it, and nothing of it has ended."""
    reaper = under_reaper("/bin/sh", "-c", "sleep 60 & sleep 60 & wait")
    wait_until(lambda: len(below(reaper.pid)) == 3)
    order = SuspendProcess(pid=children(reaper.pid)[0])
    result = await suspend_process.run(endpoint.host, order)
    assert {read_stat(pid).state for pid in below(reaper.pid)} == {"T"}
    assert (await suspend_process.verify(endpoint.host, order, result)).verdict is Verdict.IN_PLACE
    _name, back = suspend_process.undo_params(order, result)
    assert isinstance(back, ResumeProcess)
    resumed = await resume_process.run(endpoint.host, back)
    assert {read_stat(pid).state for pid in below(reaper.pid)} <= {"S", "R"}  # one may just be waking up
    assert (await resume_process.verify(endpoint.host, back, resumed)).verdict is Verdict.IN_PLACE


async def test_one_that_is_traced_stands_still_and_goes_on_like_others(endpoint, under_reaper):
    """SIGSTOP stops it for its tracer, which the kernel shows by another letter; nor may it be forgotten then."""
    reaper = under_reaper(sys.executable, "-c", TRACING)
    wait_until(lambda: [read_stat(pid).state for pid in below(reaper.pid)] == ["S", "S"])
    order = SuspendProcess(pid=children(reaper.pid)[0])
    result = await suspend_process.run(endpoint.host, order)
    assert {read_stat(pid).state for pid in below(reaper.pid)} == {"T", "t"}
    check = await suspend_process.verify(endpoint.host, order, result)
    assert check.verdict is Verdict.IN_PLACE, check.detail
    _name, back = suspend_process.undo_params(order, result)
    resumed = await resume_process.run(endpoint.host, back)
    assert set(resumed.processes) == set(result.processes)
    wait_until(lambda: [read_stat(pid).state for pid in below(reaper.pid)] == ["S", "S"])


async def test_what_is_suspended_can_be_ended(endpoint, under_reaper):
    """SIGKILL needs nobody to listen."""
    reaper = under_reaper("/bin/sh", "-c", "sleep 60; true")
    wait_until(lambda: len(below(reaper.pid)) == 2)
    root = children(reaper.pid)[0]
    await suspend_process.run(endpoint.host, SuspendProcess(pid=root))
    endpoint.next_task("tsk_2")
    await kill(endpoint, pid=root)
    assert below(reaper.pid) == []
