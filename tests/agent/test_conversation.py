"""The parts of one connection that need no connection; the rest is seen in test_link.py."""

import asyncio

import pytest
from aiohttp import WSMessage, WSMsgType
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.conversation import MAX_PROGRESS, Inbox, ProgressBoard, frame_of
from stanch.core.errors import StanchError, Unavailable
from stanch.core.frames import ProgressFrame


async def test_an_envelope_waits_until_it_can_be_written_down():
    """A full disk delays orders and loses none, and their order stays."""
    inbox, taken, troubles = Inbox(), [], [Unavailable("full"), Unavailable("full")]
    done = asyncio.Event()

    async def accept(token: str, *, nonce: str) -> None:
        if troubles:
            raise troubles.pop()
        taken.append((token, nonce))
        if token == "two":
            done.set()

    await inbox.put("one", "n")
    await inbox.put("two", "n")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(inbox.hand_on(accept, retry_after=0.0))
        await done.wait()
        task.cancel()
    assert taken == [("one", "n"), ("two", "n")]


def test_the_board_keeps_the_newest_of_each_task():
    """What was overtaken is not told."""
    board = ProgressBoard()
    for done in range(3):
        board.put(ProgressFrame(task="a", done=done))
    board.put(ProgressFrame(task="b", done=9))
    assert [(one.task, one.done) for one in board.take()] == [("a", 2), ("b", 9)]
    assert board.take() == []


def test_the_board_is_bounded():
    """Without a link to take from it, the board does not grow."""
    board = ProgressBoard()
    for number in range(MAX_PROGRESS + 10):
        board.put(ProgressFrame(task=f"t{number}", done=0))
    board.put(ProgressFrame(task="t0", done=1))
    frames = board.take()
    assert (len(frames), frames[0].done) == (MAX_PROGRESS, 1)


@pytest.mark.parametrize("kind", [WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR])
def test_the_end_of_a_connection_is_no_frame(kind):
    """A close in the place of a frame may be tried again."""
    with pytest.raises(Unavailable):
        frame_of(WSMessage(kind, None, None))


@given(
    st.text(max_size=200) | st.from_regex(r'\{"type": ?"(welcome|deliver|ack|answer|complaint)".*\}', fullmatch=True)
)
def test_no_text_breaks_the_reader(text):
    """Whatever the server sends is a frame, or an error of ours."""
    try:
        frame_of(WSMessage(WSMsgType.TEXT, text, None))
    except StanchError as error:
        assert error.code in {"invalid", "too-large"}  # noqa: PT017 - both outcomes are right


def test_a_new_link_hears_who_waits():
    """A task that waits says nothing more by itself: its last word is told again; what else was old is not."""
    board = ProgressBoard()
    board.put(ProgressFrame(task="a", done=1, paused="on order"))
    board.put(ProgressFrame(task="b", done=1, paused="on order"))
    assert len(board.take()) == 2
    board.put(ProgressFrame(task="b", done=2))
    board.begin()
    assert [one.task for one in board.take()] == ["a"]
    for number in range(MAX_PROGRESS + 10):
        board.put(ProgressFrame(task=f"t{number}", done=0, paused="on order"))
    board.begin()
    assert len(board.take()) == MAX_PROGRESS
