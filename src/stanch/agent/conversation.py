"""One connection of the link: what is said and heard between a hello and the end of the socket."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, Protocol

import aiohttp
import structlog

from stanch.agent.backoff import Jitter
from stanch.core.errors import Invalid, StanchError, Unavailable
from stanch.core.frames import (
    Ack,
    Answer,
    Complaint,
    Deliver,
    FromAgent,
    FromServer,
    Heartbeat,
    Hello,
    Notice,
    ProgressFrame,
    Report,
    Welcome,
    read_server_frame,
)

BATCH = 100
"""Reports and notices that are read from the spool at once."""

INBOX = 256
"""Envelopes that wait for the executor; when they are more, the server has to wait."""

PROGRESS_EVERY = 0.1
"""Seconds between two rounds of progress frames."""

LEAST_HEARTBEAT = 0.1
"""Seconds; a server that asks for more heartbeats does not get them."""

MAX_PROGRESS = 1000
MAX_COMPLAINTS = 20

Socket = aiohttp.ClientWebSocketResponse[Literal[True]]
log = structlog.get_logger()


class Outbox(Protocol):
    """What the link needs of the spool."""

    changed: asyncio.Event
    """Set when there is something new."""

    async def pending(self, limit: int, *, after: int) -> Sequence[Report | Notice]:
        """The oldest entries that are not acknowledged, those with a number over `after`."""
        ...

    async def ack(self, seqs: Sequence[int]) -> None:
        """These are committed on the server."""
        ...


class About(Protocol):
    """Who tells the server about this endpoint."""

    news: asyncio.Event
    """Set when a heartbeat should not wait: something else is in force than the server was told."""

    async def hello(self, nonce: str) -> Hello:
        """The first frame."""
        ...

    async def heartbeat(self) -> Heartbeat:
        """Still here."""
        ...


class Accept(Protocol):
    """Who takes what the server delivers."""

    async def __call__(self, token: str, *, nonce: str) -> None:
        """Take an envelope; `nonce` is what our hello on this link said."""
        ...


class Inbox:
    """Envelopes on their way from the link to the executor: a slow disk must not stop heartbeats."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[str, str]] = asyncio.Queue(INBOX)

    async def put(self, envelope: str, nonce: str) -> None:
        """Keep it until the executor is ready; waits when there are too many."""
        await self._waiting.put((envelope, nonce))

    async def hand_on(self, accept: Accept, *, retry_after: float = 1.0) -> None:
        """Give envelopes to the executor, in order, whatever becomes of each, until cancelled."""
        while True:
            envelope, nonce = await self._waiting.get()
            try:
                await self._persist(accept, envelope, nonce, retry_after)
            except StanchError as error:
                log.warning("envelope-refused", error=str(error))
            except Exception:
                # One envelope that breaks the executor must not end the agent: the next may be the release.
                log.exception("envelope-broke-the-executor")

    async def _persist(self, accept: Accept, envelope: str, nonce: str, retry_after: float) -> None:
        """Offer it again as long as the executor can write nothing down."""
        while True:
            try:
                return await accept(envelope, nonce=nonce)
            except Unavailable as error:
                log.warning("envelope-waits", error=str(error))
            await asyncio.sleep(retry_after)


class ProgressBoard:
    """How far tasks are: only the newest of each is kept, and only while somebody may see it."""

    def __init__(self) -> None:
        self._frames: dict[str, ProgressFrame] = {}
        self._paused: dict[str, ProgressFrame] = {}
        """Tasks that wait, and say nothing more until they go on."""
        self._changed = asyncio.Event()

    def put(self, frame: ProgressFrame) -> None:
        """Replace what was there of this task."""
        self._paused.pop(frame.task, None)
        if frame.paused:
            self._paused = dict([*self._paused.items(), (frame.task, frame)][-MAX_PROGRESS:])
        if frame.task in self._frames or len(self._frames) < MAX_PROGRESS:
            self._frames[frame.task] = frame
            self._changed.set()

    def begin(self) -> None:
        """There is a new link: what was not sent is old, but a server that was restarted must hear who waits."""
        self.take()
        for frame in list(self._paused.values()):  # each is put at the end anew
            self.put(frame)

    def take(self) -> list[ProgressFrame]:
        """What was put since the last time."""
        frames, self._frames = list(self._frames.values()), {}
        self._changed.clear()
        return frames

    async def wait(self) -> None:
        """Until there is something."""
        await self._changed.wait()


class Conversation:
    """One connection after its welcome."""

    def __init__(
        self,
        socket: Socket,
        *,
        nonce: str,
        heartbeat_seconds: float,
        about: About,
        outbox: Outbox,
        inbox: Inbox,
        progress: ProgressBoard,
        jitter: Jitter,
    ) -> None:
        self._socket = socket
        self._nonce = nonce
        self._heartbeat_seconds = max(heartbeat_seconds, LEAST_HEARTBEAT)
        self._about = about
        self._outbox = outbox
        self._inbox = inbox
        self._progress = progress
        self._jitter = jitter

    async def run(self) -> None:
        """Send and receive until the socket is closed, by whichever side."""
        self._progress.begin()
        async with asyncio.TaskGroup() as group:
            sending = (self._send_spool, self._send_heartbeats, self._send_progress)
            senders = [group.create_task(self._until_closed(one)) for one in sending]
            await self._read()
            for one in senders:
                one.cancel()

    # --- what is heard ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        complaints = 0
        async for message in self._socket:
            try:
                await self._take(frame_of(message))
            except StanchError as error:
                complaints += 1
                log.warning("frame-not-understood", error=str(error))
                await self._until_closed(partial(say, self._socket, Complaint(error=error.body())))
                if complaints >= MAX_COMPLAINTS:
                    return

    async def _take(self, frame: FromServer) -> None:
        match frame:
            case Deliver(envelope=envelope):
                await self._inbox.put(envelope, self._nonce)
            case Ack(seqs=seqs):
                await self._acknowledge(seqs)
            case Complaint(error=error):
                log.warning("server-complained", error=str(StanchError.from_body(error)))
            case Welcome() | Answer():
                log.info("frame-out-of-turn", type=frame.type)

    async def _acknowledge(self, seqs: Sequence[int]) -> None:
        try:
            await self._outbox.ack(seqs)
        except Unavailable as error:
            # They are sent again on the next connection, and the server knows them by then.
            log.warning("acknowledgement-not-kept", error=str(error))

    # --- what is said -----------------------------------------------------------------------------------------------

    async def _send_spool(self) -> None:
        """Everything that is not acknowledged, once on this connection, then whatever comes new."""
        sent = 0
        while True:
            self._outbox.changed.clear()
            entries = await self._outbox.pending(BATCH, after=sent)
            for entry in entries:
                await say(self._socket, entry)
                sent = entry.seq
            if not entries:
                await self._outbox.changed.wait()

    async def _send_heartbeats(self) -> None:
        """As often as the server asked, and at once when there are news."""
        while True:
            with suppress(TimeoutError):
                # A fleet that connected together must not beat together.
                async with asyncio.timeout(self._heartbeat_seconds * (0.8 + 0.2 * self._jitter())):
                    await self._about.news.wait()
            self._about.news.clear()
            await say(self._socket, await self._about.heartbeat())

    async def _send_progress(self) -> None:
        while True:
            await self._progress.wait()
            for frame in self._progress.take():
                await say(self._socket, frame)
            await asyncio.sleep(PROGRESS_EVERY)

    async def _until_closed(self, sender: Callable[[], Awaitable[None]]) -> None:
        """Send; a connection that breaks meanwhile is closed, which the reader sees."""
        try:
            await sender()
        except (aiohttp.ClientError, ConnectionError):
            await self._socket.close()
        except Unavailable as error:
            log.warning("spool-not-read", error=str(error))
            await self._socket.close()


async def say(socket: Socket, frame: FromAgent) -> None:
    """Send a frame."""
    await socket.send_str(frame.model_dump_json())


async def hear(socket: Socket) -> FromServer:
    """The next frame; Unavailable if the connection ends, Invalid if it is no frame."""
    return frame_of(await socket.receive())


def frame_of(message: aiohttp.WSMessage) -> FromServer:
    """The frame in a message; Unavailable if it is the end of the connection, Invalid if it is no frame."""
    match message.type:
        case aiohttp.WSMsgType.TEXT:
            return read_server_frame(message.data)
        case aiohttp.WSMsgType.BINARY:
            raise Invalid("The frame is malformed", got="binary", expected="text")
        case _:
            raise Unavailable("The server closed the connection", got=message.extra or message.data)
