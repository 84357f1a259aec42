"""Does a pen catch whatever its processes fork, end it at once, and let go whoever is innocent, back to where it was?

The groups are made below one of our own, with children of the test in them.
"""

import os
import signal
from contextlib import ExitStack

import pytest

from stanch.agent.host import pen as module
from stanch.agent.host.pen import PREFIX, Groups, free_left, group_of, pen
from stanch.agent.host.pidfds import wait_gone
from stanch.agent.host.procfs import read_stat
from stanch.core.processes import ProcessId
from tests.fakes.waiting import wait_until

WAITS = "print('ready', flush=True); input()"

FORKS_ON_DEMAND = """
import os, sys
print('ready', flush=True)
while True:
    word = sys.stdin.readline()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.fork()
        os.write(1, b'forked\\n')
"""
"""Forks into a session of its own, and once more, for each line that it is sent."""


def everybody(_one):
    """Nobody is protected."""
    return True


def identity(process):
    return ProcessId(pid=process.pid, started=read_stat(process.pid).started)


def answers(process):
    """Does it run? It ends at the end of its input."""
    process.stdin.close()
    wait_until(lambda: process.poll() is not None)
    return process.returncode is not None


def pens_in(groups):
    return [one.name for one in groups.parent.iterdir() if one.name.startswith(PREFIX)]


async def gone(ones):
    return await wait_gone(ones, float("inf")) == ()


pytestmark = pytest.mark.root


# --- catching --------------------------------------------------------------------------------------------------------


async def test_who_is_caught_stands_still_and_goes_on_afterwards(groups, child):
    """Back in the group that it came from; nothing is left of the pen."""
    mine = child(WAITS)
    came_from = groups.parent / "unit"
    came_from.mkdir()
    (came_from / "cgroup.procs").write_text(str(mine.pid))
    async with pen("tsk_1", groups, may=everybody) as made:
        assert await made.catch([identity(mine)]) == (identity(mine),)
        assert f"{PREFIX}tsk_1" in group_of(mine.pid)
        assert "frozen 1" in (groups.parent / f"{PREFIX}tsk_1" / "cgroup.events").read_text()
    assert (groups.root / group_of(mine.pid)).samefile(came_from)
    assert pens_in(groups) == []
    assert answers(mine)


async def test_the_lost_group_of_who_is_let_go_is_the_one_above(groups, child):
    """A unit may end while its process is held."""
    mine = child(WAITS)
    above, came_from = groups.parent / "slice", groups.parent / "slice" / "unit"
    above.mkdir()
    came_from.mkdir()
    (came_from / "cgroup.procs").write_text(str(mine.pid))
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([identity(mine)])
        came_from.rmdir()
    assert (groups.root / group_of(mine.pid)).samefile(above)


async def test_what_is_forked_inside_is_caught(groups, child):
    """A child that is born in the pen, an orphan in a session of its own, ends with all the others."""
    mine = child(FORKS_ON_DEMAND)
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([identity(mine)])
        _thaw_until_it_forked(groups.parent / f"{PREFIX}tsk_1", mine)
        members = await made.members()
        assert len(members) == 3
        await made.kill()
        assert await gone(members)
    assert pens_in(groups) == []


def _thaw_until_it_forked(folder, process):
    """As if it had been on its way through a fork when it was moved."""
    (folder / "cgroup.freeze").write_text("0")
    process.stdin.write(b"fork\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"forked\n"
    assert process.stdout.readline() == b"forked\n"
    (folder / "cgroup.freeze").write_text("1")


async def test_who_is_stopped_already_is_still_stopped_afterwards(groups, child):
    """A frozen group changes nothing about what a process was sent before."""
    mine = child(WAITS)
    os.kill(mine.pid, signal.SIGSTOP)
    wait_until(lambda: read_stat(mine.pid).state == "T")
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([identity(mine)])
    assert read_stat(mine.pid).state == "T"


async def test_who_has_ended_or_is_another_by_now_is_left_out(groups, child):
    """A pid that was given away is not moved."""
    mine = child(WAITS)
    earlier = ProcessId(pid=mine.pid, started=identity(mine).started - 1)
    before = group_of(mine.pid)
    async with pen("tsk_1", groups, may=everybody) as made:
        assert await made.catch([earlier]) == ()
        assert group_of(mine.pid) == before


async def test_one_that_got_the_pid_while_it_was_moved_is_given_back(groups, child):
    """It goes to the group in which it was born, that of its parent."""
    mine = child(WAITS)
    earlier = ProcessId(pid=mine.pid, started=identity(mine).started - 1)
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([identity(mine)])
        made.group._give_back(earlier)
        assert group_of(mine.pid) == group_of(os.getpid())
        assert await made.members() == ()


async def test_who_must_not_be_touched_is_left_out(groups, child):
    """Asked again where it is done."""
    mine = child(WAITS)
    async with pen("tsk_1", groups, may=lambda _one: False) as made:
        assert await made.catch([identity(mine)]) == ()


async def test_a_zombie_does_not_keep_a_pen(groups, child):
    """What was killed and not yet asked for by its parent is no member, and the pen goes."""
    mine = child(WAITS)
    one = identity(mine)
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([one])
        await made.kill()
        assert await gone([one])
        assert read_stat(mine.pid).state == "Z"
        assert await made.members() == ()
    assert pens_in(groups) == []


async def test_a_failure_lets_everybody_go(groups, child):
    """Whatever is raised inside."""
    mine = child(WAITS)

    async def fail():
        async with pen("tsk_1", groups, may=everybody) as made:
            await made.catch([identity(mine)])
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        await fail()
    assert pens_in(groups) == []
    assert answers(mine)


async def test_where_a_kernel_cannot_kill_a_group_each_is_killed(groups, child, monkeypatch):
    """Before Linux 5.14 there is no `cgroup.kill`; none of them runs, so none is missed."""
    mine = child(WAITS)
    one = identity(mine)
    write = module._write

    def old(path, text):
        if path.name == "cgroup.kill":
            raise FileNotFoundError(path)
        write(path, text)

    monkeypatch.setattr(module, "_write", old)
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([one])
        await made.kill()
        assert await gone([one])


# --- after a crash ---------------------------------------------------------------------------------------------------


async def left_behind(groups, *processes):
    """A pen whose agent was killed."""
    with ExitStack() as lock:
        made = module.LinuxPen(module._frozen_group("tsk_1", groups, lock), everybody)
        await made.catch([identity(one) for one in processes])


async def test_the_next_run_finds_who_is_in_it(groups, child):
    """And ends them, or lets them go."""
    mine = child(WAITS)
    await left_behind(groups, mine)
    async with pen("tsk_1", groups, may=everybody) as made:
        assert await made.members() == (identity(mine),)
    assert pens_in(groups) == []
    assert answers(mine)


async def test_what_was_left_behind_goes_on_at_the_next_start(groups, child):
    """Whichever task it was of; other groups are left alone."""
    ones = [child(WAITS) for _ in range(3)]
    await left_behind(groups, *ones)
    (groups.parent / "other").mkdir()
    assert await free_left(groups) == 1
    assert all(answers(one) for one in ones)
    assert [one.name for one in groups.parent.iterdir() if one.is_dir()] == ["other"]
    assert await free_left(groups) == 0
    assert await free_left(None) == 0


AGENT = """
import asyncio, sys
from pathlib import Path
from stanch.agent.host.pen import Groups, pen
from stanch.agent.host.procfs import read_stat
from stanch.core.processes import ProcessId

async def hold():
    groups = Groups(root=Path(sys.argv[1]), parent=Path(sys.argv[2]))
    one = ProcessId(pid=int(sys.argv[3]), started=read_stat(int(sys.argv[3])).started)
    async with pen("tsk_1", groups, may=lambda _one: True) as made:
        await made.catch([one])
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""
"""An agent that holds a process in a pen until it is killed."""


@pytest.mark.slow
async def test_after_kill_9_of_the_agent_the_innocent_go_on(groups, child):
    """Nobody stays frozen once the next agent has started; its lock is gone with the killed one."""
    mine = child(WAITS)
    before = group_of(mine.pid)
    agent = child(AGENT, str(groups.root), str(groups.parent), str(mine.pid))
    assert f"{PREFIX}tsk_1" in group_of(mine.pid)
    assert await free_left(groups) == 0
    agent.kill()
    agent.wait()
    assert f"{PREFIX}tsk_1" in group_of(mine.pid)
    assert await free_left(groups) == 1
    assert group_of(mine.pid) == before
    assert answers(mine)


async def test_the_pen_of_an_agent_that_lives_is_left_alone(groups, child):
    """Two agents on one machine, as in a demo, do not let each other's processes go."""
    mine = child(WAITS)
    async with pen("tsk_1", groups, may=everybody) as made:
        await made.catch([identity(mine)])
        assert await free_left(groups) == 0
        assert await made.members() == (identity(mine),)
        async with pen("tsk_1", groups, may=everybody) as second:
            assert second.group is None
    assert pens_in(groups) == []


# --- without groups --------------------------------------------------------------------------------------------------


async def test_without_groups_processes_are_stopped_and_go_on(child):
    """By signals."""
    mine = child(WAITS)
    async with pen("tsk_1", None, may=everybody) as made:
        assert await made.catch([identity(mine)]) == (identity(mine),)
        assert read_stat(mine.pid).state == "T"
    assert answers(mine)


async def test_without_groups_they_are_ended(child):
    """Each by itself."""
    ones = [child(WAITS) for _ in range(3)]
    ids = [identity(one) for one in ones]
    async with pen("tsk_1", None, may=everybody) as made:
        await made.catch(ids)
        await made.kill()
        assert await gone(ids)


@pytest.mark.parametrize("task", ["../tsk", "t" * 65, ""])
async def test_a_task_with_an_odd_name_gets_no_group(groups, child, task):
    """Its name would be a path."""
    mine = child(WAITS)
    async with pen(task, groups, may=everybody) as made:
        await made.catch([identity(mine)])
        assert read_stat(mine.pid).state == "T"
    assert pens_in(groups) == []


async def test_where_no_group_can_be_made_they_are_stopped(tmp_path, child):
    """A folder that is no control group is one that was not made."""
    mine = child(WAITS)
    elsewhere = Groups(root=tmp_path, parent=tmp_path)
    async with pen("tsk_1", elsewhere, may=everybody) as made:
        await made.catch([identity(mine)])
        assert read_stat(mine.pid).state == "T"
    assert [*tmp_path.iterdir()] == []


async def test_one_that_cannot_be_moved_is_stopped(groups, child, monkeypatch):
    """The others are in the group; all end."""
    ones = [child(WAITS) for _ in range(2)]
    ids = [identity(one) for one in ones]
    move = module._move

    def picky(pid, group):
        if pid == ones[0].pid:
            raise PermissionError(pid)
        move(pid, group)

    monkeypatch.setattr(module, "_move", picky)
    async with pen("tsk_1", groups, may=everybody) as made:
        assert set(await made.catch(ids)) == set(ids)
        assert read_stat(ones[0].pid).state == "T"
        await made.kill()
        assert await gone(ids)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("1:name=systemd:/a\n0::/b/c.service\n", "b/c.service"),
        ("0::/\n", ""),
        ("0::/b/gone (deleted)\n", "b/gone"),
        ("0::/../other\n", None),
        ("1:name=systemd:/a\n", None),
        ("", None),
    ],
)
def test_the_group_of_a_process_is_read(tmp_path, monkeypatch, text, group):
    """Only version 2 counts, and only what this namespace of groups can reach."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(text)
    monkeypatch.setattr(module, "PROC", tmp_path)
    assert group_of(7) == group


def test_a_cell_names_a_group_for_good(tmp_path):
    """By numbers, from the root down; what is gone is left out from below."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    name = module._numbers(tmp_path, "a/b")
    assert module._CELL.fullmatch(name)
    assert module._places(tmp_path, name) == [deep, tmp_path / "a", tmp_path]
    deep.rmdir()
    (tmp_path / "a" / "c").mkdir()
    (tmp_path / "a").rename(tmp_path / "z")
    assert module._places(tmp_path, name)[-2:] == [tmp_path / "z", tmp_path]


def test_a_group_that_lies_too_deep_is_named_as_far_as_a_name_goes(tmp_path):
    """Its processes go back to the one above."""
    deep = tmp_path
    for _ in range(60):
        deep = deep / "d"
        deep.mkdir()
    name = module._numbers(tmp_path, str(deep.relative_to(tmp_path)))
    assert len(name) <= module._MAX_NAME
    places = module._places(tmp_path, name)
    assert len(places) == name.count(".") + 1
    assert deep.is_relative_to(places[0])
