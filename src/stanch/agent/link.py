"""The agent's end of the link: one WebSocket to the server, kept up for ever.

What goes out is kept in the spool until the server says that it has committed it, so a cut loses nothing and at worst
sends something twice. After a cut every known address is tried, then again after a wait that grows and is spread, so
that a fleet which lost its server together does not come back together.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from secrets import compare_digest, token_urlsafe
from ssl import SSLContext

import aiohttp
import structlog

from stanch.agent.backoff import Backoff, Jitter, system_jitter
from stanch.agent.conversation import About, Accept, Conversation, Inbox, Outbox, ProgressBoard, Socket, hear, say
from stanch.agent.gateway import TUNNEL_SECONDS, answering, dial
from stanch.agent.resolve import AddressBook, Target
from stanch.core.errors import Denied, Invalid, StanchError, Unavailable
from stanch.core.frames import (
    LINK_PATH,
    MAX_FRAME_BYTES,
    PROTOCOL,
    Answer,
    Ask,
    Complaint,
    Hello,
    ProgressFrame,
    Welcome,
)
from stanch.core.network import Peer

WELCOME_WITHIN = 30.0
ASK_WITHIN = 5.0
CONFIRM_PAUSE = 2.0
"""The longest wait between two tries while a confirmation is pending."""

REFUSED_PAUSE = 600.0
"""Before the next try of an endpoint that the server does not want."""

STABLE_AFTER = 10.0
"""A link that lived for so many seconds was a good one: the next trouble starts with short waits again."""

DIAL_SECONDS = 4.0
"""For the TCP connection to one address, two packets lost on the way included. The isolation drops what would say at
once that an address is dead, and the next one waits its turn."""

PING_EVERY = 20.0

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=TUNNEL_SECONDS, sock_connect=DIAL_SECONDS)
_CLOSING = aiohttp.ClientWSTimeout(ws_close=2.0)
_REFUSED_STATUS = (401, 403)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the link is."""

    server: str | None
    """The address of the server, while the link is up."""
    seconds: float
    """For how long it is so."""
    error: str | None
    """Why it is not up."""


class Link:
    """The link, and through it the server as actions see it (`core.host.Server`)."""

    def __init__(
        self,
        *,
        tls: SSLContext,
        book: AddressBook,
        outbox: Outbox,
        seconds: Callable[[], float] = time.monotonic,
        jitter: Jitter = system_jitter,
    ) -> None:
        self._tls = tls
        self._book = book
        self._outbox = outbox
        self._seconds = seconds
        self._jitter = jitter
        self._backoff = Backoff(jitter=jitter)
        self._inbox = Inbox()
        self._progress = ProgressBoard()
        self._confirming = 0
        self._hurry = asyncio.Event()
        self._status = Status(server=None, seconds=seconds(), error="not connected yet")
        self.explain: Callable[[StanchError], StanchError] = lambda error: error
        """Finds a better reason why the link is down, where there is one."""
        self._talking: asyncio.Timeout | None = None
        self.proved = asyncio.Event()
        """Set once the server has welcomed us with the certificate that is in use."""

    # --- the server, seen from an action ----------------------------------------------------------------------------

    def peers(self) -> tuple[Peer, ...]:
        """Every address at which the server may be reached: the live one first, then what is remembered."""
        return self._book.peers()

    def proxies(self) -> tuple[Peer, ...]:
        """The addresses of the proxy on the way to it, if there is one."""
        return self._book.proxies()

    async def confirm(self, *, within: timedelta) -> bool:
        """Does the server answer on a new connection? Tries every address again and again until the time is over."""
        self._confirming += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    if await self._anybody_answers():
                        return True
                    await asyncio.sleep(CONFIRM_PAUSE * (0.25 + 0.75 * self._jitter()))
        except TimeoutError:
            return False
        finally:
            self._confirming -= 1

    async def _anybody_answers(self) -> bool:
        for target in self._book.targets():
            try:
                async with asyncio.timeout(ASK_WITHIN):
                    await self._ask(target)
            except (StanchError, TimeoutError) as error:
                log.info("not-confirmed", server=target.address, error=str(error) or "timed out")
            else:
                return True
        return False

    async def _ask(self, target: Target) -> None:
        """Ask on a connection of its own, TLS handshake included; raises unless it is answered."""
        nonce = token_urlsafe(16)
        async with self._dialled(target) as socket:
            await say(socket, Ask(nonce=nonce))
            frame = await hear(socket)
        if not (isinstance(frame, Answer) and compare_digest(frame.nonce, nonce)):
            raise Invalid("The server did not answer the question", got=frame.type, expected="an answer, same nonce")

    def progress(self, frame: ProgressFrame) -> None:
        """Show this to whoever waits, if the link is up and nothing newer comes before."""
        self._progress.put(frame)

    def status(self) -> Status:
        """Up or down, and for how long."""
        return replace(self._status, seconds=self._seconds() - self._status.seconds)

    def change_tls(self, tls: SSLContext) -> None:
        """Prove from now on with another certificate who we are, beginning with a new connection at once."""
        self._tls = tls
        self.proved.clear()
        if self._talking is not None:
            self._talking.reschedule(asyncio.get_running_loop().time())
            self._talking = None
        self._hurry.set()

    # --- staying connected ------------------------------------------------------------------------------------------

    async def run(self, *, about: About, accept: Accept) -> None:
        """Keep the link up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._inbox.hand_on(accept))
            group.create_task(self._stay_connected(about))

    async def _stay_connected(self, about: About) -> None:
        while True:
            least, tls = 0.0, self._tls
            try:
                await self._one_round(about)
                self._down("the link was closed")
            except Denied as error:
                least = REFUSED_PAUSE
                self._down(str(error))
                log.warning("link-refused", error=str(error), hint="Was this endpoint revoked, or enrolled elsewhere?")
            except StanchError as error:
                self._down(str(self.explain(error)))
            except Exception as error:
                # Something on this machine that we did not think of, such as a hello that cannot be put together. It
                # must not end the agent, which keeps an isolation in force and lifts it in time.
                self._down(f"{type(error).__name__}: {error}"[:500])
                log.exception("link-failed-unexpectedly")
            if self._tls is not tls:
                continue  # not trouble, but a new certificate
            await self._pause(max(self._backoff.next(), least * (0.5 + self._jitter())))

    async def _one_round(self, about: About) -> None:
        """Try every address once, and stay on the first that answers until the link ends."""
        if not self._confirming:
            await self._book.refresh()
        last: StanchError = Unavailable("No address of the server is known")
        for target in self._book.targets():
            tls = self._tls
            async with AsyncExitStack() as stack:
                try:
                    socket = await stack.enter_async_context(self._dialled(target))
                    hello = await about.hello(token_urlsafe(16))
                    welcome = await _greet(socket, hello)
                except Denied:
                    raise
                except StanchError as error:
                    last = error
                    continue
                if self._tls is not tls:
                    return
                self._up(target, welcome)
                await self._talk(socket, hello, welcome, about)
                return
        raise last

    async def _talk(self, socket: Socket, hello: Hello, welcome: Welcome, about: About) -> None:
        conversation = Conversation(
            socket,
            nonce=hello.nonce,
            heartbeat_seconds=welcome.heartbeat_seconds,
            about=about,
            outbox=self._outbox,
            inbox=self._inbox,
            progress=self._progress,
            jitter=self._jitter,
        )
        try:
            async with asyncio.timeout(None) as self._talking:
                await conversation.run()
        except TimeoutError:
            if self._talking is not None:
                raise
            log.info("link-begins-anew", reason="the certificate was renewed")
        finally:
            self._talking = None
        if self.status().seconds > STABLE_AFTER:
            self._backoff.reset()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not long while an isolation waits for its confirmation."""
        self._hurry.clear()
        wait = min(seconds, CONFIRM_PAUSE) if self._confirming else seconds
        log.info("link-down", error=self._status.error, next_try=round(wait, 1))
        try:
            async with asyncio.timeout(wait):
                await self._hurry.wait()
        except TimeoutError:
            return

    def _up(self, target: Target, welcome: Welcome) -> None:
        self._book.prefer(target)
        shown = f"{target.authority} ({f'through {target.proxy}' if target.proxy else target.address})"
        self._status = Status(server=shown, seconds=self._seconds(), error=None)
        self.proved.set()
        log.info("link-up", server=target.authority, address=target.address, server_version=welcome.server_version)

    def _down(self, error: str) -> None:
        self._status = Status(server=None, seconds=self._seconds(), error=error)

    @asynccontextmanager
    async def _dialled(self, target: Target) -> AsyncIterator[Socket]:
        """A WebSocket over a new TLS connection; Denied if the server does not want us, Unavailable otherwise."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0, force_close=True, socket_factory=dial)
        async with (
            answering(target.authority, proxy=target.proxy),
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
            _refusals(),
            session.ws_connect(
                target.url(LINK_PATH),
                headers={"Host": target.authority},
                server_hostname=target.host,
                proxy=target.proxy_url,
                proxy_headers=target.proxy_headers,
                max_msg_size=MAX_FRAME_BYTES,
                heartbeat=PING_EVERY,
                timeout=_CLOSING,
            ) as socket,
        ):
            yield socket


async def _greet(socket: Socket, hello: Hello) -> Welcome:
    """Say hello; the welcome, or what the server says instead."""
    await say(socket, hello)
    try:
        async with asyncio.timeout(WELCOME_WITHIN):
            frame = await hear(socket)
    except TimeoutError:
        raise Unavailable("The server did not greet back", expected=f"within {WELCOME_WITHIN:g} s") from None
    if isinstance(frame, Complaint):
        raise StanchError.from_body(frame.error)
    if not isinstance(frame, Welcome) or frame.protocol > PROTOCOL:
        raise Invalid("The server speaks another protocol", got=frame.type, expected=f"welcome, at most {PROTOCOL}")
    return frame


@asynccontextmanager
async def _refusals() -> AsyncIterator[None]:
    try:
        yield
    except aiohttp.WSServerHandshakeError as error:
        if error.status in _REFUSED_STATUS:
            raise Denied("The server does not want this endpoint", got=f"HTTP status {error.status}") from error
        raise
