"""Plain HTTPS requests to the gateway: one at a time, through whichever address answers."""

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from io import BytesIO
from ssl import SSLContext
from typing import Any, Self

import aiohttp
from pydantic import ValidationError

from stanch.agent.host.mark import mark
from stanch.agent.proxy import Proxy
from stanch.agent.resolve import Target
from stanch.core.errors import Denied, ErrorBody, NotFound, StanchError, TooLarge, Unavailable, VerificationFailed

MAX_ANSWER_BYTES = 256 * 1_048_576
"""The list of committed parts of the largest evidence fits."""

STALLED_MILLISECONDS = 60_000
"""Unacknowledged bytes for so long mean that the connection is dead, though nobody said so."""

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=120.0)
_SERVER_TROUBLE = 500

TUNNEL_SECONDS = 30.0
"""For a proxy to open a tunnel; as a time limit of all that comes before a request, it needs to be a generous one."""

PING_EVERY = 20.0
"""Seconds between pings on a WebSocket."""

_DIALLED = aiohttp.ClientTimeout(total=None, connect=TUNNEL_SECONDS, sock_connect=4.0)
_CLOSING = aiohttp.ClientWSTimeout(ws_close=2.0)
_UNWANTED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_NOTHING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_TUNNELLED = aiohttp.ClientTimeout(total=None, connect=TUNNEL_SECONDS, sock_connect=10.0, sock_read=120.0)


def dial(info: tuple[Any, ...]) -> socket.socket:
    """A TCP socket of the agent's own, which notices within a minute when the other side has silently gone."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family=family, type=kind, proto=protocol)
    mark(made)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MILLISECONDS)
    return made


class Gateway:
    """The gateway as a place to send requests to; makes its connection pool at the first one."""

    def __init__(
        self, *, tls: SSLContext, targets: Callable[[], tuple[Target, ...]], max_answer: int = MAX_ANSWER_BYTES
    ) -> None:
        self._tls = tls
        self._targets = targets
        self._max_answer = max_answer
        self._session: aiohttp.ClientSession | None = None
        self._earlier: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._earlier, self._session):
            if session is not None:
                await session.close()

    async def change_tls(self, tls: SSLContext) -> None:
        """Prove from now on with another certificate who we are; what is under way goes on as it began."""
        self._tls = tls
        if self._earlier is not None:
            await self._earlier.close()
        self._earlier, self._session = self._session, None

    async def request(
        self, method: str, path: str, body: bytes | bytearray = b"", *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of a good answer.

        Unavailable if no address answers, or the server has trouble of its own: then it may be tried again. Any other
        error is the server's word on this request.
        """
        while True:
            tls = self._tls
            try:
                return await self._ask_any(method, path, body, headers or {})
            except Denied:
                # The certificate with which it was asked may have been replaced meanwhile: that says nothing.
                if self._tls is tls:
                    raise

    async def _ask_any(self, method: str, path: str, body: bytes | bytearray, headers: Mapping[str, str]) -> bytes:
        last = Unavailable("No address of the server is known")
        for target in self._targets():
            try:
                return await self._ask(target, method, path, body, headers)
            except Unavailable as error:
                last = error
            except VerificationFailed as error:
                # Whoever has that address now is not our server; ours may still be at another one, or come back.
                last = Unavailable(error.message, got=error.got, expected=error.expected)
        raise last

    async def _ask(
        self, target: Target, method: str, path: str, body: bytes | bytearray, headers: Mapping[str, str]
    ) -> bytes:
        async with answering(target.authority, proxy=target.proxy):
            request = self._pool().request(
                method,
                target.url(path),
                # A stream of known length: one large `bytes` would be written in one go and stop the event loop.
                data=BytesIO(body),
                headers={"Host": target.authority, "Content-Type": "application/octet-stream", **headers},
                server_hostname=target.host,
                proxy=target.proxy_url,
                proxy_headers=target.proxy_headers,
                timeout=_TIMEOUT if target.proxy is None else _TUNNELLED,
                allow_redirects=False,
            )
            async with request as response:
                return await read_answer(response, limit=self._max_answer)

    # --- WebSockets --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connected(self, path: str, *, max_message: int) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket on a connection of its own, through whichever address answers; errors are those of `request`."""
        last = Unavailable("No address of the server is known")
        for target in self._targets():
            async with AsyncExitStack() as stack:
                try:
                    socket = await stack.enter_async_context(self._dialled(target, path, max_message))
                except Unavailable as error:
                    last = error
                    continue
                except VerificationFailed as error:
                    last = Unavailable(error.message, got=error.got, expected=error.expected)
                    continue
                yield socket
                return
        raise last

    @asynccontextmanager
    async def _dialled(
        self, target: Target, path: str, max_message: int
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0, force_close=True, socket_factory=dial)
        async with (
            answering(target.authority, proxy=target.proxy),
            aiohttp.ClientSession(connector=connector, timeout=_DIALLED) as session,
            _handshake(),
            session.ws_connect(
                target.url(path),
                headers={"Host": target.authority},
                server_hostname=target.host,
                proxy=target.proxy_url,
                proxy_headers=target.proxy_headers,
                max_msg_size=max_message,
                heartbeat=PING_EVERY,
                timeout=_CLOSING,
            ) as socket,
        ):
            yield socket

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=4, socket_factory=dial)
            self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False)
        return self._session


@asynccontextmanager
async def answering(server: str, *, proxy: Proxy | None = None) -> AsyncIterator[None]:
    """Turn what the network does to a request into our errors: Unavailable, or VerificationFailed for a certificate."""
    try:
        yield
    except (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError) as error:
        raise _proxy_error(error, proxy) from None  # the cause holds what the proxy was told, its password too
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
        raise VerificationFailed(
            f"The server at {server} did not prove who it is", got=error, expected="a certificate of its CA"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        got = str(error) or type(error).__name__
        hint = (
            "Is it running, and can this machine reach it? Its port for agents is 8444, unless it was told otherwise."
        )
        through = f" through the proxy {proxy}" if proxy else ""
        raise Unavailable(f"The server at {server} does not answer{through}", got=got, hint=hint) from error


@asynccontextmanager
async def _handshake() -> AsyncIterator[None]:
    """What the server answers instead of a WebSocket."""
    try:
        yield
    except aiohttp.WSServerHandshakeError as error:
        got = f"HTTP status {error.status}"
        if error.status in _NOTHING:
            raise NotFound("The server has nothing there", got=got) from error
        if error.status in _UNWANTED:
            raise Denied("The server does not want this endpoint", got=got) from error
        raise


def _proxy_error(error: aiohttp.ClientError, proxy: Proxy | None) -> Unavailable:
    if not isinstance(error, aiohttp.ClientHttpProxyError):
        return Unavailable(f"The proxy {proxy} does not answer", got=str(error))
    hint = None
    if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        hint = "Give it a name and a password: http://NAME:PASSWORD@HOST:PORT."
    return Unavailable(f"The proxy {proxy} opens no tunnel to the server", got=f"HTTP status {error.status}", hint=hint)


async def read_answer(response: aiohttp.ClientResponse, *, limit: int) -> bytes:
    """The body of a good answer, or the error that a bad one means."""
    body = await _bounded(response, limit)
    if response.status >= _SERVER_TROUBLE:
        raise Unavailable("The server has trouble of its own", got=_error_of(response.status, body))
    if not response.ok or response.status >= 300:  # noqa: PLR2004 - redirects are not for agents
        raise _error_of(response.status, body)
    return body


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise TooLarge("The server's answer is too large", got=f"over {limit} bytes", expected=f"at most {limit}")
        parts.append(part)
    return b"".join(parts)


def _error_of(status: int, body: bytes) -> StanchError:
    try:
        return StanchError.from_body(ErrorBody.model_validate(json.loads(body)["error"]))
    except (ValueError, ValidationError, KeyError, TypeError):
        kind = NotFound if status == HTTPStatus.NOT_FOUND else StanchError
        return kind("The server refused the request", got=f"HTTP status {status}")
