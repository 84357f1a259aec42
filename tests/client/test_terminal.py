"""A person's end of a terminal: connections that break lose and double nothing, and the end is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web

from stanch.client import terminal as module
from stanch.client.terminal import Terminal
from stanch.core.errors import Cancelled, Denied, Unavailable
from stanch.core.terminal import Closed
from stanch.core.terminal import Why as Reason
from stanch.core.terminal_wire import (
    Gone,
    HangUp,
    Have,
    Incoming,
    Joined,
    Outgoing,
    Over,
    Resize,
    pack,
    read_word,
)

CLOSED = Closed(why=Reason.EXIT, code=0, pid=4711, sent=0, received=0)
MANY = 30
"""Connections after which the server cuts no more."""

Serve = Callable[[web.WebSocketResponse], Awaitable[None]]


class Screen:
    """A person, by queues."""

    def __init__(self, *keys: bytes | None, sizes: tuple[tuple[int, int], ...] = ()) -> None:
        self.shown = b""
        self.told: list[str] = []
        self.keys: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        for key in keys:
            self.keys.put_nowait(key)
        for size in sizes:
            self.sizes.put_nowait(size)

    def show(self, data: bytes) -> None:
        self.shown += data

    def tell(self, text: str) -> None:
        self.told.append(text)

    async def typed(self) -> bytes | None:
        return await self.keys.get()

    async def resized(self) -> tuple[int, int]:
        return await self.sizes.get()


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """A server that answers each connection so; its URL."""

    async def join(request: web.Request) -> web.WebSocketResponse:
        assert request.headers["Authorization"] == "Bearer secret"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await serve(socket)
        await socket.close()
        return socket

    app = web.Application()
    app.add_routes([web.get("/api/v1/tasks/tsk_1/terminal", join)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def terminal(url: str, *, patience: float = 20.0) -> Terminal:
    return Terminal(url, token="secret", tls=None, task="tsk_1", patience=patience)


class Server:
    """Speaks the wire over many connections, each of which it cuts after some messages."""

    def __init__(self, text: bytes, wanted: int, *, cut_after: int) -> None:
        self.outgoing, self.incoming = Outgoing(limit=10**7), Incoming()
        self.outgoing.put(text)
        self.typed = b""
        self.connections = 0
        self._wanted = wanted
        self._cut_after = cut_after

    async def serve(self, socket: web.WebSocketResponse) -> None:
        self.connections += 1
        await socket.send_str(Joined(have=self.incoming.have, first=self.outgoing.acknowledged).model_dump_json())
        joined = read_word(await socket.receive_str())
        assert isinstance(joined, Joined)
        self.outgoing.joined(joined.have)
        for _ in range(self._cut_after):
            message = self.outgoing.take()
            if message is not None:
                await socket.send_bytes(message)
        while not (self.outgoing.acknowledged == self.outgoing.end and len(self.typed) >= self._wanted):
            await self._hear(socket)
            if self.connections < MANY:
                return
            while (message := self.outgoing.take()) is not None:
                await socket.send_bytes(message)
        await socket.send_str(Over(closed=CLOSED).model_dump_json())

    async def _hear(self, socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            self.typed += self.incoming.take(message.data)
            await socket.send_str(Have(have=self.incoming.have).model_dump_json())
        else:
            assert message.type is WSMsgType.TEXT
            word = read_word(message.data)
            assert isinstance(word, Have)
            self.outgoing.acknowledge(word.have)


@pytest.mark.parametrize("cut_after", [1, 2, 3, 7])
async def test_connections_that_break(monkeypatch: pytest.MonkeyPatch, cut_after: int) -> None:
    """However often they do, both directions arrive whole and once."""
    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    text = bytes(range(256)) * 1000
    keys = [bytes([n % 256]) * 500 for n in range(100)]
    server, screen = Server(text, 50_000, cut_after=cut_after), Screen(*keys)
    async with serving(server.serve) as url, asyncio.timeout(20):
        assert await terminal(url).run(screen) == CLOSED
    assert screen.shown == text
    assert server.typed == b"".join(keys)
    assert server.connections > 1
    assert len(screen.told) >= 1


async def test_it_begins_where_the_server_says() -> None:
    """A program that joins later begins at the first byte that is still kept, and types on from what arrived."""
    heard: list[bytes] = []

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(Joined(have=5, first=100).model_dump_json())
        assert read_word(await socket.receive_str()) == Joined(have=100)
        await socket.send_bytes(pack(100, b"late"))
        while not heard or heard[-1][:8] != (5).to_bytes(8, "big"):
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                heard.append(message.data)
        await socket.send_str(Over(closed=CLOSED).model_dump_json())

    screen = Screen(b"x")
    async with serving(serve) as url, asyncio.timeout(20):
        await terminal(url).run(screen)
    assert screen.shown == b"late"
    assert heard == [pack(5, b"x")]


async def test_sizes_and_hanging_up() -> None:
    """They are said as words; only the newest size counts when several came at once."""
    said = []

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(Joined(have=0).model_dump_json())
        await socket.receive_str()
        while HangUp() not in said:
            said.append(read_word(await socket.receive_str()))
        await socket.send_str(Over(closed=CLOSED).model_dump_json())

    async with serving(serve) as url, asyncio.timeout(20):
        await terminal(url).run(Screen(None, sizes=((80, 24), (100, 30))))
    assert [one for one in said if isinstance(one, Resize)][-1] == Resize(columns=100, rows=30)


async def test_what_the_server_refuses_is_raised() -> None:
    """As the error that the server named, at once, without another try."""

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(Gone(error=Denied("Not yours").body()).model_dump_json())

    async with serving(serve) as url, asyncio.timeout(20):
        with pytest.raises(Denied, match="Not yours"):
            await terminal(url).run(Screen())


@pytest.mark.parametrize("message", ["no json", b"short", pack(10, b"a gap")], ids=["no-json", "short", "a-gap"])
async def test_a_server_that_speaks_nonsense(message: str | bytes) -> None:
    """The connection is given up as if it had broken, and the person is told."""

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(Joined(have=0).model_dump_json())
        await socket.receive_str()
        await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
        await socket.receive()

    screen = Screen()
    async with serving(serve) as url, asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await terminal(url, patience=0.0).run(screen)
    assert "lost" in screen.told[0]


async def test_it_waits_for_room() -> None:
    """A server that takes nothing stops the typing, and nothing of it is lost once it goes on."""
    keys = [b"x" * 4096] * 100
    go_on = asyncio.Event()
    server = Server(b"", 100 * 4096, cut_after=1)
    server.connections = MANY

    async def serve(socket: web.WebSocketResponse) -> None:
        await go_on.wait()
        await server.serve(socket)

    screen = Screen(*keys)
    async with serving(serve) as url, asyncio.TaskGroup() as group, asyncio.timeout(20):
        running = group.create_task(terminal(url).run(screen))
        go_on.set()
        await running
    assert server.typed == b"".join(keys)


async def test_nobody_looks_any_more() -> None:
    """A screen that takes nothing hangs up, and is no connection that is lost."""
    said = []

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(Joined(have=0).model_dump_json())
        await socket.receive_str()
        await socket.send_bytes(pack(0, b"much"))
        said.append(read_word(await socket.receive_str()))

    class Shut(Screen):
        def show(self, data: bytes) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    screen = Shut()
    async with serving(serve) as url, asyncio.timeout(20):
        with pytest.raises(Cancelled):
            await terminal(url).run(screen)
    assert said == [HangUp()]
    assert screen.told == []


async def test_a_server_that_never_greets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that accepts and closes is as good as gone: it is given up after the patience."""
    monkeypatch.setattr(module, "_PAUSES", (0.0,))

    async def serve(_socket: web.WebSocketResponse) -> None:
        return

    async with serving(serve) as url, asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await terminal(url, patience=0.05).run(Screen())
