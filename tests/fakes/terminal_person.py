"""A server and a person behind it in one: the other end of a terminal, on connections that break where a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import WSMessage, WSMsgType, web

from stanch.core.errors import StanchError, Unavailable
from stanch.core.terminal import Closed
from stanch.core.terminal_wire import Have, Incoming, Joined, Outgoing, Over, Word, read_word


class MemorySocket:
    """One end of a connection in memory. `cut` loses what is on the way, in both directions."""

    def __init__(self) -> None:
        self.peer: MemorySocket
        self._coming: asyncio.Queue[WSMessage] = asyncio.Queue(4)
        self._cut = asyncio.Event()

    @classmethod
    def pair(cls) -> tuple["MemorySocket", "MemorySocket"]:
        one, other = cls(), cls()
        one.peer, other.peer = other, one
        return one, other

    def cut(self) -> None:
        self._cut.set()
        self.peer._cut.set()

    async def close(self) -> None:
        await self._send(WSMessage(WSMsgType.CLOSE, 1000, ""))

    async def send_str(self, data: str) -> None:
        await self._send(WSMessage(WSMsgType.TEXT, data, None))

    async def send_bytes(self, data: bytes) -> None:
        await self._send(WSMessage(WSMsgType.BINARY, data, None))

    async def _send(self, message: WSMessage) -> None:
        if await self._unless_cut(self.peer._coming.put(message)) is None:
            raise Unavailable("cut")

    async def receive(self) -> WSMessage:
        return await self._unless_cut(self._coming.get()) or WSMessage(WSMsgType.CLOSED, None, None)

    async def _unless_cut(self, work):
        """What it gives (True for nothing), or None if the connection is cut before."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work), loop.create_task(self._cut.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return None if self._cut.is_set() else tasks[0].result() or True
        finally:
            for one in tasks:
                one.cancel()


class ServerSocket:
    """The server's end of a real connection."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.send_str, self.send_bytes, self.receive, self.close = (
            socket.send_str, socket.send_bytes, socket.receive, socket.close,
        )  # fmt: skip
        self._request = request

    def cut(self) -> None:
        """Without a goodbye."""
        assert self._request.transport is not None
        self._request.transport.abort()


@dataclass
class FakePerson:
    """Sits at the other end. Its attributes are the test's switches and records."""

    cuts: list[int] = field(default_factory=list)
    """After so many messages from the agent, each connection is cut; those after the last are not."""
    refuses: StanchError | None = None
    """What dialling raises."""
    acknowledges: bool = True
    says: list[Word | str | bytes] = field(default_factory=list)
    """Said in place of what is right, on the next connection, from its first message on."""
    outgoing: Outgoing = field(default_factory=lambda: Outgoing(limit=4 * 1_048_576))
    incoming: Incoming = field(default_factory=Incoming)
    shown: bytearray = field(default_factory=bytearray)
    told: list[int] = field(default_factory=list)
    """What the agent said that it has."""
    closed: Closed | None = None
    dialled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.news = asyncio.Condition()
        self._wake = asyncio.Event()
        self._words: list[Word] = []
        self._there: MemorySocket | ServerSocket | None = None

    # --- the person --------------------------------------------------------------------------------------------------

    def type(self, text: str | bytes) -> None:
        """Type this."""
        self.outgoing.put(text.encode() if isinstance(text, str) else text)
        self._wake.set()

    def say(self, word: Word) -> None:
        """Say this."""
        self._words.append(word)
        self._wake.set()

    def cut(self) -> None:
        """Break the connection that there is."""
        if self._there is not None:
            self._there.cut()

    async def until(self, true: Callable[[], object], *, within: float = 20.0) -> None:
        """Wait until it holds of what came."""
        async with asyncio.timeout(within), self.news:
            await self.news.wait_for(true)

    async def sees(self, text: str) -> None:
        """Wait until this is shown."""
        await self.until(lambda: text.encode() in self.shown)

    # --- the server --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def dial(self, path: str) -> AsyncIterator[MemorySocket]:
        """A connection, as `terminal_link.Dial`."""
        self.dialled.append(path)
        await self._tell()
        if self.refuses is not None:
            raise self.refuses
        ours, theirs = MemorySocket.pair()
        serving = asyncio.get_running_loop().create_task(self.serve(theirs))
        try:
            yield ours
        finally:
            ours.cut()
            await asyncio.gather(serving, return_exceptions=True)

    async def serve(self, socket) -> None:
        """One connection, to its end."""
        self._there = socket
        with suppress(Unavailable, ConnectionError):
            if self.says:
                await self._say_wrong(socket)
                return
            await socket.send_str(Joined(have=self.incoming.have, first=self.outgoing.acknowledged).model_dump_json())
            joined = read_word((await socket.receive()).data or "")
            assert isinstance(joined, Joined)
            self.outgoing.joined(joined.have)
            sending = asyncio.get_running_loop().create_task(self._send(socket))
            try:
                await self._hear(socket)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _say_wrong(self, socket) -> None:
        for one in self.says:
            if isinstance(one, bytes):
                await socket.send_bytes(one)
            else:
                await socket.send_str(one if isinstance(one, str) else one.model_dump_json())
        while (await socket.receive()).type in {WSMsgType.TEXT, WSMsgType.BINARY}:
            pass

    async def _send(self, socket) -> None:
        with suppress(Unavailable, ConnectionError):
            while True:
                self._wake.clear()
                while (message := self.outgoing.take()) is not None:
                    await socket.send_bytes(message)
                while self._words:
                    await socket.send_str(self._words.pop(0).model_dump_json())
                await self._wake.wait()

    async def _hear(self, socket) -> None:
        left = self.cuts.pop(0) if self.cuts else None
        while (message := await socket.receive()).type in {WSMsgType.TEXT, WSMsgType.BINARY}:
            if left is not None:
                left -= 1
                if left < 0:
                    socket.cut()
                    return
            await self._take(socket, message)
            await self._tell()
            if self.closed is not None:
                await socket.close()
                return

    async def _take(self, socket, message: WSMessage) -> None:
        if message.type is WSMsgType.BINARY:
            self.shown += self.incoming.take(message.data)
            if self.acknowledges:
                await socket.send_str(Have(have=self.incoming.have).model_dump_json())
            return
        match read_word(message.data):
            case Have(have=have):
                self.told.append(have)
                self.outgoing.acknowledge(have)
            case Over(closed=closed):
                self.closed = closed
            case word:
                raise AssertionError(f"an agent does not say {word}")

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()
