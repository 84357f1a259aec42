"""Terminals, where agents join them: one WebSocket for each, apart from the link, which a flood must not hold up."""

from contextlib import suppress

import structlog
from aiohttp import WSMsgType, web

from stanch.core.errors import Conflict, StanchError
from stanch.core.terminal_wire import MAX_DATA, MAX_WORD, TERMINAL_PATH
from stanch.server.fleet import Fleet
from stanch.server.gateway.identity import identify
from stanch.server.terminals import Terminals

PING_SECONDS = 20.0
GOODBYE_SECONDS = 2.0

log = structlog.get_logger(__name__)


class AgentSocket:
    """aiohttp's WebSocket, as a terminal wants it."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send_text(self, text: str) -> None:
        """Send; ConnectionError if it is closed."""
        await self._socket.send_str(text)

    async def send_bytes(self, data: bytes) -> None:
        """Send; ConnectionError if it is closed."""
        await self._socket.send_bytes(data)

    async def receive(self) -> str | bytes | None:
        """The next message; None if there will be no more."""
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        return bytes(message.data) if message.type is WSMsgType.BINARY else None

    async def close(self) -> None:
        """Close it; never raises."""
        with suppress(ConnectionError, RuntimeError):
            await self._socket.close()


class TerminalLinks:
    """The one request that joins a terminal."""

    def __init__(self, *, terminals: Terminals, fleet: Fleet) -> None:
        self._terminals = terminals
        self._fleet = fleet

    def routes(self) -> list[web.RouteDef]:
        """What answers where."""
        return [web.get(TERMINAL_PATH + r"/{task:[0-9A-Za-z_-]{1,64}}", self.join)]

    async def join(self, request: web.Request) -> web.StreamResponse:
        """Talk until either side ends it; 404 if the endpoint has no such task, 410 if its terminal is over."""
        identity = await identify(request, self._fleet)
        try:
            session = await self._terminals.for_agent(identity.endpoint, request.match_info["task"])
        except Conflict as error:
            raise web.HTTPGone(reason="the terminal is over") from error
        socket = web.WebSocketResponse(
            compress=False, max_msg_size=MAX_DATA + MAX_WORD, heartbeat=PING_SECONDS, timeout=GOODBYE_SECONDS
        )
        await socket.prepare(request)
        await self._terminals.opened(session)
        try:
            await session.serve_agent(AgentSocket(socket))
        except StanchError as error:
            log.warning("a terminal's agent was cut off", task=session.task, error=str(error))
        return socket
