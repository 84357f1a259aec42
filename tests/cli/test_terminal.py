"""A terminal on the terminal of a person: keys, sizes, and the way out."""

import asyncio
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.cli import terminal as module
from stanch.cli.terminal import END_OF_FILE, Escape, PersonsScreen, sit
from stanch.core.errors import StanchError
from stanch.core.rest import OrderView, TaskEvent
from stanch.core.task import State
from stanch.core.terminal import Closed
from stanch.core.terminal import Why as Reason
from tests.demo.acting import ordered


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        (b"ls\r", b"ls\r"),
        (b"~.", None),
        (b"ls\r~.", None),
        (b"~~.\r", b"~.\r"),
        (b"a~.", b"a~."),
        (b"~x", b"~x"),
        (b"~\r~.", None),
    ],
)
def test_the_way_out(typed: bytes, passed: bytes | None) -> None:
    """`~.` at the beginning of a line hangs up, and nowhere else; `~~` is one tilde."""
    assert Escape().pass_on(typed) == passed


@given(st.binary(max_size=40), st.integers(0, 40))
def test_it_does_not_matter_how_keys_come(typed: bytes, cut: int) -> None:
    """In one piece or in two: the same goes on."""
    whole, halves = Escape().pass_on(typed), Escape()
    first = halves.pass_on(typed[:cut])
    second = None if first is None else halves.pass_on(typed[cut:])
    assert whole == (None if first is None or second is None else first + second)


async def test_input_that_is_no_terminal() -> None:
    """What a pipe holds is typed as it is, and its end as the end of a file."""
    reading, writing = os.pipe()
    os.write(writing, b"~.id\n")
    os.close(writing)
    screen = PersonsScreen(is_terminal=False, keys=reading)
    assert await screen.typed() == b"~.id\n"
    assert await screen.typed() == END_OF_FILE
    os.close(reading)


async def test_a_last_line_that_does_not_end() -> None:
    """The end of a file counts at the beginning of a line only, so the line is ended first."""
    reading, writing = os.pipe()
    os.write(writing, b"id")
    os.close(writing)
    screen = PersonsScreen(is_terminal=False, keys=reading)
    assert await screen.typed() == b"id"
    assert await screen.typed() == b"\n" + END_OF_FILE
    os.close(reading)


async def test_a_terminal_that_is_gone_hangs_up(tmp_path: Path) -> None:
    """What cannot be read ends it, and no thread dies loudly."""
    folder = os.open(tmp_path, os.O_RDONLY)
    assert await PersonsScreen(is_terminal=True, keys=folder).typed() is None
    os.close(folder)


async def test_the_size_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first size is the present one, within what a terminal may have."""
    monkeypatch.setattr(module.os, "get_terminal_size", lambda _display: os.terminal_size((5000, 0)))
    assert await PersonsScreen(is_terminal=True).resized() == (1000, 1)
    asyncio.get_running_loop().remove_signal_handler(module.signal.SIGWINCH)


async def test_where_nobody_looks_no_size_is_told() -> None:
    """A pipe keeps the size that was ordered."""
    waiting = asyncio.ensure_future(PersonsScreen(is_terminal=False).resized())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


def test_output_is_written_whole() -> None:
    """Bytes go to the display as they came."""
    reading, writing = os.pipe()
    PersonsScreen(is_terminal=True, display=writing).show(b"\x1b[1mbold\xff")
    assert os.read(reading, 100) == b"\x1b[1mbold\xff"
    os.close(reading)
    os.close(writing)


class _Client:
    """A client whose terminal closes at once."""

    def __init__(self, closed: Closed) -> None:
        self._closed = closed

    def terminal(self, task: str) -> "_Client":
        assert task == "tsk_1"
        return self

    async def run(self, _screen: PersonsScreen) -> Closed:
        return self._closed


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ({"why": Reason.EXIT, "code": 3}, 3, "exit code 3"),
        ({"why": Reason.EXIT, "signal": "SIGTERM"}, 143, "signal SIGTERM"),
        ({"why": Reason.IDLE}, 255, "nothing was typed"),
        ({"why": Reason.LINK}, 255, "could not reach the server"),
    ],
)
def test_the_exit_code_is_the_shells(
    capsys: pytest.CaptureFixture[str], end: dict[str, object], code: int, said: str
) -> None:
    """As ssh does it; and people are told how it ended and where the recording is."""
    closed = Closed.model_validate({"pid": 1, "sent": 0, "received": 0, **end})
    assert sit(_Client(closed), "tsk_1") == code
    told = capsys.readouterr().err
    assert said in told
    assert "evidence of task tsk_1" in told


def fail_while_raw(terminal: int, before: list[object]) -> None:
    """Something goes wrong while one sits at it."""
    with module.raw() as is_terminal:
        assert is_terminal
        assert module.termios.tcgetattr(terminal) != before
        raise RuntimeError


def test_the_terminal_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw while one sits at it, and as it was afterwards, whatever happened."""
    ours, theirs = pty.openpty()
    before = module.termios.tcgetattr(theirs)
    monkeypatch.setattr(module, "KEYS", theirs)
    with pytest.raises(RuntimeError):
        fail_while_raw(theirs, before)
    assert module.termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


async def test_a_change_of_size_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGWINCH brings the next size."""
    sizes = iter([(80, 24), (100, 50)])
    monkeypatch.setattr(module.os, "get_terminal_size", lambda _display: os.terminal_size(next(sizes)))
    screen = PersonsScreen(is_terminal=True)
    assert await screen.resized() == (80, 24)
    os.kill(os.getpid(), module.signal.SIGWINCH)
    async with asyncio.timeout(10):
        assert await screen.resized() == (100, 50)
    asyncio.get_running_loop().remove_signal_handler(module.signal.SIGWINCH)


class _Server:
    """A client of a server whose order ends as the test says."""

    def __init__(self, *states: State, error: StanchError | None = None) -> None:
        self._states, self._error = states, error
        self.cancelled: list[str] = []

    def watch(self, _order: str) -> Iterator[TaskEvent]:
        for state in self._states:
            yield TaskEvent(type="task", task="tsk_1", order="ord_1", endpoint="end_1", state=state)
        if self._error is None and self._states[-1] is State.QUEUED:
            raise KeyboardInterrupt

    def cancel(self, order: str) -> None:
        self.cancelled.append(order)


def order() -> OrderView:
    """An order of one terminal."""
    return OrderView.model_validate(ordered("any", {}) | {"tasks": [ordered("any", {})["tasks"][0]]})


def test_who_goes_before_it_opens_wants_none_later(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C while an endpoint is away cancels the order, and one is told that it is away."""
    server = _Server(State.QUEUED)
    with pytest.raises(KeyboardInterrupt):
        module.take_seat(server, order())
    assert server.cancelled == ["ord_1"]
    assert "not connected" in capsys.readouterr().err


def test_being_asked_to_end_is_like_ctrl_c() -> None:
    """SIGTERM and SIGHUP put back what was begun, and are what they were afterwards."""
    before = module.signal.getsignal(module.signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), module.ended_by_signals():
        os.kill(os.getpid(), module.signal.SIGTERM)
    assert module.signal.getsignal(module.signal.SIGTERM) is before
