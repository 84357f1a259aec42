"""The edge of the API: bounded bodies, safe headers, errors that say what to do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from typing import Any

import pytest

from stanch.server.api import boundary
from stanch.server.api.boundary import BoundedBodies
from tests.server.live import Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_answer_has_safe_headers(live: Live) -> None:
    """Good or bad; and none names the software."""
    for path in ("/health", "/nowhere"):
        headers = {name.lower(): value for name, value in (await live.person().ask("GET", path)).headers.items()}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not-found"), ("PUT", "/health", 405, "invalid"), ("GET", "/login", 405, "invalid")],
)
async def test_unknown_paths_and_methods(live: Live, method: str, path: str, status: int, code: str) -> None:
    """The same form as every other error."""
    answer = await live.person().ask(method, path)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"name": 1e999}', b"[" * 50_000, b'{"name":"\\ud800","password":"x"}'],
)
async def test_a_malformed_body_is_answered(live: Live, body: bytes) -> None:
    """Nothing that is sent as JSON is an error of the server's own."""
    answer = await live.person().ask("POST", "/login", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.code) in {(422, "invalid"), (400, "invalid")}


async def test_wrong_fields_are_named(admin: Person) -> None:
    """Each with what was got and what was expected."""
    answer = await admin.ask("POST", "/tokens", json={"uses": 0, "colour": "red", "valid_for": "soon"})
    error = answer.json["error"]
    assert answer.status == 422
    assert "body.uses=0" in error["got"]
    assert "body.uses: Input should be greater than or equal to 1" in error["expected"]
    assert "body.colour: Extra inputs are not permitted" in error["expected"]
    assert "soon" in error["got"]


@pytest.mark.parametrize("body", [{"name": "", "password": "hunter22"}, {"name": "ada", "passwort": "hunter22"}])
async def test_no_password_comes_back(live: Live, body: dict[str, str]) -> None:
    """Not even in an error about it."""
    answer = await live.person().ask("POST", "/login", json=body)
    assert answer.status == 422
    assert b"hunter22" not in answer.body


async def unannounced() -> AsyncIterator[bytes]:
    for _ in range(40):
        yield b"x" * 65_536


@pytest.mark.parametrize("body", [lambda: BytesIO(b"x" * 2_000_000), unannounced])
async def test_an_oversized_body_is_refused(live: Live, body: Callable[[], Any]) -> None:
    """By what it announces, or by what it is."""
    answer = await live.person().ask("POST", "/login", data=body())
    assert (answer.status, answer.code) == (413, "too-large")


async def test_an_error_of_ours_is_opaque(live: Live, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log knows; the other end gets a code."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(live.services.fleet, "get", broken)
    answer = await admin.ask("GET", "/endpoints/web-01")
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body


# --- without a server ------------------------------------------------------------------------------------------------


async def pass_through(messages: list[dict[str, Any]], *, length: bytes | None = None) -> tuple[Any, list[Any]]:
    """What an application behind the bound gets of these messages, and what is sent back."""
    got: list[Any] = []
    sent: list[Any] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        got.append(await receive())

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", length)]
    await BoundedBodies(app)({"type": "http", "headers": headers}, receive, send)
    return got, sent


async def test_a_body_is_passed_on_whole() -> None:
    """Whatever pieces it came in."""
    pieces = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
    got, sent = await pass_through(pieces)
    assert got == [{"type": "http.request", "body": b"ab", "more_body": False}]
    assert sent == []


async def test_a_client_that_goes_away_is_forgotten() -> None:
    """Nothing is run, nothing is sent."""
    assert await pass_through([{"type": "http.disconnect"}]) == ([], [])


@pytest.mark.parametrize("length", [b"x", b"-1", b"9" * 30])
async def test_a_length_that_cannot_be_is_refused(length: bytes) -> None:
    """Before anything is read."""
    got, sent = await pass_through([], length=length)
    assert got == []
    assert sent[0]["status"] == 413


async def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may hold a place for ever."""
    monkeypatch.setattr(boundary, "BODY_SECONDS", 0.01)
    got, sent = await pass_through([])
    assert got == []
    assert sent[0]["status"] == 503


async def test_other_protocols_pass() -> None:
    """Only HTTP has bodies."""
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    await BoundedBodies(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]  # neither is used
    assert seen == ["lifespan"]


async def test_a_streamed_request_is_left_to_its_handler() -> None:
    """Its body is not read here; another method or path is bounded as ever."""
    seen: list[object] = []

    async def app(_scope: object, receive: object, _send: object) -> None:
        seen.append(receive)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x"}

    async def send(_message: object) -> None: ...

    bounded = BoundedBodies(app, streamed={("POST", "/in")})
    for method, path in (("POST", "/in"), ("PUT", "/in"), ("POST", "/in/")):
        await bounded({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    assert [one is receive for one in seen] == [True, False, False]
