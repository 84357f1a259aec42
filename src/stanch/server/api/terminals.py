"""Terminals, where people join them: one WebSocket for each."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from stanch.core.errors import Conflict, Denied, NotAuthenticated, StanchError
from stanch.core.policy import Origin, Principal
from stanch.core.terminal_wire import Gone
from stanch.server.api.asking import ORIGIN_HEADER, ORIGINS
from stanch.server.services import Services
from stanch.server.terminal_session import Session

CHECK_SECONDS = 10.0
"""How often it is looked whether the person is still signed in, and still may."""

router = APIRouter()

log = structlog.get_logger(__name__)


class PersonSocket:
    """Starlette's WebSocket, as a terminal wants it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send_text(self, text: str) -> None:
        """Send; ConnectionError if it is closed."""
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise ConnectionError("the connection is closed") from error

    async def send_bytes(self, data: bytes) -> None:
        """Send; ConnectionError if it is closed."""
        try:
            await self._socket.send_bytes(data)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise ConnectionError("the connection is closed") from error

    async def receive(self) -> str | bytes | None:
        """The next message; None if there will be no more."""
        if self._socket.client_state is WebSocketState.DISCONNECTED:
            return None
        message = await self._socket.receive()
        if message["type"] != "websocket.receive":
            return None
        text = message.get("text")
        return str(text) if text is not None else bytes(message.get("bytes") or b"")

    async def close(self) -> None:
        """Close it; never raises."""
        with suppress(RuntimeError, OSError, WebSocketDisconnect):
            await self._socket.close()


@router.websocket("/tasks/{task}/terminal")
async def join_terminal(socket: WebSocket, task: str) -> None:
    """Join the terminal of a task that one has ordered; what does not suit is told as `refused`, then it is closed."""
    services: Services = socket.app.state.services
    await socket.accept()
    person = PersonSocket(socket)
    try:
        principal = await _authenticated(socket, services)
        session = await services.terminals.for_person(principal, task)
        await services.terminals.note(session, "joined", principal.name)
        try:
            await _while_allowed(session.serve_person(person), partial(_still_may, socket, services, session))
        finally:
            await services.terminals.note(session, "left", principal.name)
    except StanchError as error:
        log.info("a terminal is refused", task=task[:100], error=str(error))
        with suppress(ConnectionError):
            await person.send_text(Gone(error=error.body()).model_dump_json())
    finally:
        await person.close()


async def _while_allowed(work: Coroutine[None, None, None], check: Callable[[], Awaitable[None]]) -> None:
    """Do the work, for as long as the check, now and then, does not raise."""
    working = asyncio.get_running_loop().create_task(work)
    try:
        while not (await asyncio.wait({working}, timeout=CHECK_SECONDS))[0]:
            await check()
        await working
    finally:
        working.cancel()
        await asyncio.wait({working})


async def _still_may(socket: WebSocket, services: Services, session: Session) -> None:
    """The error if the person was signed out meanwhile; if they may not do this any more, it is hung up as well.

    Who was only signed out may sign in, and join again.
    """
    principal = await _authenticated(socket, services)
    try:
        await services.terminals.for_person(principal, session.task)
    except Denied:
        session.hang_up(f"{session.by} may not do this any more")
        raise
    except Conflict:
        return  # it is over: the session itself says how


async def _authenticated(socket: WebSocket, services: Services) -> Principal:
    """Who asks. A page of a browser cannot set this header, so that no foreign page can join with a stolen cookie."""
    scheme, _, token = socket.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("The request carries no token", expected="Authorization: Bearer TOKEN")
    said = socket.headers.get(ORIGIN_HEADER, Origin.API)
    return await services.accounts.authenticate(token.strip(), Origin(said) if said in ORIGINS else Origin.API)
