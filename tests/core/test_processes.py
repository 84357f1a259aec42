"""The values that tell processes apart, and the signals that have names."""

import signal

import pytest
from pydantic import ValidationError

from stanch.core.processes import Process, ProcessId, Signal


@pytest.mark.parametrize("one", list(Signal))
def test_a_signal_is_called_as_the_system_calls_it(one):
    """Its value in capitals is the system's own name."""
    assert signal.Signals[f"SIG{one.upper()}"]


def test_only_those_that_end_a_process_are_waited_for():
    """Of the others nobody can say what a program makes of them."""
    assert {one for one in Signal if one.ends} == {Signal.KILL, Signal.TERM}


def test_a_process_is_known_by_pid_and_start_time():
    """Another process with the same pid is another one."""
    row = Process(pid=7, parent=1, started=5, user="u", name="n", executable=None, arguments="", state="S", memory=0)
    assert row.id == ProcessId(pid=7, started=5) != ProcessId(pid=7, started=6)


@pytest.mark.parametrize("wrong", [{"pid": 0, "started": 1}, {"pid": 1, "started": -1}, {"pid": 2**23, "started": 1}])
def test_numbers_that_no_process_has_are_refused(wrong):
    """The kernel's bounds are ours."""
    with pytest.raises(ValidationError):
        ProcessId.model_validate(wrong)
