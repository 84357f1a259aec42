"""The edge of the REST API: bodies are bounded, answers carry safe headers, and every error says what to do."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stanch.core.action import expectation
from stanch.core.errors import Invalid, NotFound, StanchError, TooLarge, Unavailable

MAX_BODY_BYTES = 1_048_576
BODY_SECONDS = 30
MAX_NAMED = 5
"""Wrong fields that an error names."""
MAX_SHOWN = 100

_SAFE_HEADERS: Iterable[tuple[bytes, bytes]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"x-content-type-options", b"nosniff"),
)

log = structlog.get_logger(__name__)


# --- errors ----------------------------------------------------------------------------------------------------------


def answer_errors(app: FastAPI) -> None:
    """Make every error `{"error": ...}` with the status of its class."""
    app.add_exception_handler(StanchError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unexpected)


def refusal(error: StanchError, *, status: int | None = None) -> JSONResponse:
    """An error as an answer."""
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == HTTPStatus.UNAUTHORIZED else None
    content = {"error": error.body().model_dump(exclude_none=True)}
    return JSONResponse(content, status_code=status or error.http_status, headers=headers)


async def _on_ours(_request: Request, error: Exception) -> JSONResponse:
    return refusal(error if isinstance(error, StanchError) else _unexpected())


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    return refusal(_invalid(error.errors() if isinstance(error, RequestValidationError) else ()))


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.NOT_FOUND:
        return refusal(NotFound("There is nothing at this path"))
    detail = error.detail if isinstance(error, HTTPException) else ""
    return refusal(Invalid(str(detail) or HTTPStatus(status).phrase), status=status)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return refusal(_unexpected())


def _unexpected() -> StanchError:
    return StanchError("The server met an error of its own", hint="Its log says more.")


def _invalid(wrong: Sequence[Any]) -> Invalid:
    """The first wrong fields, each with what was got and expected."""
    named = [(".".join(map(str, one["loc"])) or "body", one) for one in wrong[:MAX_NAMED]]
    got = ", ".join(f"{where}={_shown(where, one)}" for where, one in named)
    return Invalid(
        "The request is wrong",
        got=got,
        expected="; ".join(f"{where}: {expectation(one['msg'])}" for where, one in named),
    )


def _shown(where: str, wrong: Mapping[str, Any]) -> str:
    """A value as an error may repeat it: never a password, under whatever name, nor a body that may hold one."""
    value = wrong.get("input")
    if "password" in where or wrong["type"] == "extra_forbidden" or isinstance(value, dict | list):
        return f"<{type(value).__name__}>"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


# --- ASGI ------------------------------------------------------------------------------------------------------------


class BoundedBodies:
    """Read each body whole before anything else sees it; refuse one that is too large or comes too slowly.

    Bodies of the `streamed` requests (method and path) are left to their handlers, who bound them themselves.
    """

    def __init__(self, app: ASGIApp, *, streamed: Collection[tuple[str, str]] = ()) -> None:
        self._app = app
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose body is in memory."""
        if scope["type"] != "http" or (scope.get("method"), scope.get("path")) in self._streamed:
            await self._app(scope, receive, send)
            return
        try:
            body = await _read_body(scope, receive)
        except StanchError as error:
            await refusal(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)


class SafeHeaders:
    """Add headers that keep browsers from guessing, framing or caching."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with more headers in the answer."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [one for one in _SAFE_HEADERS if one[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_safely)


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None if the client went away meanwhile."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not announced.isdigit() or int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise Unavailable("The body came too slowly", expected=f"within {BODY_SECONDS} seconds") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, and after it whatever else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _too_large() -> TooLarge:
    return TooLarge("The body of the request is too large", expected=f"at most {MAX_BODY_BYTES} bytes")
