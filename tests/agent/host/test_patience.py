"""Is everything done, also beside what hangs, and do threads not pile up?"""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import patience as module
from stanch.agent.host.patience import Patience
from stanch.core.errors import ActionFailed
from tests.fakes.waiting import wait_until


@pytest.fixture
def gate():
    """Whatever waits for it hangs until the test is over."""
    made = threading.Event()
    yield made
    made.set()


def nothing_stops():
    return threading.Event()


def hangs_at(gate, *which):
    """Doubles a number; hangs at some."""

    def do(key, _sign):
        if key in which:
            gate.wait()
        return 2 * key

    return do


@given(st.lists(st.integers(0, 20)), st.integers(1, 4))
def test_everything_is_done_once(keys, at_once):
    """However many threads; the last word is how many are done."""
    calls, told = [], []

    def do(key, _sign):
        calls.append(key)
        return -key

    patience = Patience("test", seconds=60)
    done = patience.each(keys, do, stop=nothing_stops(), at_once=at_once, told=told.append)
    assert done.values == {key: -key for key in keys}
    assert done.hanging == []
    assert sorted(calls) == sorted(set(keys))
    assert told[-1] == len(set(keys))


def test_one_that_hangs_is_given_up_and_the_others_are_done(gate):
    """It costs the time of patience, and nothing else."""
    done = Patience("test", seconds=0.02).each(range(5), hangs_at(gate, 1, 3), stop=nothing_stops())
    assert done.values == {0: 0, 2: 4, 4: 8}
    assert done.hanging == [1, 3]


def test_what_hangs_is_not_asked_again_until_it_has_answered(gate):
    """A second question would be a second thread that hangs."""
    patience, before = Patience("test", seconds=0.02), set(threading.enumerate())
    for _ in range(3):
        assert patience.each([1, 2], hangs_at(gate, 1), stop=nothing_stops()).hanging == [1]
    assert len(set(threading.enumerate()) - before) == 1
    gate.set()
    wait_until(lambda: not set(threading.enumerate()) - before)
    assert patience.each([1, 2], hangs_at(gate, 1), stop=nothing_stops()).values == {1: 2, 2: 4}


def test_an_answer_that_comes_too_late_is_not_taken(gate):
    """Whoever asked has gone on without it."""
    answered = threading.Event()

    def do(key, _sign):
        if key == 1:
            gate.wait()
            answered.set()
        return key

    done = Patience("test", seconds=0.02).each([1, 2], do, stop=nothing_stops())
    gate.set()
    assert answered.wait(20)
    assert done.values == {2: 2}


def test_only_so_many_hang_at_a_time(gate, monkeypatch):
    """When there are too many, the rest is not begun: the machine has another problem."""
    monkeypatch.setattr(module, "MOST_HANGING", 2)
    begun = []

    def do(key, _sign):
        begun.append(key)
        gate.wait()

    done = Patience("test", seconds=0.02).each(range(10), do, stop=nothing_stops())
    assert begun == done.hanging == [0, 1]
    assert done.skipped == list(range(2, 10))


def test_who_gives_signs_is_waited_for():
    """Slow is not hanging."""
    ticks = []

    def do(_key, sign):
        for _ in range(20):
            threading.Event().wait(0.02)
            sign()
            ticks.append(1)
        return "done"

    assert Patience("test", seconds=0.3).each([1], do, stop=nothing_stops()).values == {1: "done"}
    assert len(ticks) == 20


def test_an_error_is_raised_and_nothing_new_is_begun():
    """A defect is not hidden by a thread."""
    begun = []

    def do(key, _sign):
        begun.append(key)
        raise ValueError(key)

    with pytest.raises(ValueError, match="0"):
        Patience("test", seconds=60).each(range(5), do, stop=nothing_stops())
    assert begun == [0]


def test_it_stops_when_it_is_told_to():
    """Whoever asked was cancelled: what is begun ends, nothing new begins."""
    stop = threading.Event()

    def do(key, _sign):
        if key == 1:
            stop.set()
        return key

    assert Patience("test", seconds=60).each(range(5), do, stop=stop).values == {0: 0, 1: 1}


def test_a_machine_without_a_thread_to_give_is_an_error_and_no_endless_wait(monkeypatch):
    """A full control group must not make a task wait for nobody."""

    def none_left(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(ActionFailed, match="thread"):
        Patience("test", seconds=60).each(range(5), hangs_at(None), stop=nothing_stops(), at_once=2)
