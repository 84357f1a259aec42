"""How far tasks are: the newest of each, bounded, and since when they wait."""

from datetime import timedelta

from stanch.core.frames import ProgressFrame
from stanch.server.progress import ProgressBoard


def frame(task: str, **fields) -> ProgressFrame:
    return ProgressFrame(**{"task": task, "done": 1, "unit": "files", "text": "/x", **fields})


def test_since_when_it_waits(parts):
    """From the first word of it to the first of going on; another reason begins anew."""
    clock = parts.clock
    board, begun = ProgressBoard(clock), clock.now
    board.put("ord_1", frame("tsk_1"))
    assert board.of("tsk_1").paused_since is None
    board.put("ord_1", frame("tsk_1", paused="on order"))
    clock.now += timedelta(minutes=1)
    told = board.put("ord_1", frame("tsk_1", paused="on order", done=2))
    assert (told.paused_since, told.at, told.done) == (begun, clock.now, 2)
    assert board.put("ord_1", frame("tsk_1", paused="others wait for io")).paused_since == clock.now
    assert board.paused() == {"ord_1": 1}
    assert board.put("ord_1", frame("tsk_1")).paused_since is None
    assert board.paused() == {}


def test_it_is_bounded(parts):
    """What was heard of longest ago goes first; what is over is dropped."""
    board = ProgressBoard(parts.clock, most=2)
    for task in ("tsk_1", "tsk_2", "tsk_1", "tsk_3"):
        board.put("ord_1", frame(task))
    assert [one for one in ("tsk_1", "tsk_2", "tsk_3") if board.of(one)] == ["tsk_1", "tsk_3"]
    board.drop("tsk_1")
    board.drop("tsk_1")
    assert board.of("tsk_1") is None
