"""Requests to one server, and what can go wrong with them: every failure leaves as an error of the tree."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from stanch import __version__
from stanch.core.errors import (
    Denied,
    ErrorBody,
    Invalid,
    NotAuthenticated,
    NotFound,
    StanchError,
    Unavailable,
    VerificationFailed,
)
from stanch.core.model import LooseModel
from stanch.core.policy import Origin
from stanch.core.rest import Page

M = TypeVar("M", bound=BaseModel)

MAX_ANSWER: Final = 256 * 1_048_576
"""An order on very many endpoints, with all results, stays below this."""

CONNECT_SECONDS: Final = 10.0
KEPT_SECONDS = 3.0
"""An idle connection is used again for so long."""
READ_SECONDS: Final = 30.0
STREAM_SECONDS: Final = 10.0
"""A stream that is silent for so long is opened anew; shorter than the server's beats, which tell nothing new."""

_BY_STATUS: Mapping[int, type[StanchError]] = {
    400: Invalid,
    401: NotAuthenticated,
    403: Denied,
    404: NotFound,
    422: Invalid,
    **dict.fromkeys((429, 502, 503, 504), Unavailable),
}
"""What an answer means that is not ours: a proxy's, or a server's that is something else."""


class Http:
    """HTTPS to one server, with the bearer's token; silence of `patience` seconds is a failure. Close it after use."""

    def __init__(
        self,
        url: str,
        *,
        verify: ssl.SSLContext,
        token: str = "",
        origin: Origin = Origin.API,
        patience: float = READ_SECONDS,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = url
        headers = {"X-Stanch-Origin": origin.value, "User-Agent": f"stanch/{__version__}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx2.Client(
            base_url=f"{url}/api/v1/",
            verify=verify,
            headers=headers,
            timeout=httpx2.Timeout(patience, connect=min(patience, CONNECT_SECONDS)),
            # Shorter than the server's: a connection that it is just closing must not get a question.
            limits=httpx2.Limits(keepalive_expiry=KEPT_SECONDS),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The body of a successful answer; else the error that the server named."""
        content = body.model_dump(mode="json", exclude_unset=True) if isinstance(body, BaseModel) else body
        given = {key: value for key, value in (query or {}).items() if value not in (None, "", ())}
        with self.stream(method, path, json=content, params=given) as response:
            return _bounded(response)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
        """An open, successful answer whose body is still to be read."""
        with self._translated(), self._client.stream(method, path, **options) as response:
            if not response.is_success:
                raise _error_of(response)
            yield response

    @contextmanager
    def events(self, path: str, *, query: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """The `data` of server-sent events, as they come; ends when the server ends it."""
        timeout = httpx2.Timeout(STREAM_SECONDS, connect=CONNECT_SECONDS)
        with self._translated(), self._client.sse(path, params=dict(query), timeout=timeout) as source:
            if not source.response.is_success:
                raise _error_of(source.response)
            yield (event.data for event in source if event.data)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, ssl.SSLError) as error:
            raise _failure(self.url, error) from error


class _ErrorAnswer(LooseModel):
    error: ErrorBody
    """What went wrong."""


class _Items(Page):
    items: tuple[dict[str, Any], ...]
    """Some of them."""


_items: TypeAdapter[_Items | list[dict[str, Any]]] = TypeAdapter(_Items | list[dict[str, Any]])


def read(kind: type[M], data: bytes) -> M:
    """A typed answer; Unavailable if the server speaks another language."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise not_understood(error) from None


def read_items(kind: type[M], data: bytes) -> tuple[list[M], str | None]:
    """A piece of a list, and what to pass as `after` for the next one; a short list may come bare."""
    try:
        whole = _items.validate_json(data)
        items, following = (whole.items, whole.next) if isinstance(whole, _Items) else (whole, None)
        return [kind.model_validate(one) for one in items], following
    except ValidationError as error:
        raise not_understood(error) from None


def not_understood(error: ValidationError) -> Unavailable:
    """An answer that is not of the type that it must be."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return Unavailable(
        "The server's answer cannot be understood",
        got=f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}",
        hint="Are server and command line of the same version? `stanch --version` tells yours.",
    )


def _bounded(response: httpx2.Response) -> bytes:
    """The whole body; Unavailable if it is larger than any answer of ours."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MAX_ANSWER:
            raise Unavailable("The answer is too large", got=f"over {MAX_ANSWER} bytes", hint="Ask for less at once.")
    return bytes(body)


def _error_of(response: httpx2.Response) -> StanchError:
    body = _bounded(response)
    try:
        return StanchError.from_body(_ErrorAnswer.model_validate_json(body).error)
    except ValidationError:
        kind = _BY_STATUS.get(response.status_code, StanchError)
        text = body[:200].decode("utf-8", "replace").strip()
        return kind(
            f"The server answered {response.status_code} {response.reason_phrase}".rstrip(),
            got=text or "nothing more",
            expected="an answer of Stanch",
            hint=kind.default_hint or "Is this the address of a Stanch server's API?",
        )


def _failure(url: str, error: Exception) -> StanchError:
    if _distrusted(error):
        return VerificationFailed(
            "The server's certificate is not from the CA that you trust",
            got=f"{url}: {error}",
            expected="a certificate of the CA whose pin you signed in with, for this host name",
            hint="If the server was set up anew, sign in again with `stanch login URL --ca-pin SHA256`.",
        )
    return Unavailable(
        "The server does not answer",
        got=f"{url}: {str(error) or type(error).__name__}",
        hint="Is `stanch server` running there, and does its --api-listen (usually port 8443) take other machines?",
    )


def _distrusted(error: BaseException | None) -> bool:
    """Did a certificate not hold? The library wraps the reason, so the chain of causes tells."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
