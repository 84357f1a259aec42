"""One terminal between two sides: nothing lost, nothing doubled, nothing without bound, all of it recorded."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stanch.core.errors import Invalid, NotFound, TooLarge, Unavailable
from stanch.core.terminal import Closed
from stanch.core.terminal import Why as Reason
from stanch.core.terminal_wire import (
    BUFFER,
    MAX_DATA,
    Gone,
    HangUp,
    Have,
    Incoming,
    Joined,
    Outgoing,
    Over,
    Resize,
    Word,
    pack,
    read_word,
)
from stanch.server import recordings
from stanch.server.recordings import Recording
from stanch.server.terminal_session import KEPT, Session
from tests.fakes.waiting import eventually
from tests.server.test_recordings import bytes_of, events

CLOSED = Closed(why=Reason.EXIT, code=0, pid=4711, sent=0, received=0)


class Line:
    """A WebSocket in memory: what the session sends, and what the test says to it."""

    def __init__(self) -> None:
        self.to_session: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.from_session: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.closed = False

    async def send_text(self, text: str) -> None:
        if self.closed:
            raise ConnectionError("closed")
        await self.from_session.put(text)

    async def send_bytes(self, data: bytes) -> None:
        if self.closed:
            raise ConnectionError("closed")
        await self.from_session.put(data)

    async def receive(self) -> str | bytes | None:
        return await self.to_session.get()

    async def close(self) -> None:
        self.closed = True
        await self.from_session.put(None)

    def say(self, word: Word) -> None:
        self.to_session.put_nowait(word.model_dump_json())

    def cut(self) -> None:
        self.to_session.put_nowait(None)

    async def hear(self) -> bytes | Word | None:
        async with asyncio.timeout(5):
            message = await self.from_session.get()
        return read_word(message) if isinstance(message, str) else message


class Talker:
    """One end that speaks the wire, over one line after the other."""

    def __init__(self) -> None:
        self.outgoing, self.incoming = Outgoing(), Incoming()
        self.got = b""

    async def join(self, line: Line) -> Joined:
        joined = await line.hear()
        assert isinstance(joined, Joined)
        self.outgoing.joined(joined.have)
        line.say(Joined(have=self.incoming.have))
        return joined

    def send(self, line: Line, data: bytes) -> None:
        self.outgoing.put(data)
        while (message := self.outgoing.take()) is not None:
            line.to_session.put_nowait(message)

    async def take(self, line: Line, size: int) -> bytes:
        """Hear until so many bytes have come in all; the words between are obeyed or left."""
        while len(self.got) < size:
            heard = await line.hear()
            assert heard is not None, self.got
            if isinstance(heard, bytes):
                self.got += self.incoming.take(heard)
                line.say(Have(have=self.incoming.have))
            elif isinstance(heard, Have):
                self.outgoing.acknowledge(heard.have)
        return self.got


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A terminal that nobody has joined yet, with a clock that stands."""
    recording = Recording(
        tmp_path / "one.cast",
        columns=80,
        rows=24,
        began=datetime(2026, 11, 24, tzinfo=UTC),
        title="one",
        seconds=lambda: 0.0,
    )
    return Session(task="tsk_1", endpoint="end_1", by="ada", recording=recording, seconds=lambda: 0.0)


@asynccontextmanager
async def both(session: Session) -> AsyncIterator[tuple[Line, Line]]:
    """A line of the agent and one of the person, being served; both end with the test."""
    agent, person = Line(), Line()
    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve_agent(agent))
        group.create_task(session.serve_person(person))
        yield agent, person
        agent.cut()
        person.cut()


async def test_bytes_go_both_ways_and_are_recorded(session: Session) -> None:
    """What one side says the other one hears, and the recording has both."""
    shell, ada = Talker(), Talker()
    async with both(session) as (agent, person):
        await shell.join(agent)
        await ada.join(person)
        shell.send(agent, b"$ ")
        assert await ada.take(person, 2) == b"$ "
        ada.send(person, b"id\r")
        assert await shell.take(agent, 3) == b"id\r"
    assert bytes_of(session.recording.path, "o") == b"$ "
    assert bytes_of(session.recording.path, "i") == b"id\r"


async def test_a_person_who_comes_back_misses_and_repeats_nothing(session: Session) -> None:
    """A connection that breaks at any place is gone on with where it was."""
    shell, ada = Talker(), Talker()
    agent = Line()
    text = bytes(range(256)) * 400
    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve_agent(agent))
        await shell.join(agent)
        shell.send(agent, text)
        for part in (1, 50_000, len(text)):
            person = Line()
            group.create_task(session.serve_person(person))
            await ada.join(person)
            await ada.take(person, part)
            person.cut()
        agent.cut()
    assert ada.got == text
    assert bytes_of(session.recording.path, "o") == text


async def test_an_agent_that_comes_back_repeats_nothing(session: Session) -> None:
    """What the server has of it is not sent, shown or recorded again."""
    shell, ada = Talker(), Talker()
    person, first, second = Line(), Line(), Line()
    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve_person(person))
        group.create_task(session.serve_agent(first))
        await ada.join(person)
        await shell.join(first)
        shell.send(first, b"one ")
        await ada.take(person, 4)
        group.create_task(session.serve_agent(second))
        assert (await shell.join(second)).have == 4
        shell.send(second, b"two")
        assert await ada.take(person, 7) == b"one two"
        person.cut()
        second.cut()
    assert first.closed
    assert bytes_of(session.recording.path, "o") == b"one two"


async def test_somebody_new_begins_at_what_is_kept(session: Session) -> None:
    """A program that knows nothing of the terminal is told where the first byte is, and how much was typed."""
    shell, ada, again = Talker(), Talker(), Talker()
    async with both(session) as (agent, person):
        await shell.join(agent)
        await ada.join(person)
        ada.send(person, b"ls\r")
        await shell.take(agent, 3)
        shell.send(agent, b"seen")
        await ada.take(person, 4)
        line = Line()
        async with asyncio.TaskGroup() as group:
            group.create_task(session.serve_person(line))
            joined = await line.hear()
            assert isinstance(joined, Joined)
            assert joined.have == 3
            again.incoming = Incoming(start=joined.first)
            again.outgoing = Outgoing(start=joined.have)
            line.say(Joined(have=joined.first))
            shell.send(agent, b" more")
            assert (await again.take(line, 5)).endswith(b" more")
            line.cut()


async def test_a_flood_waits_for_a_sleeping_person(session: Session) -> None:
    """An agent is told that its bytes have arrived only while there is room, and what it sends beyond is cut off."""
    shell, agent = Talker(), Line()
    serving = asyncio.ensure_future(session.serve_agent(agent))
    await shell.join(agent)
    for n in range(KEPT // MAX_DATA + 1):
        agent.to_session.put_nowait(pack(n * MAX_DATA, b"x" * MAX_DATA))
    with pytest.raises(TooLarge):
        await serving
    told = [one.have for one in await heard(agent) if isinstance(one, Have)]
    assert max(told, default=0) <= KEPT - BUFFER
    assert session.person.outgoing.end == KEPT


async def heard(line: Line) -> list[bytes | Word | None]:
    """All that was said on a line so far."""
    found = []
    while not line.from_session.empty():
        found.append(await line.hear())
    return found


async def test_the_size_is_passed_on_and_recorded(session: Session) -> None:
    """The newest size reaches the agent, also one that comes later."""
    shell, ada = Talker(), Talker()
    async with both(session) as (agent, person):
        await ada.join(person)
        person.say(Resize(columns=120, rows=40))
        await shell.join(agent)
        assert await agent.hear() == Resize(columns=120, rows=40)
    assert [0.0, "r", "120x40"] in events(session.recording.path)


async def test_hanging_up_reaches_the_agent(session: Session) -> None:
    """And the recording says who did."""
    shell, ada = Talker(), Talker()
    async with both(session) as (agent, person):
        await shell.join(agent)
        await ada.join(person)
        person.say(HangUp())
        assert await agent.hear() == HangUp()
    assert [0.0, "m", "ada hung up"] in events(session.recording.path)


async def test_what_stands_is_said_again(session: Session) -> None:
    """The size and the hanging up reach an agent whose connection broke just then."""
    shell, ada, person, first = Talker(), Talker(), Line(), Line()
    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve_person(person))
        group.create_task(session.serve_agent(first))
        await ada.join(person)
        await shell.join(first)
        await eventually(lambda: session.agent.ever)
        first.cut()
        person.say(Resize(columns=100, rows=30))
        person.say(HangUp())
        for _ in range(2):
            agent = Line()
            group.create_task(session.serve_agent(agent))
            await shell.join(agent)
            assert await agent.hear() == Resize(columns=100, rows=30)
            assert await agent.hear() == HangUp()
            agent.cut()
        person.cut()


async def test_the_end_comes_after_all_bytes(session: Session) -> None:
    """The last output is shown before the person is told that it is over, and the connection is closed then."""
    shell, ada = Talker(), Talker()
    async with both(session) as (agent, person):
        await shell.join(agent)
        await ada.join(person)
        shell.send(agent, b"bye")
        agent.say(Over(closed=CLOSED))
        assert await ada.take(person, 3) == b"bye"
        assert await person.hear() == Over(closed=CLOSED)
        assert await person.hear() is None
    assert session.over


async def test_the_end_is_told_to_whoever_comes_back(session: Session) -> None:
    """A person whose connection broke just then learns how it ended."""
    shell, ada = Talker(), Talker()
    agent, person = Line(), Line()
    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve_agent(agent))
        await shell.join(agent)
        shell.send(agent, b"bye")
        agent.say(Over(closed=CLOSED))
    for _ in range(2):
        person = Line()
        async with asyncio.TaskGroup() as group:
            group.create_task(session.serve_person(person))
            await ada.join(person)
            await ada.take(person, 3)
            while not isinstance(word := await person.hear(), Over):
                assert not isinstance(word, Gone)
            person.cut()


@pytest.mark.parametrize(
    "message",
    ["no json", '{"type":"closed"}', b"short", pack(5, b"a gap"), Over(closed=CLOSED).model_dump_json(), b"x" * 50_000],
    ids=["no-json", "half-a-word", "short", "a-gap", "an-agents-word", "long"],
)
async def test_what_a_person_must_not_say(session: Session, message: str | bytes) -> None:
    """It ends the connection with an error, and leaves the terminal as it was."""
    line, ada = Line(), Talker()
    serving = asyncio.ensure_future(session.serve_person(line))
    await ada.join(line)
    line.to_session.put_nowait(message)
    with pytest.raises(Invalid):
        await serving
    assert line.closed
    assert not session.over


@pytest.mark.parametrize("message", [Resize(columns=1, rows=1), HangUp(), Gone(error=NotFound("no").body())])
async def test_what_an_agent_must_not_say(session: Session, message: Word) -> None:
    """An endpoint is hostile: a word that is not its own ends its connection."""
    line, shell = Line(), Talker()
    serving = asyncio.ensure_future(session.serve_agent(line))
    await shell.join(line)
    line.say(message)
    with pytest.raises(Invalid):
        await serving


async def test_a_first_word_that_is_none(session: Session) -> None:
    """Nothing is taken before both have said what they have."""
    line = Line()
    serving = asyncio.ensure_future(session.serve_agent(line))
    line.to_session.put_nowait(pack(0, b"hasty"))
    with pytest.raises(Invalid):
        await serving
    assert session.agent.incoming.have == 0


async def test_a_full_recording_hangs_up(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is passed on that is not recorded."""
    monkeypatch.setattr(recordings, "MAX_BYTES", 500)
    line, shell = Line(), Talker()
    serving = asyncio.ensure_future(session.serve_agent(line))
    await shell.join(line)
    shell.send(line, b"x" * 1000)
    with pytest.raises(TooLarge):
        await serving
    assert session.person.outgoing.end == 0
    assert isinstance(session.last, Gone)
    assert session.last.error.code == "too-large"


async def test_who_joins_elsewhere_sends_the_first_away_for_good(session: Session) -> None:
    """The first is told why, so that it does not come back and the two do not replace each other for ever."""
    ada, first, second = Talker(), Line(), Line()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(session.serve_person(first))
        await ada.join(first)
        group.create_task(session.serve_person(second))
        word = await first.hear()
        assert isinstance(word, Gone)
        assert "elsewhere" in word.error.message
        await ada.join(second)
        await asyncio.wait({waiting})
        second.cut()


async def test_hung_up_before_it_was_opened(session: Session) -> None:
    """Whoever gives up waiting is let go at once, and the endpoint that comes later opens nothing."""
    ada, person = Talker(), Line()
    serving = asyncio.ensure_future(session.serve_person(person))
    await ada.join(person)
    person.say(HangUp())
    word = await person.hear()
    assert isinstance(word, Gone)
    assert word.error.code == "cancelled"
    person.cut()
    await serving


async def test_an_agent_that_comes_back_to_what_is_lost_is_told(session: Session) -> None:
    """A shell whose terminal was given up meanwhile does not go on unrecorded."""
    shell, agent = Talker(), Line()
    session.agent.ever = True
    session.lose(NotFound("gone"))
    serving = asyncio.ensure_future(session.serve_agent(agent))
    await shell.join(agent)
    assert isinstance(await agent.hear(), Gone)
    agent.cut()
    await serving


async def test_a_full_disk_ends_it_with_a_whole_recording(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is taken back, both sides are told, and nothing is shown that is not recorded."""
    line, shell, write = Line(), Talker(), os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 500:
            raise OSError(28, "No space left on device")
        return write(file, bytes(data)[:400])

    serving = asyncio.ensure_future(session.serve_agent(line))
    await shell.join(line)
    monkeypatch.setattr(recordings.os, "write", full)
    shell.send(line, b"x" * 700)
    with pytest.raises(Unavailable):
        await serving
    assert isinstance(session.last, Gone)
    assert events(session.recording.path) == []
    assert session.person.outgoing.end == 0
