"""Does the group of a task hold its programs, within their limits, and is it gone afterwards?"""

import os
from pathlib import Path
from secrets import token_hex

import pytest

from stanch.agent.host import cgroups
from stanch.agent.host.procfs import read_stat
from stanch.agent.host.program_group import make_group, parent_group, remove_group, sweep_groups
from stanch.core.errors import StanchError, Unsupported
from stanch.core.programs import Resources
from stanch.core.types import seconds
from tests.agent.host.run_programs import new_world, runs, shell
from tests.fakes.waiting import eventually

ALL = Resources(memory=1 << 30, cpu_percent=150, processes=7)


@pytest.fixture
def parent():
    """A control group of our own, with only our own children in it."""
    try:
        made = cgroups.hierarchy().root / f"stanch-test-{token_hex(8)}"
        made.mkdir()
    except (OSError, StanchError) as error:
        pytest.skip(f"no control groups of version 2 to write to: {error}")
    yield made
    sweep_groups(made)
    made.rmdir()


def told(tmp_path: Path, text: str) -> Path | None:
    """Where the agent of this group may make groups."""
    (tmp_path / "cgroup").write_text(text)
    return parent_group(tmp_path / "cgroup", Path("/top"))


def test_groups_are_made_below_the_agents_own_service(tmp_path):
    """Not in anybody else's, and not at the top."""
    service = Path("/top/system.slice/stanch-agent.service")
    assert told(tmp_path, "4:memory:/x\n0::/system.slice/stanch-agent.service\n") == service
    assert told(tmp_path, "0::/system.slice/stanch-agent.service/agent\n") == service
    assert told(tmp_path, "0::/own/part\n") == Path("/top/own/part")
    for none in ("0::/\n", "4:memory:/x\n", "", "0::/../other\n"):
        assert told(tmp_path, none) is None
    assert parent_group(tmp_path / "none", Path("/top")) is None


# --- a tree of plain files, which has every controller ---------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A parent whose groups get the kernel's files, as far as the controllers are switched on."""
    (tmp_path / "cgroup.subtree_control").write_text("")
    make = Path.mkdir

    def mkdir(self: Path, *arguments, **more):
        make(self, *arguments, **more)
        (self / "cgroup.controllers").write_text("memory pids cpu")
        for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
            (self / name).write_text("max")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return tmp_path


def test_limits_are_written(tree):
    """In the form in which the kernel wants them."""
    group = make_group(tree, "tsk_1", ALL)
    assert group == tree / "stanch-run-tsk_1"
    assert (group / "memory.max").read_text() == "1073741824"
    assert (group / "memory.swap.max").read_text().startswith("0")
    assert (group / "pids.max").read_text().startswith("7")
    assert (group / "cpu.max").read_text() == "150000 100000"


@pytest.mark.parametrize("resources", [Resources(memory=1 << 30), Resources(cpu_percent=1), Resources(processes=1)])
def test_a_limit_that_cannot_be_set_is_refused(tmp_path, resources):
    """Without a group, without its controller, without the right to make one; and nothing is left of the attempt."""
    for parent in (None, tmp_path, tmp_path / "none" / "deep"):
        with pytest.raises(Unsupported, match="cannot be limited here"):
            make_group(parent, "tsk_1", resources)
    assert list(tmp_path.iterdir()) == []


def test_without_limits_a_group_is_only_a_help(tmp_path):
    """Where none can be made, the program is run all the same."""
    assert make_group(None, "tsk_1", Resources()) is None
    assert make_group(tmp_path / "none" / "deep", "tsk_1", Resources()) is None
    group = make_group(tmp_path, "tsk_1", Resources())
    remove_group(group)
    remove_group(None)
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_none_gets_no_group(tmp_path):
    """Its name becomes the name of a folder."""
    with pytest.raises(ValueError, match="expected the id of a task"):
        make_group(tmp_path, "../x", Resources())


# --- the kernel's own ------------------------------------------------------------------------------------------------


@pytest.mark.kernel_option
async def test_a_program_is_in_its_group_from_the_start(parent, tmp_path):
    """With all that it starts; the group ends with it."""
    with new_world(tmp_path, groups=parent) as world:
        group = parent / f"stanch-run-{world.task}"
        async with world.programs.run(shell("setsid env -i sleep 1000 & sleep 1000")) as running:
            assert (group / "cgroup.procs").read_text().split() == [str(running.id.pid)]
            await running.begin()
            await eventually(lambda: len((group / "cgroup.procs").read_text().split()) == 3)
            before = world.left()
            os.kill(read_stat(running.id.pid).parent, 9)
            await eventually(lambda: not runs(running.id))
            # Its keeper is gone; the group still tells who belongs to it.
            assert len(world.left()) == 2
        await eventually(lambda: not any(map(runs, before)))
        await eventually(lambda: not world.left())
        sweep_groups(parent)
        assert not group.exists()


@pytest.mark.kernel_option
async def test_the_group_goes_with_the_program(parent, tmp_path):
    """Whether it ended by itself, or was ended."""
    with new_world(tmp_path, groups=parent) as world:
        await world.run(shell("true"))
        await eventually(lambda: not list(parent.glob("stanch-run-*")))
        async with world.begun(shell("trap '' TERM; sleep 1000 & sleep 1000")) as running:
            await running.end(grace=seconds(0.1))
            assert world.left() == ()
        await eventually(lambda: not list(parent.glob("stanch-run-*")))


@pytest.mark.kernel_option
async def test_a_runaway_tree_dies_with_its_group(parent, tmp_path):
    """At one stroke, however fast it forks and whatever sessions it begins."""
    forks = "while :; do (setsid sh -c 'sleep 0.01 &' &); done"
    with new_world(tmp_path, groups=parent) as world:
        async with world.begun(shell(f"{forks} & {forks} & echo ready; wait")) as running:
            await eventually(lambda: running.stdout().written)
            exit_ = await running.end(grace=seconds(0.05))
            assert (exit_.signal is not None, exit_.left_ended) == (True, True)
        assert world.left() == ()


@pytest.mark.kernel_option
async def test_limits_that_the_kernel_has_no_controller_for_are_refused(parent, tmp_path):
    """Or they are in force: nothing between."""
    with new_world(tmp_path, groups=parent) as world:
        program = shell("echo ran", resources=Resources(processes=50))
        if "pids" in (parent / "cgroup.controllers").read_text().split():
            assert (await world.run(program)).exit.code == 0
        else:
            with pytest.raises(Unsupported, match="no controller pids"):
                await world.run(program)
        await eventually(lambda: not list(parent.glob("stanch-run-*")))
