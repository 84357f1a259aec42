"""Is what a task started found by its marks, and does a false mark gain nothing?"""

import os
import sys
from pathlib import Path

import pytest

from stanch.agent.host import marks
from stanch.agent.host.marks import group_name, is_keeper, of_task
from tests.fakes.waiting import wait_until

TASK = f"tsk_marks_{os.getpid()}"

CLAIMS = """
import os, sys, time
if os.fork() == 0:
    os.execve('/bin/sleep', ['sleep', '1000'], {})
print('ready', flush=True)
time.sleep(1000)
"""
"""A process with a child that carries no mark."""


def claiming(child, **environment):
    """A process that was started with this environment, as any program may start one."""
    code = f"import os; os.execve({sys.executable!r}, ['p', '-c', {CLAIMS!r}], {environment!r})"
    return child(code, until=lambda pid: _is_asleep(_child_of(pid)))


def _is_asleep(pid: str) -> bool:
    """Has it become what it is to be? Until then it still has the environment of its parent."""
    return bool(pid) and Path(f"/proc/{pid.strip()}/comm").read_text() == "sleep\n"


def _child_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_a_claim_counts_for_the_one_that_makes_it(child):
    """Not for its children: nobody can be drawn in by another's claim."""
    process = claiming(child, STANCH_TASK=TASK)
    assert [one.pid for one in of_task(TASK)] == [process.pid]
    assert of_task(TASK[:-1]) == of_task(f"{TASK}0") == ()


def test_the_variable_must_be_the_whole_one(child):
    """A name that ends like it, or another value, is no mark."""
    claiming(child, MY_STANCH_TASK=TASK, STANCH_TASKS=TASK, OTHER=f"STANCH_TASK={TASK}")
    assert of_task(TASK) == ()


def test_what_is_no_task_finds_nothing(monkeypatch):
    """Nor is anything asked."""
    monkeypatch.setattr(marks, "_rows", lambda: pytest.fail("it looked"))
    for wrong in ("", "a/b", "x" * 65, "a\nb"):
        assert of_task(wrong) == ()


def test_a_group_is_found_by_whole_names(monkeypatch):
    """Also from a group below it; not by one that only begins like it."""
    told = {1: f"0::/a/stanch-run-{TASK}", 2: f"0::/stanch-run-{TASK}/in", 3: f"0::/stanch-run-{TASK}x",
            4: f"3:cpu:/stanch-run-{TASK}"}  # fmt: skip
    monkeypatch.setattr(marks, "_read", lambda pid, name, _: told[pid].encode() + b"\n" if name == "cgroup" else b"")
    assert [pid for pid in told if marks._is_marked(pid, TASK)] == [1, 2]


def test_a_keeper_is_known_by_its_command_line(child):
    """And what it forks is not taken for one; what is below it is found without any other mark."""
    code = f"import os; os.execve({sys.executable!r}, ['p', '-c', {CLAIMS!r}, 'x/program_keeper.py', {TASK!r}], {{}})"
    process = child(code, until=lambda pid: bool(_child_of(pid)))
    assert is_keeper(process.pid, TASK)
    assert not is_keeper(process.pid, TASK + "x")
    wait_until(lambda: [str(one.pid) for one in of_task(TASK)] == _child_of(process.pid).split())


def test_a_process_that_is_gone_has_no_mark():
    """Nothing is raised for it."""
    assert not is_keeper(2**22, TASK)
    assert not marks._is_marked(2**22, TASK)
    assert marks._owner(2**22) == -1


def test_the_name_of_a_group_is_a_plain_word():
    """It becomes a folder."""
    assert group_name("tsk_1") == "stanch-run-tsk_1"
    for wrong in ("..", "a/b", ""):
        with pytest.raises(ValueError, match="expected the id of a task"):
            group_name(wrong)
