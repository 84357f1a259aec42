"""The two listening ports: sockets that are bound before anything is promised, and the servers behind them."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import cast

import uvicorn
from aiohttp import web
from starlette.types import ASGIApp

from stanch.core.errors import Unavailable
from stanch.core.terminal_wire import MAX_DATA, MAX_WORD
from stanch.server.settings import Listen

EVERYWHERE = "::"
"""Every address of this machine, of IPv6 and, as one means by it, of IPv4."""

BACKLOG = 4096
HANDSHAKE_SECONDS = 15
KEPT_SECONDS = 30
"""Idle connections of clients stay open for so long: longer than a client dares to use one again."""

GRACE_SECONDS = 1
LINGER_SECONDS = 1
"""Time for a client that was refused to notice, while it still sends."""
HEADER_BYTES = 65_536
MAX_MESSAGE = MAX_DATA + MAX_WORD
"""Bytes of a WebSocket's message: the terminal's are the only ones."""


def bind(listen: Listen) -> socket.socket:
    """A listening socket; `::` takes IPv4 too. Unavailable if the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    place, both = (listen.host, listen.port), listen.host == EVERYWHERE
    try:
        return socket.create_server(place, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        hint = "Another program listens there; choose another port." if error.errno == errno.EADDRINUSE else None
        raise Unavailable(f"Cannot listen on {listen}", got=error.strerror, hint=hint) from None


def port_of(listening: socket.socket) -> int:
    """The port that a socket really has."""
    return int(listening.getsockname()[1])


class ApiServer(uvicorn.Server):
    """uvicorn, without a hand on the signals of the process, and telling when it listens."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="wsproto",
                ws_max_size=MAX_MESSAGE,
                ws_ping_interval=20.0,
                ws_per_message_deflate=False,
                http="httptools",
                backlog=BACKLOG,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_keep_alive=KEPT_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_context_factory=lambda _config, _default: tls,
            )
        )
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to `main`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()

    def stop(self) -> None:
        """End, after what is being answered."""
        self.should_exit = True


@contextlib.asynccontextmanager
async def serving_api(server: ApiServer, listening: socket.socket) -> AsyncIterator[None]:
    """The API answers while this lasts."""
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listening]))
        try:
            await server.listening.wait()
            yield
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def serving_gateway(app: web.Application, listening: socket.socket, tls: ssl.SSLContext) -> AsyncIterator[None]:
    """The gateway answers while this lasts."""
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=GRACE_SECONDS, lingering_time=LINGER_SECONDS
    )
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(
        cast("web.Server", runner.server),
        sock=listening,
        ssl=tls,
        backlog=BACKLOG,
        ssl_handshake_timeout=HANDSHAKE_SECONDS,
    )
    try:
        yield
    finally:
        server.close()
        await runner.cleanup()
