"""A small HTTP proxy that opens tunnels (CONNECT), writes down all it sees, and misbehaves on request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class FakeProxy:
    """Its attributes are the test's switches and records."""

    answer: bytes | None = TUNNEL
    """What it says to CONNECT; anything but a tunnel ends the connection. None: nothing, for ever."""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """The heads of all requests."""
    seen: bytearray = field(default_factory=bytearray)
    """Every byte of every tunnel, both ways."""
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def until_asked(self, times: int) -> None:
        """Wait until it was asked so often."""
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: len(self.asked) >= times)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            async with self.news:
                self.asked.append(head)
                self.news.notify_all()
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                if self.answer == TUNNEL:
                    await self._carry(head.split()[1], reader, writer)

    async def _carry(self, place: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = place.rpartition(":")
        there, back = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            back.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while some := await reader.read(65_536):
                self.seen += some
                writer.write(some)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def connect_proxy(host: str = "127.0.0.1") -> AsyncIterator[FakeProxy]:
    """A proxy that listens until the end of the block."""
    proxy = FakeProxy()
    server = await asyncio.start_server(proxy.serve, host, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
