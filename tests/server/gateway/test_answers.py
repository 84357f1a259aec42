"""Plain HTTP on the gateway: every error has a code, and nothing is told about our software."""

import asyncio
from http import HTTPStatus

import pytest
from aiohttp import web

from stanch.server.gateway.answers import errors_as_json
from tests.server.live import Answer, Live


async def ask(live: Live, method: str, path: str) -> Answer:
    async with live.session.request(method, live.server.gateway_url + path) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/v1/../../etc/passwd", 404, "not-found"),
        ("GET", "/v1/enroll", 405, "invalid"),
        ("PUT", "/v1/evidence/a%2Fb/parts/0", 404, "not-found"),
        ("PUT", "/v1/evidence/evd_1/parts/99999999", 404, "not-found"),
    ],
)
async def test_unknown_paths_and_methods(live: Live, method: str, path: str, status: int, code: str) -> None:
    """The same form as every other error."""
    answer = await ask(live, method, path)
    assert (answer.status, answer.code) == (status, code)


async def test_no_software_is_named(live: Live) -> None:
    """Neither in a good answer nor in a bad one."""
    for path in ("/v1/ca", "/nowhere"):
        assert "Server" not in (await ask(live, "GET", path)).headers


async def test_an_error_of_ours_is_opaque(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log knows; the other end gets a code."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    agent = await live.enrol()
    monkeypatch.setattr(live.services.fleet, "identify", broken)
    answer = await agent.ask("POST", "/v1/evidence", json={})
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body


@pytest.mark.parametrize("error", [ConnectionResetError(), asyncio.CancelledError()])
async def test_a_cut_connection_is_not_answered(error: BaseException) -> None:
    """Nobody is there to read it."""

    async def cut(_request: web.Request) -> web.StreamResponse:
        raise error

    with pytest.raises(type(error)):
        await errors_as_json(None, cut)  # type: ignore[arg-type]  # the request is not looked at


async def test_redirects_keep_their_status() -> None:
    """Whatever aiohttp raises has our form."""

    async def moved(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPServiceUnavailable

    answer = await errors_as_json(None, moved)  # type: ignore[arg-type]  # the request is not looked at
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
