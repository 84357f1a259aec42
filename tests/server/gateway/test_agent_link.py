"""One link, seen from whoever wants to tell it something."""

import pytest
from aiohttp import WSCloseCode

from stanch.core.frames import Answer
from stanch.server.gateway.agent_link import MAX_UNSENT, AgentLink


class Pipe:
    """As much of a transport as a link uses."""

    def __init__(self) -> None:
        self.waiting = 0
        self.done: list[object] = []

    def set_write_buffer_limits(self, *, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.done.append("abort")

    def close(self) -> None:
        self.done.append("close")


class Socket:
    """As much of a WebSocket as a link uses."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    async def close(self, *, code: int, message: bytes) -> None:
        self.pipe.done.append((code, message))

    async def send_str(self, text: str) -> None:
        self.pipe.done.append(text)


class Ticks:
    now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pipe() -> Pipe:
    """Nothing waits in it."""
    return Pipe()


def link_on(pipe: Pipe, ticks: Ticks | None = None) -> AgentLink:
    return AgentLink(endpoint="end_1", socket=Socket(pipe), transport=pipe, clock=ticks or Ticks())  # type: ignore[arg-type]


async def test_a_frame_is_handed_on(pipe: Pipe) -> None:
    """Without its empty fields."""
    await link_on(pipe).send(Answer(nonce="n"))
    assert pipe.done == ['{"type":"answer","nonce":"n"}']


async def test_whoever_does_not_read_is_cut_off(pipe: Pipe) -> None:
    """Before sending would have to wait."""
    link = link_on(pipe)
    assert pipe.high > MAX_UNSENT
    pipe.waiting = MAX_UNSENT + 1
    with pytest.raises(ConnectionError, match="does not read"):
        await link.send(Answer(nonce="n"))
    assert pipe.done == ["abort"]


async def test_ends(pipe: Pipe) -> None:
    """At once, in order, and with a word of goodbye."""
    link = link_on(pipe)
    link.close()
    await link.say_goodbye()
    assert pipe.done == ["close", (WSCloseCode.GOING_AWAY, b"the server stops")]


def test_hearing_something_is_a_sign_of_life(pipe: Pipe) -> None:
    """The clock says when."""
    ticks = Ticks()
    link = link_on(pipe, ticks)
    ticks.now = 9.0
    link.hear()
    assert link.heard == 9.0
