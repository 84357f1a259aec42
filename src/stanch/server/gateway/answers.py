"""Plain HTTP on the gateway: bodies that are read into models, answers that are models, errors that say what to do."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from stanch.core.action import invalid_fields
from stanch.core.errors import ErrorBody, Invalid, NotFound, StanchError, TooLarge

MAX_BODY_BYTES = 1_048_576

M = TypeVar("M", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)


async def read_body(request: web.Request, model: type[M]) -> M:
    """The body as this model; TooLarge or Invalid otherwise."""
    try:
        return model.model_validate_json(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except ValidationError as error:
        raise invalid_fields("The body of the request is wrong", error) from None


def answer(model: BaseModel, *, status: int = HTTPStatus.OK) -> web.Response:
    """A model as JSON."""
    return web.Response(text=model.model_dump_json(), content_type="application/json", status=status)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong becomes `{"error": ...}` with the status of its class."""
    try:
        return await handler(request)
    except StanchError as error:
        return _refusal(error.body(), error.http_status)
    except web.HTTPException as error:
        return _refusal(_of_http(error).body(), error.status)
    except ConnectionError:
        raise
    except Exception:
        log.exception("request failed", path=request.path)
        body = StanchError("The server met an error of its own", hint="Its log says more.").body()
        return _refusal(body, HTTPStatus.INTERNAL_SERVER_ERROR)


async def hide_software(_request: web.Request, response: web.StreamResponse) -> None:
    """Nobody needs to know which library and version answers."""
    response.headers.popall("Server", None)


def _refusal(body: ErrorBody, status: int) -> web.Response:
    return web.json_response({"error": body.model_dump(exclude_none=True)}, status=status)


def _of_http(error: web.HTTPException) -> StanchError:
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _too_large()
    if error.status == HTTPStatus.NOT_FOUND:
        return NotFound("There is nothing at this path")
    return Invalid(error.reason)


def _too_large() -> TooLarge:
    return TooLarge("The body of the request is too large", expected=f"at most {MAX_BODY_BYTES} bytes")
