"""The agents' links: recognise the endpoint, say hello, then move frames until it goes.

Frames are hostile until they are read: bounded in size, malformed ones are answered with a complaint, and a link that
sends too many of them is closed. Nothing here waits for a slow agent, and no frame starts a task of its own.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from stanch import __version__
from stanch.core.errors import Denied, Invalid, NotFound, StanchError
from stanch.core.frames import (
    LINK_PATH,
    MAX_FRAME_BYTES,
    PROTOCOL,
    Answer,
    Ask,
    Complaint,
    FromAgent,
    Heartbeat,
    Hello,
    Notice,
    ProgressFrame,
    Report,
    Welcome,
    read_agent_frame,
)
from stanch.core.rest import TaskEvent
from stanch.server.fleet import Identity
from stanch.server.gateway.agent_link import MAX_COMPLAINTS, AgentLink
from stanch.server.gateway.identity import identify, reached_at, remote_address
from stanch.server.gateway.inbox import Inbox, Received
from stanch.server.services import Services

HEARTBEAT_SECONDS = 30.0
FIRST_FRAME_SECONDS = 15.0
SILENT_BEATS = 3
"""Heartbeats that may be missing before a link counts as dead."""

MAX_NOTICE_BYTES = 65_536
BREATH = 50
"""Agents that are told something between two turns for everybody else."""

MAX_PROGRESS_TASKS = 10_000
GOODBYE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class AgentLinks:
    """Every open link of this process."""

    def __init__(
        self,
        services: Services,
        inbox: Inbox,
        *,
        monotonic: Callable[[], float],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._services = services
        self._inbox = inbox
        self._monotonic = monotonic
        self._heartbeat_seconds = heartbeat_seconds
        self._links: dict[str, AgentLink] = {}
        self._orders_of: OrderedDict[tuple[str, str], str | None] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        """What answers where."""
        return [web.get(LINK_PATH, self.link)]

    async def close_silent(self) -> None:
        """Close the links of which nothing was heard, until cancelled."""
        while True:
            await asyncio.sleep(self._heartbeat_seconds / 2)
            oldest = self._monotonic() - SILENT_BEATS * self._heartbeat_seconds
            for link in [one for one in self._links.values() if one.heard < oldest]:
                log.info("link is silent", endpoint=link.endpoint)
                link.abort()

    async def tell_addresses(self) -> None:
        """Our addresses have changed: tell every agent that is connected; the others hear of it at their hello."""
        for number, link in enumerate(list(self._links.values())):
            if number % BREATH == 0:
                await asyncio.sleep(0)  # sending does not wait, so nothing else would get a turn
            try:
                await self._tell_addresses(link)
            except (ConnectionError, RuntimeError) as error:
                log.info("link went away before it was told our addresses", endpoint=link.endpoint, error=str(error))

    async def _tell_addresses(self, link: AgentLink, *, nonce: str | None = None) -> None:
        body = self._services.addresses.body(reached=link.reached, nonce=nonce)
        await link.send(await self._services.dispatcher.addresses(link.endpoint, body))

    async def say_goodbye(self, _app: web.Application) -> None:
        """Close every link, since the server stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await asyncio.gather(*(one.say_goodbye() for one in self._links.values()), return_exceptions=True)

    # --- one link ----------------------------------------------------------------------------------------------------

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Serve one link from its first frame to its end."""
        identity = await identify(request, self._services.fleet)
        # Deflate would cost each link 32 KB. Text stays bytes: pydantic reads those.
        socket = web.WebSocketResponse(
            compress=False, decode_text=False, max_msg_size=MAX_FRAME_BYTES, timeout=GOODBYE_SECONDS
        )
        await socket.prepare(request)
        link = AgentLink(
            endpoint=identity.endpoint,
            socket=socket,
            transport=cast("asyncio.Transport", request.transport),
            clock=self._monotonic,
            reached=reached_at(request),
        )
        with suppress(ConnectionError):
            await self._serve(request, identity, link, socket)
        return socket

    async def _serve(
        self, request: web.Request, identity: Identity, link: AgentLink, socket: web.WebSocketResponse[bool]
    ) -> None:
        """The first frame decides: a question is answered, a hello opens the link for good."""
        first = await self._first(link, socket)
        if isinstance(first, Ask):
            await link.send(Answer(nonce=first.nonce))
        elif isinstance(first, Hello):
            await self._converse(request, identity, link, socket, first)
        elif first is not None:
            await self._complain(link, Invalid("The first frame must be a hello", got=first.type, expected="hello"))
        await socket.close()

    async def _first(self, link: AgentLink, socket: web.WebSocketResponse[bool]) -> FromAgent | None:
        """The first frame; None if it does not come in time."""
        try:
            async with asyncio.timeout(FIRST_FRAME_SECONDS):
                received = await self._next(link, socket)
        except TimeoutError:
            return None
        return None if received is None else received[0]

    async def _converse(
        self,
        request: web.Request,
        identity: Identity,
        link: AgentLink,
        socket: web.WebSocketResponse[bool],
        hello: Hello,
    ) -> None:
        """Take frames until the link is over; then it is gone, even if it never was quite there."""
        try:
            async with self._open(request, identity, link, hello):
                while (received := await self._next(link, socket)) is not None:
                    await self._take(link, *received)
        except Denied as error:
            await self._complain(link, error)
        finally:
            if link.endpoint not in self._links:
                self._services.fleet.gone(link.endpoint)

    @asynccontextmanager
    async def _open(
        self, request: web.Request, identity: Identity, link: AgentLink, hello: Hello
    ) -> AsyncIterator[None]:
        """Welcome the agent, tell it the time and the addresses, and let the dispatcher deliver meanwhile."""
        services = self._services
        await services.fleet.hello(link.endpoint, hello)
        await link.send(self._welcome(hello))
        told = services.addresses.current
        await self._tell_addresses(link, nonce=hello.nonce)
        link.inventory = hello.inventory
        older = self._links.get(link.endpoint)
        with services.dispatcher.attach(link.endpoint, link.send, link.close):
            self._links[link.endpoint] = link
            if services.addresses.current != told:  # they changed before this link could be found
                await self._tell_addresses(link)
            services.standing.wake(link.endpoint)
            log.info("link is up", endpoint=link.endpoint, hostname=identity.hostname, address=remote_address(request))
            try:
                # Only now: whoever revokes it from here on finds this link, and cuts it.
                await services.fleet.refuse_revoked(link.endpoint)
                if older is not None:
                    await self._note_second(older, link, remote_address(request))
                yield
            finally:
                self._forget(link)

    def _forget(self, link: AgentLink) -> None:
        """Its end; unless a newer link of the same endpoint has taken its place."""
        if self._links.get(link.endpoint) is link:
            del self._links[link.endpoint]
            self._services.fleet.gone(link.endpoint)
            log.info("link is down", endpoint=link.endpoint)

    def _welcome(self, hello: Hello) -> Welcome:
        return Welcome(
            protocol=min(PROTOCOL, hello.protocol),
            heartbeat_seconds=self._heartbeat_seconds,
            server_version=__version__,
        )

    async def _note_second(self, older: AgentLink, newer: AgentLink, address: str) -> None:
        """A second link with one identity: a reconnect, or a copy of the identity if it comes from another boot."""
        before, now = older.inventory, newer.inventory
        if before is None or now is None or (before.boot_id, before.machine_id) == (now.boot_id, now.machine_id):
            return
        log.warning("two links with one identity; cloned?", endpoint=newer.endpoint, address=address)
        at = self._services.now().timestamp()
        detail = {"address": address, "hostname": now.hostname, "before": before.hostname}
        # Ours, not the agent's: the microsecond of our clock stands for the number of a spool.
        notice = Notice(seq=int(at * 1_000_000), kind="identity-used-twice", detail=detail, at=at)
        await self._services.fleet.notice(newer.endpoint, [notice])

    # --- frames ------------------------------------------------------------------------------------------------------

    async def _next(self, link: AgentLink, socket: web.WebSocketResponse[bool]) -> tuple[FromAgent, int] | None:
        """The next frame that can be used, and its size; None when the link is over."""
        while link.complaints < MAX_COMPLAINTS:
            message = await socket.receive()
            link.hear()
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                return None
            try:
                return read_agent_frame(message.data), len(message.data)
            except StanchError as error:
                await self._complain(link, error)
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too many frames that cannot be used")
        return None

    async def _take(self, link: AgentLink, frame: FromAgent, size: int) -> None:
        """Hand a frame to whom it concerns."""
        match frame:
            case Report():
                await self._inbox.put(Received(link, frame, size))
            case Notice():
                await self._inbox.put(Received(link, _bounded(frame, size), min(size, MAX_NOTICE_BYTES)))
            case Heartbeat():
                self._services.fleet.heartbeat(link.endpoint, frame)
            case ProgressFrame():
                await self._progress(link, frame)
            case Ask():
                await link.send(Answer(nonce=frame.nonce))
            case Hello():
                await self._complain(link, Invalid("This link has said hello already"))
            case Complaint():
                log.warning("an endpoint complains", endpoint=link.endpoint, error=frame.error.model_dump())

    async def _complain(self, link: AgentLink, error: StanchError) -> None:
        link.complaints += 1
        log.warning("a frame could not be used", endpoint=link.endpoint, error=str(error))
        await link.send(Complaint(error=error.body()))

    async def _progress(self, link: AgentLink, frame: ProgressFrame) -> None:
        """Keep it, and tell whoever listens, if it is a task of this endpoint."""
        order = await self._order_of(link.endpoint, frame.task)
        if order is None:
            return
        self._services.orders.progress.put(order, frame)
        if self._services.bus.listened_to:
            said = frame.model_dump(include={"task", "done", "total", "unit", "text", "paused"})
            self._services.bus.publish(TaskEvent(type="progress", order=order, endpoint=link.endpoint, **said))

    async def _order_of(self, endpoint: str, task: str) -> str | None:
        """The order of an endpoint's own task; None for any other. Looked up once."""
        key = (endpoint, task)
        if key not in self._orders_of:
            self._orders_of[key] = await self._look_up(endpoint, task)
            while len(self._orders_of) > MAX_PROGRESS_TASKS:
                self._orders_of.popitem(last=False)
        return self._orders_of.get(key)

    async def _look_up(self, endpoint: str, task: str) -> str | None:
        try:
            view = await self._services.orders.task(task)
        except NotFound:
            return None
        return view.order if view.endpoint == endpoint else None


def _bounded(notice: Notice, size: int) -> Notice:
    """A notice that is too large keeps its kind, and says how large it was."""
    return notice if size <= MAX_NOTICE_BYTES else notice.model_copy(update={"detail": {"too_large": size}})
