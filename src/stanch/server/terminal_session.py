"""One terminal on its way through the server: two sides, an agent's and a person's, and what is on the way between.

Each side has one connection at a time, or none; a new one takes the place of the one before. Bytes of one side are
recorded, then kept for the other until that says that it has them. A side is told that its bytes have arrived only as
long as there is room for more, so that neither a flooding program nor a sleeping person costs more than the buffers.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Protocol

from stanch.core.errors import Cancelled, Conflict, Invalid, StanchError, TooLarge
from stanch.core.terminal_wire import (
    BUFFER,
    Gone,
    HangUp,
    Have,
    Incoming,
    Joined,
    Outgoing,
    Over,
    Resize,
    Word,
    read_word,
)
from stanch.server.recordings import Recording

JOIN_SECONDS = 30.0
FAREWELL_SECONDS = 2.0
KEPT = 4 * BUFFER
"""Bytes on the way to one side, at most: what the other may still send after it was told to wait, and more."""


class Socket(Protocol):
    """A WebSocket, of whichever library."""

    async def send_text(self, text: str) -> None:
        """Send; ConnectionError if it is closed."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send; ConnectionError if it is closed."""
        ...

    async def receive(self) -> str | bytes | None:
        """The next message; None if there will be no more."""
        ...

    async def close(self) -> None:
        """Close it; never raises."""
        ...


class Side:
    """One end of a terminal."""

    def __init__(self, now: float) -> None:
        self.outgoing = Outgoing(limit=KEPT)
        self.incoming = Incoming()
        self.words: deque[Word] = deque(maxlen=100)
        """What is to be said to it."""
        self.changed = asyncio.Event()
        self.there = False
        """Is it connected?"""
        self.ever = False
        """Was it ever?"""
        self.since = now
        """Since when it is there, or away."""
        self._connection: asyncio.Task[None] | None = None

    def say(self, word: Word) -> None:
        """Tell it, on this connection or the next."""
        self.words.append(word)
        self.changed.set()

    async def replace(self) -> None:
        """End the connection that there is, for another one."""
        before, self._connection = self._connection, asyncio.current_task()
        if before is not None and before is not self._connection:
            before.cancel()
            await asyncio.wait({before})

    @property
    def replaced(self) -> bool:
        """Has another connection taken the place of this task's?"""
        return self._connection is not None and self._connection is not asyncio.current_task()

    def left(self) -> None:
        """The connection of this task has ended."""
        if self._connection is asyncio.current_task():
            self._connection = None


class Session:
    """A terminal, from the first who comes to its end."""

    def __init__(
        self, *, task: str, endpoint: str, by: str, recording: Recording, seconds: Callable[[], float]
    ) -> None:
        self.task = task
        self.endpoint = endpoint
        self.by = by
        self.recording = recording
        self.agent, self.person = Side(seconds()), Side(seconds())
        self._size: Resize | None = None
        self._hung_up = False
        self.last: Over | Gone | None = None
        """What the person is told in the end; nothing is recorded any more then."""
        self._seconds = seconds

    async def serve_agent(self, socket: Socket) -> None:
        """Talk to the agent until its connection ends."""
        await self._serve(self.agent, self.person, socket, self.recording.output, self._agent_said)

    async def serve_person(self, socket: Socket) -> None:
        """Talk to the person until their connection ends."""
        await self._serve(self.person, self.agent, socket, self.recording.typed, self._person_said)

    @property
    def over(self) -> bool:
        """Has it ended?"""
        return self.last is not None

    def hang_up(self, why: str) -> None:
        """Let the agent end it."""
        if not self.over:
            self.recording.note(why)
            self._hung_up = True
            self.agent.say(HangUp())

    def end(self, last: Over | Gone) -> None:
        """It is over: tell the person, and record no more. Only the first of several ends counts."""
        if self.last is None:
            self.last = last
            self.recording.close()
            self.person.say(last)

    def lose(self, why: StanchError) -> None:
        """End it, for a reason that is not the endpoint's: both sides are told."""
        if not self.over:
            self.recording.note(why.message)
        self.end(Gone(error=why.body()))
        self.agent.say(Gone(error=why.body()))

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _serve(
        self,
        side: Side,
        other: Side,
        socket: Socket,
        record: Callable[[bytes], None],
        said: Callable[[Word], Awaitable[bool]],
    ) -> None:
        await side.replace()
        try:
            with suppress(ConnectionError):
                await self._join(side, socket)
                await self._talk(side, other, socket, record, said)
        except StanchError as error:
            with suppress(ConnectionError):
                await socket.send_text(Gone(error=error.body()).model_dump_json())
            raise
        except asyncio.CancelledError:
            if side is self.person and side.replaced:
                await _farewell(socket, _ELSEWHERE)
            raise
        finally:
            side.left()
            side.there, side.since = False, self._seconds()
            await socket.close()

    async def _talk(
        self,
        side: Side,
        other: Side,
        socket: Socket,
        record: Callable[[bytes], None],
        said: Callable[[Word], Awaitable[bool]],
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(side, other, socket))
                await self._read(side, other, socket, record, said)
                writer.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _join(self, side: Side, socket: Socket) -> None:
        """Say what is here, and hear what is there."""
        joined = Joined(have=side.incoming.have, first=side.outgoing.acknowledged)
        await socket.send_text(joined.model_dump_json())
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                message = await socket.receive()
        except TimeoutError:
            raise ConnectionError("nothing came") from None
        word = read_word(message) if isinstance(message, str) else None
        if not isinstance(word, Joined):
            raise Invalid("The terminal's first message must be `joined`", got=type(message).__name__)
        side.outgoing.joined(word.have)
        side.there = side.ever = True
        side.since = self._seconds()
        side.words = deque(self._standing(side), maxlen=side.words.maxlen)
        side.changed.set()

    def _standing(self, side: Side) -> Iterator[Word]:
        """What counts on a new connection, whatever was said on the one before and may have been lost with it."""
        if side is self.agent:
            yield from [self._size] if self._size else []
            yield from [HangUp()] if self._hung_up else []
            yield from [self.last] if isinstance(self.last, Gone) else []
        elif self.last is not None:
            yield self.last

    async def _read(
        self,
        side: Side,
        other: Side,
        socket: Socket,
        record: Callable[[bytes], None],
        said: Callable[[Word], Awaitable[bool]],
    ) -> None:
        while (message := await socket.receive()) is not None:
            if isinstance(message, str):
                word = read_word(message)
                if isinstance(word, Have):
                    side.outgoing.acknowledge(word.have)
                    other.changed.set()  # there is room again for what comes from there
                elif not await said(word):
                    return
            else:
                self._take(side, other, message, record)

    def _take(self, side: Side, other: Side, message: bytes, record: Callable[[bytes], None]) -> None:
        new = side.incoming.take(message)
        if not new or self.over:
            return
        if len(new) > other.outgoing.room:
            raise TooLarge("More is on the way than there is room for", expected=f"at most {KEPT} bytes")
        try:
            record(new)
        except StanchError as error:
            self.lose(error)
            raise
        other.outgoing.put(new)
        other.changed.set()
        side.changed.set()

    async def _write(self, side: Side, other: Side, socket: Socket) -> None:
        """Send until the connection is cut, which the reader sees, too."""
        with suppress(ConnectionError):
            await self._send(side, other, socket)

    async def _send(self, side: Side, other: Side, socket: Socket) -> None:
        """What there is, in order, and what was said once all bytes before it are sent."""
        told = side.incoming.have
        while True:
            side.changed.clear()
            while (message := side.outgoing.take()) is not None:
                await socket.send_bytes(message)
            if side.incoming.have > told and other.outgoing.room >= KEPT - 2 * BUFFER:
                told = side.incoming.have
                await socket.send_text(Have(have=told).model_dump_json())
            while side.words:
                word = side.words[0]
                await socket.send_text(word.model_dump_json())
                side.words.popleft()
                if isinstance(word, Over | Gone):
                    return await socket.close()
            await side.changed.wait()

    async def _agent_said(self, word: Word) -> bool:
        """Shall its connection go on?"""
        if isinstance(word, Over):
            self.end(word)
            return False
        raise Invalid("An agent does not say this", got=word.type)

    async def _person_said(self, word: Word) -> bool:
        if self.over:
            return True
        if isinstance(word, Resize):
            self.recording.resized(word.columns, word.rows)
            self._size = word
            self.agent.say(word)
        elif isinstance(word, HangUp) and not self.agent.ever:
            self.lose(Cancelled("It was hung up before the endpoint opened it"))
        elif isinstance(word, HangUp):
            self.hang_up(f"{self.by} hung up")
        else:
            raise Invalid("A person does not say this", got=word.type)
        return True


_ELSEWHERE = Conflict("This terminal was joined from elsewhere, with your account", hint="Only one may sit at it.")


async def _farewell(socket: Socket, why: StanchError) -> None:
    """Say why, unless it is not read; who is replaced must not try to come back, and replace the other in turn."""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await socket.send_text(Gone(error=why.body()).model_dump_json())
