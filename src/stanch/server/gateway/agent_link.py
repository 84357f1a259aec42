"""One agent's open link: a WebSocket that can be sent to by anybody and is never waited for."""

import asyncio
from collections.abc import Callable

from aiohttp import WSCloseCode, web

from stanch.core.frames import FromServer, Inventory
from stanch.core.network import Peer

MAX_UNSENT = 2 * 1_048_576
"""Bytes that may wait for a slow agent: one envelope of the largest size, and as much again."""

MAX_COMPLAINTS = 20
"""Frames that we could not use, before the link is closed."""


class AgentLink:
    """The link of one endpoint, seen from whoever wants to tell it something."""

    __slots__ = ("_clock", "_socket", "_transport", "complaints", "endpoint", "heard", "inventory", "reached")

    def __init__(
        self,
        *,
        endpoint: str,
        socket: web.WebSocketResponse[bool],
        transport: asyncio.Transport,
        clock: Callable[[], float],
        reached: Peer | None = None,
    ) -> None:
        """`reached`: our own address, as the agent dialled it."""
        self.endpoint = endpoint
        self.reached = reached
        self.inventory: Inventory | None = None
        self.complaints = 0
        self.heard = clock()
        self._clock = clock
        self._socket = socket
        self._transport = transport
        # Sending never waits: whoever does not read is cut off before the transport would make us pause.
        transport.set_write_buffer_limits(high=2 * MAX_UNSENT)

    def hear(self) -> None:
        """Something came: it is alive."""
        self.heard = self._clock()

    async def send(self, frame: FromServer) -> None:
        """Hand a frame to the connection; ConnectionError if it is gone, or does not read what it is sent."""
        waiting = self._transport.get_write_buffer_size()
        if waiting > MAX_UNSENT:
            self.abort()
            raise ConnectionAbortedError(f"{self.endpoint} does not read: {waiting} bytes wait for it")
        await self._socket.send_str(frame.model_dump_json(exclude_none=True))

    def close(self) -> None:
        """End it; the agent connects again."""
        self._transport.close()

    def abort(self) -> None:
        """End it without waiting for what was not sent."""
        self._transport.abort()

    async def say_goodbye(self) -> None:
        """Close it in the way of the protocol, since the server stops."""
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")
