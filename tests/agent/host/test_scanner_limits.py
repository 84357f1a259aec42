"""What a scan may take: each measure is taken or told, and its control group goes with it."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.agent.host.cgroups import hierarchy
from stanch.agent.host.scanner_limits import (
    AUTOGROUP,
    DONE,
    NICE,
    OOM_SCORE,
    PREFIX,
    PROC,
    Bounds,
    bound,
    session_behind,
    sweep,
)
from stanch.core.errors import Unsupported


@contextmanager
def sleeper(*, session=True):
    process = subprocess.Popen(["sleep", "1000"], start_new_session=session)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def parent():
    """A control group of our own, below the root of version 2."""
    try:
        group = hierarchy().root / f"stanch-test-scan-{os.getpid()}"
        group.mkdir()
    except (OSError, Unsupported) as error:
        pytest.skip(f"no control group can be made: {error}")
    yield group
    for one in group.glob("*/"):
        one.rmdir()
    group.rmdir()


def ioprio(pid: int) -> str:
    return subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.root
def test_a_gentle_scan_stays_behind():
    """Low priority for processor and disk, and the first to go if memory is short."""
    with sleeper() as process:
        told = bound(process.pid, parent=None, name="tsk_1", gentle=True).told
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= NICE
        assert ioprio(process.pid) == "best-effort: prio 7"
        ours, its = os.sched_getaffinity(0), os.sched_getaffinity(process.pid)
        assert its == (ours - {min(ours)} or ours)
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == str(OOM_SCORE)
    assert told["cgroup"] == "none of version 2 that is ours"
    assert {told[one] for one in ("oom", "nice", "ionice")} == {DONE}


def grouped() -> bool:
    try:
        return (PROC / AUTOGROUP).read_text().strip() == "1"
    except OSError:
        return False


@pytest.mark.skipif(not grouped(), reason="this kernel makes no groups of sessions")
def test_the_session_of_a_gentle_scan_stays_behind():
    """Its session has little weight: niceness alone would count among its own threads only."""
    with sleeper() as process:
        told = bound(process.pid, parent=None, name="tsk_1", gentle=True).told
        group = Path(f"/proc/{process.pid}/autogroup").read_text()
        assert (told["autogroup"], group.split()[-1:]) in ((DONE, [str(NICE)]), ("its session has no group", []))


@pytest.mark.parametrize("ours", ["", "/autogroup-7 nice 0\n"])
def test_a_session_older_than_the_setting_has_no_group(ours, tmp_path):
    """The kernel tells such a session as an empty file: of the agent it is no obstacle, of the worker it is told."""
    proc = tmp_path
    (proc / AUTOGROUP).parent.mkdir(parents=True)
    (proc / AUTOGROUP).write_text("1\n")
    for pid, text in ((os.getpid(), ours), (1, "/autogroup-8 nice 0\n"), (2, "")):
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "autogroup").write_text(text)
    session_behind(1, proc=proc)
    assert (proc / "1/autogroup").read_text().startswith(str(NICE))
    with pytest.raises(ValueError, match="its session has no group"):
        session_behind(2, proc=proc)


def test_the_session_of_the_agent_keeps_its_weight():
    """Of a worker that has no session of its own, only its own priority is lowered."""
    before = Path("/proc/self/autogroup").read_text() if grouped() else ""
    with sleeper(session=False) as process:
        assert bound(process.pid, parent=None, name="tsk_1", gentle=True).told["autogroup"] != DONE
    assert (Path("/proc/self/autogroup").read_text() if grouped() else "") == before


def test_a_scan_in_a_hurry_keeps_its_priority():
    """Only the measure that protects others from its memory remains."""
    with sleeper() as process:
        told = bound(process.pid, parent=None, name="tsk_1", gentle=False).told
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert set(told) == {"cgroup", "oom"}


@pytest.mark.root
def test_it_has_a_control_group_that_ends_with_it(parent):
    """Whoever is left in it is killed, and the group is removed; what cannot be limited is told."""
    with sleeper() as process:
        bounds = bound(process.pid, parent=parent, name="tsk_1-0", gentle=True)
        assert bounds.told["cgroup"] == DONE
        assert bounds.group == parent / f"{PREFIX}tsk_1-0"
        assert str(process.pid) in (bounds.group / "cgroup.procs").read_text().split()
        assert {one for one in bounds.told if one.startswith("cgroup_")} == {
            *("cgroup_memory", "cgroup_pids", "cgroup_cpu", "cgroup_io"),
        }
        bounds.end()
        process.wait(20)
        bounds.end()
    assert not bounds.group.exists()


@pytest.mark.root
def test_groups_of_earlier_scans_are_swept(parent):
    """What a killed agent has left is gone at its next start."""
    (parent / f"{PREFIX}old").mkdir()
    sweep(parent)
    assert not list(parent.glob(f"{PREFIX}*"))
    sweep(None)


def test_a_process_that_is_gone_is_told_and_not_raised(tmp_path):
    """The scan meets its worker's death where it listens to it."""
    with sleeper() as process:
        pass
    told = bound(process.pid, parent=tmp_path / "nowhere", name="x", gentle=True).told
    assert DONE not in told.values()
    Bounds(group=tmp_path / "nowhere", told={}).end()
