"""A person's end of a terminal: typed bytes out, shown bytes in, over connections that may break.

What was not sent when a connection broke goes out on the next one, and what was shown is not shown twice. The server
keeps a terminal for some minutes; here one gives up after `patience`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol
from urllib.parse import quote

import aiohttp

from stanch.core.errors import Cancelled, Invalid, StanchError, Unavailable
from stanch.core.terminal import Closed
from stanch.core.terminal_wire import (
    MAX_DATA,
    MAX_WORD,
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

JOIN_SECONDS: Final = 15.0
PING_SECONDS: Final = 10.0
PATIENCE: Final = 60.0
"""Seconds of trying to come back."""

_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)


class Screen(Protocol):
    """Where a person sits."""

    def show(self, data: bytes) -> None:
        """Bytes of the terminal."""
        ...

    def tell(self, text: str) -> None:
        """A line about the connection."""
        ...

    async def typed(self) -> bytes | None:
        """What was typed next, at most MAX_DATA bytes; None to hang up. Waits for ever when nothing comes any more."""
        ...

    async def resized(self) -> tuple[int, int]:
        """The next size, columns and rows; at once the first time."""
        ...


class Terminal:
    """One terminal that one has ordered, or joins again."""

    def __init__(
        self, url: str, *, token: str, tls: ssl.SSLContext | None, task: str, patience: float = PATIENCE
    ) -> None:
        """`url` is the server's, as `http.url`; `tls` None only where it is plain HTTP, in tests."""
        self._url = f"{url}/api/v1/tasks/{quote(task, safe='')}/terminal"
        self._headers = {"Authorization": f"Bearer {token}", "X-Stanch-Origin": "cli"}
        self._tls = tls
        self._patience = patience
        self._outgoing = Outgoing()
        self._incoming = Incoming()
        self._begun = self._joined = False
        self._words: list[Word] = []
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, screen: Screen) -> Closed:
        """Stay until it is closed, and say how; the server's error if there is none, Unavailable if it is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._take(screen)), group.create_task(self._follow_size(screen))]
                ended = await self._until_ended(screen)
                for one in beside:
                    one.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        if isinstance(ended, Gone):
            raise StanchError.from_body(ended.error)
        return ended.closed

    async def _until_ended(self, screen: Screen) -> Over | Gone:
        loop, tries = asyncio.get_running_loop(), 0
        lost_at: float | None = None
        while True:
            try:
                async with self._connected() as socket:
                    ended = await self._join_and_talk(socket, screen)
                    if ended is not None:
                        return ended
                reason = "the connection was closed"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            if self._joined:
                self._joined, tries, lost_at = False, 0, None
            if lost_at is None:
                lost_at = loop.time()
                screen.tell(f"The connection is lost ({reason}); trying again for {self._patience:g} s ...")
            if loop.time() - lost_at > self._patience:
                raise Unavailable(
                    "The terminal's server does not answer", got=reason, hint="Join it again with `stanch terminal`."
                )
            await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else False)
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=True) as session,
            session.ws_connect(
                self._url,
                headers=self._headers,
                max_msg_size=MAX_DATA + MAX_WORD,
                heartbeat=PING_SECONDS,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            ) as socket,
        ):
            yield socket

    async def _join_and_talk(self, socket: aiohttp.ClientWebSocketResponse, screen: Screen) -> Over | Gone | None:
        """Until this connection ends; how the terminal did, if it did. ConnectionError for what is not understood."""
        try:
            return await self._join(socket) or await self._talk(socket, screen)
        except Invalid as error:
            raise ConnectionError(str(error)) from error

    async def _join(self, socket: aiohttp.ClientWebSocketResponse) -> Gone | None:
        async with asyncio.timeout(JOIN_SECONDS):
            first = await _heard(socket)
        if isinstance(first, Gone):
            return first
        if not isinstance(first, Joined):
            raise ConnectionError("it does not greet")
        if not self._begun:
            self._outgoing, self._incoming = Outgoing(start=first.have), Incoming(start=first.first)
        self._outgoing.joined(first.have)
        self._begun = True
        self._room.set()
        await socket.send_str(Joined(have=self._incoming.have).model_dump_json())
        self._joined = True
        return None

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse, screen: Screen) -> Over | Gone | None:
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(socket))
                ended = await self._read(socket, screen)
                writer.cancel()
                return ended
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, screen: Screen) -> Over | Gone | None:
        while (said := await _heard(socket)) is not None:
            if isinstance(said, bytes):
                await self._show(socket, screen, self._incoming.take(said))
                self._changed.set()
            elif isinstance(said, Have):
                self._outgoing.acknowledge(said.have)
                self._room.set()
            elif isinstance(said, Over | Gone):
                return said
        return None

    async def _show(self, socket: aiohttp.ClientWebSocketResponse, screen: Screen, data: bytes) -> None:
        try:
            screen.show(data)
        except OSError as error:
            # Not the connection is lost, but whoever looked: `stanch shell web-01 | head`.
            await socket.send_str(HangUp().model_dump_json())
            raise Cancelled("Nobody reads what the terminal shows any more", got=error.strerror) from error

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        told = self._incoming.have
        while True:
            self._changed.clear()
            while (message := self._outgoing.take()) is not None:
                await socket.send_bytes(message)
            if self._incoming.have > told:
                told = self._incoming.have
                await socket.send_str(Have(have=told).model_dump_json())
            while self._words:
                await socket.send_str(self._words[0].model_dump_json())
                del self._words[0]
            await self._changed.wait()

    async def _take(self, screen: Screen) -> None:
        """What is typed, once there is a terminal, and room."""
        while True:
            await self._room.wait()
            data = await screen.typed()
            if data is None:
                self._say(HangUp())
                return
            while len(data) > self._outgoing.room:
                self._room.clear()
                await self._room.wait()
            self._outgoing.put(data)
            self._changed.set()

    async def _follow_size(self, screen: Screen) -> None:
        while True:
            columns, rows = await screen.resized()
            self._say(Resize(columns=columns, rows=rows))

    def _say(self, word: Word) -> None:
        # Only the newest size counts.
        self._words = [one for one in self._words if one.type != word.type] + [word]
        self._changed.set()


async def _heard(socket: aiohttp.ClientWebSocketResponse) -> bytes | Word | None:
    """The next message; None at the end of the connection."""
    message = await socket.receive()
    match message.type:
        case aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        case aiohttp.WSMsgType.TEXT:
            return read_word(str(message.data))
        case aiohttp.WSMsgType.ERROR:
            raise ConnectionError(str(message.data))
        case _:
            return None
