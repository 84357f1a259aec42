"""Bars and lines while tasks run."""

import pytest

from stanch.cli.board import MOST_BARS, board_of
from stanch.core.rest import TaskEvent
from stanch.core.task import State
from tests.client.stub import Stub, an_endpoint


@pytest.fixture
def order():
    stub = Stub(endpoints=[an_endpoint(n) for n in range(1, 21)])
    return stub.order("isolate", {"endpoints": [one.hostname for one in stub.endpoints], "params": {}})


def event(task, **fields) -> TaskEvent:
    return TaskEvent(type="task", task=task.id, order=task.order, endpoint=task.endpoint, **fields)


def test_bars_on_a_terminal(order, monkeypatch, capsys):
    """Running tasks have bars, up to a number; what is final is counted and its bar is gone."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with board_of(order) as board:
        for task in order.tasks:
            board.take(event(task, state=State.RUNNING))
        board.take(event(order.tasks[0], done=512, total=2048, unit="bytes", text="[red]sending\x1b[2J"))
        bars = board._progress.tasks
        assert len(bars) == MOST_BARS + 1
        assert bars[1].fields["text"] == "512 bytes of 2.0 KiB [red]sending\\x1b[2J"
        assert (bars[1].completed, bars[1].total) == (512, 2048)
        for task in order.tasks:
            board.take(event(task, state=State.DONE))
        assert [one.description for one in board._progress.tasks] == ["all"]
        assert board._progress.tasks[0].completed == 20
    assert not capsys.readouterr().out


def test_progress_without_a_total(order, monkeypatch):
    """A task that does not know how much there is shows what it has done."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with board_of(order) as board:
        board.take(event(order.tasks[0], done=7, unit="files"))
        board.take(event(order.tasks[1], done=0, text="asking"))
        assert [one.fields["text"] for one in board._progress.tasks[1:]] == ["7 files", "asking"]


def test_lines_anywhere_else(order, capsys):
    """Without a terminal each change is one line on standard error; progress is left out."""
    with board_of(order) as board:
        board.take(event(order.tasks[0], state=State.RUNNING))
        board.take(event(order.tasks[0], done=1, total=2))
        board.take(event(order.tasks[0], state=State.DONE))
    assert capsys.readouterr() == ("", "web-01: running\nweb-01: done\n")


def test_lines_say_who_waits_and_who_goes_on(order, capsys):
    """Once for each change, with the reason and how far it is."""
    with board_of(order) as board:
        for paused in ("", "on order", "on order", ""):
            board.take(event(order.tasks[0], done=5, unit="files", text="/srv", paused=paused))
    assert capsys.readouterr().err == "web-01: paused (on order), 5 files /srv\nweb-01: goes on\n"
