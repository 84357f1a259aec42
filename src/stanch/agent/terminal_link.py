"""A terminal's connection to the server: one WebSocket after the other, and no byte lost or doubled between them.

The words are those of `core.terminal_wire`. What the shell writes waits in `outgoing` until the server has it; what was
typed waits in `typed` until the shell has taken it, and only then the server is told that it has arrived. So each side
sends no more than the other has room for, while words (hang up, another size) always get through.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from functools import partial
from typing import Protocol, Self

import aiohttp
import structlog

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.agent.host.first_of import first_of
from stanch.core.errors import Invalid, NotFound, StanchError, Unavailable
from stanch.core.terminal import Closed, Why
from stanch.core.terminal_wire import (
    MAX_DATA,
    MAX_WORD,
    TERMINAL_PATH,
    Gone,
    HangUp,
    Have,
    Joined,
    Outgoing,
    Over,
    Resize,
    Typed,
    Word,
    read_word,
)
from stanch.core.types import seconds

JOIN_WITHIN = seconds(30)
GRACE = seconds(60)
"""How long the shell goes on while the server cannot be reached."""

FINISH_WITHIN = seconds(30)
"""For the last bytes to arrive, and the word that it is closed."""

LAST_WORD = 1.0
"""Seconds for the last word alone."""

TELL_AFTER = 0.05
"""Seconds after which the server is told what has arrived; if it is much, it is told at once."""

STABLE_AFTER = 10.0
"""A connection that lived for so many seconds was a good one: the next trouble starts with short waits again."""

MAX_MESSAGE = MAX_DATA + 4 * MAX_WORD

log = structlog.get_logger(__name__)


class Socket(Protocol):
    """What is used of a WebSocket."""

    async def send_str(self, data: str) -> None:
        """Send a text message."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        ...

    async def receive(self) -> aiohttp.WSMessage:
        """The next message, or what ended the connection."""
        ...


Dial = Callable[[str], AbstractAsyncContextManager[Socket]]
"""A new connection for a path. Unavailable if there is none to be had; NotFound and Denied are the server's word."""


def dial_through(gateway: Gateway) -> Dial:
    """Connections to the gateway that this agent uses."""
    return partial(gateway.connected, max_message=MAX_MESSAGE)


def short_waits() -> Backoff:
    """Somebody sits there and waits."""
    return Backoff(first=0.5, longest=5.0)


class TerminalLink:
    """The way to the person at one terminal. `async with` it: entering joins the server, leaving ends the connection.

    Unavailable on entering if the server cannot be joined.
    """

    def __init__(
        self,
        *,
        task: str,
        dial: Dial,
        backoff: Callable[[], Backoff] = short_waits,
        join_within: timedelta = JOIN_WITHIN,
        grace: timedelta = GRACE,
        finish_within: timedelta = FINISH_WITHIN,
    ) -> None:
        self._path = f"{TERMINAL_PATH}/{task}"
        self._dial = dial
        self._backoff = backoff()
        self._join_within = join_within.total_seconds()
        self._grace = grace.total_seconds()
        self._finish_within = finish_within.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._joined: asyncio.Future[None] = self._loop.create_future()
        self._staying: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._told = 0
        self._telling: asyncio.TimerHandle | None = None
        self._closed: Closed | None = None
        self._must_hear = True
        self._said = False
        self.outgoing = Outgoing()
        self.typed = Typed()
        self.room = asyncio.Event()
        """The server has taken something: there is room again for what the shell writes."""
        self.news = asyncio.Event()
        """Something was typed."""
        self.over: asyncio.Future[Why] = self._loop.create_future()
        """The person has left, or the server is out of reach for too long."""
        self.resized: Callable[[int, int], None] = lambda _columns, _rows: None
        """Told columns and rows of the person's window."""

    async def __aenter__(self) -> Self:
        self._staying = self._loop.create_task(self._stay())
        try:
            await asyncio.wait({self._staying, self._joined}, return_when=asyncio.FIRST_COMPLETED)
            if not self._joined.done():
                await self._staying
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._telling is not None:
            self._telling.cancel()
        if self._staying is not None:
            self._staying.cancel()
            with suppress(asyncio.CancelledError, StanchError):
                await self._staying

    def wake(self) -> None:
        """There is something to be sent, or to be told as passed on."""
        self._wake.set()

    async def finish(self, closed: Closed, *, hurried: bool = False) -> None:
        """Send what is left, and then that it is closed; gives up when it takes too long."""
        if self._staying is None:
            return
        self._closed = closed
        self.wake()
        await asyncio.wait({self._staying}, timeout=LAST_WORD if hurried else self._finish_within)
        # Somebody who does not read has all of it on the way: better to know that it is closed than to wait for that.
        self._must_hear = False
        self.wake()
        await asyncio.wait({self._staying}, timeout=LAST_WORD)

    # --- one connection after the other ------------------------------------------------------------------------------

    async def _stay(self) -> None:
        """Join again and again, until all is said, or it is over. Raises only if it never joined."""
        lost = self._loop.time()
        while True:
            until = lost + (self._grace if self._joined.done() else self._join_within)
            joined: float | None = None
            try:
                async with asyncio.timeout_at(until) as limit, self._dial(self._path) as socket:
                    await self._join(socket)
                    joined = self._loop.time()
                    limit.reschedule(None)
                    await self._talk(socket)
                    return
            except TimeoutError:
                trouble: StanchError = Unavailable("The server did not answer in time")
            except StanchError as error:
                trouble = error
            if joined is not None:
                lost = until = self._loop.time()
                until += self._grace
                if lost - joined > STABLE_AFTER:
                    self._backoff.reset()
            wait = self._backoff.next()
            if isinstance(trouble, NotFound | Invalid) or self._loop.time() + wait >= until:
                self._give_up(trouble)
                return
            log.info("terminal-waits", path=self._path, error=str(trouble), next_try=round(wait, 1))
            await asyncio.sleep(wait)

    def _give_up(self, trouble: StanchError) -> None:
        log.warning("terminal-lost", path=self._path, error=str(trouble))
        if not self._joined.done():
            raise Unavailable(
                "The server could not be joined, so no shell was started",
                got=str(trouble),
                hint="Whoever ordered it may have gone: order it again.",
            ) from trouble
        self._end(Why.LINK)

    def _end(self, why: Why) -> None:
        if not self.over.done():
            self.over.set_result(why)

    async def _join(self, socket: Socket) -> None:
        """Say what is here, and hear what is there."""
        joined = Joined(have=self.typed.passed, first=self.outgoing.acknowledged)
        await socket.send_str(joined.model_dump_json())
        self._told = joined.have
        word = _word(await socket.receive())
        if isinstance(word, Gone):
            raise _nobody(word)
        if not isinstance(word, Joined):
            raise Invalid("The terminal's first message must be `joined`", got=getattr(word, "type", "data"))
        if word.first > self.typed.passed:
            raise Invalid("Bytes of the terminal are missing", got=word.first, expected=self.typed.passed)
        self.outgoing.joined(word.have)
        self.room.set()
        if not self._joined.done():
            self._joined.set_result(None)

    async def _talk(self, socket: Socket) -> None:
        """Until the server knows that it is closed; raises when the connection breaks, or is not wanted any more."""
        self._said = False
        await first_of(self._send(socket), self._hear(socket))

    # --- what goes ---------------------------------------------------------------------------------------------------

    async def _send(self, socket: Socket) -> None:
        while True:
            self._wake.clear()
            while (message := self.outgoing.take()) is not None:
                await socket.send_bytes(message)
            await self._tell(socket)
            if self._closed is not None and not (self._must_hear and self.outgoing.acknowledged < self.outgoing.end):
                break
            await self._wake.wait()
        self._said = True
        await socket.send_str(Over(closed=self._closed).model_dump_json())
        await asyncio.Event().wait()  # that it was heard shows when the server hangs up

    async def _tell(self, socket: Socket) -> None:
        """What has arrived: much at once, little in a moment."""
        passed = self.typed.passed
        due = self._telling is not None and self._telling.when() <= self._loop.time()
        if passed - self._told >= MAX_DATA or (passed > self._told and due):
            self._told = passed
            await socket.send_str(Have(have=passed).model_dump_json())
        if due or self._telling is None:
            self._telling = self._loop.call_later(TELL_AFTER, self.wake) if passed > self._told else None

    # --- what comes --------------------------------------------------------------------------------------------------

    async def _hear(self, socket: Socket) -> None:
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE and self._said:
                return
            word = _word(message)
            match word:
                case bytes():
                    self.typed.take(word)
                    self.news.set()
                case Have(have=have):
                    self.outgoing.acknowledge(have)
                    self.room.set()
                    self.wake()
                case Resize(columns=columns, rows=rows):
                    self.resized(columns, rows)
                case HangUp():
                    self._end(Why.LEFT)
                case Gone():
                    raise _nobody(word)
                case _:
                    raise Invalid("The server does not say this", got=word.type)


def _word(message: aiohttp.WSMessage) -> Word | bytes:
    """What a message says; Unavailable if it is the end of the connection, Invalid if it is none of ours."""
    match message.type:
        case aiohttp.WSMsgType.TEXT:
            return read_word(message.data)
        case aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        case _:
            raise Unavailable("The connection ended", got=message.extra or message.data)


def _nobody(word: Gone) -> NotFound:
    return NotFound("Nobody waits at this terminal any more", got=word.error.message)
