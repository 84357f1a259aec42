"""Requests to the gateway: through whichever address answers, with every failure as an error of ours."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway, _error_of
from stanch.agent.resolve import Target
from stanch.agent.terminal_link import TerminalLink, dial_through
from stanch.core.errors import Denied, Invalid, NotFound, StanchError, TooLarge, Unavailable
from stanch.core.frames import EVIDENCE_PATH
from stanch.core.terminal import Closed, Why
from stanch.core.terminal_wire import TERMINAL_PATH, Joined, read_word
from tests.fakes.gateway import FakeGateway, gateway
from tests.fakes.terminal_person import FakePerson
from tests.fakes.waiting import eventually

CA = "/v1/ca"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        yield one


def to(server: FakeGateway, tmp_path: Path, *ports: int, **options: int) -> Gateway:
    """A way to the server through these ports."""
    state = tmp_path / "state"
    identity = server.identity(state)
    targets = tuple(Target("127.0.0.1", port, "127.0.0.1") for port in ports)
    return Gateway(tls=identity.tls(state), targets=lambda: targets, **options)


async def test_the_first_address_that_answers_is_used(server, tmp_path):
    """Addresses at which nobody listens are passed over."""
    async with to(server, tmp_path, 1, server.port) as way:
        assert await way.request("GET", CA) == server.authority.pem.encode()


async def test_a_stranger_at_an_address_is_passed_over(server, tmp_path):
    """Whoever cannot prove to be our server gets nothing from us, and does not keep us from the right one."""
    async with gateway(tmp_path) as stranger, to(server, tmp_path, stranger.port, server.port) as way:
        assert await way.request("GET", CA) == server.authority.pem.encode()


async def test_nobody_answers(server, tmp_path):
    """Without an address that answers, the error says so, and that it may be tried again."""
    async with to(server, tmp_path, 1) as way:
        with pytest.raises(Unavailable, match="does not answer"):
            await way.request("GET", CA)
    async with to(server, tmp_path) as way:
        with pytest.raises(Unavailable, match="No address"):
            await way.request("GET", CA)


async def test_trouble_of_the_server_may_be_tried_again(server, tmp_path):
    """A status of 500 and more is an outage, not a refusal."""
    server.unwell = 1
    async with to(server, tmp_path, server.port) as way:
        with pytest.raises(Unavailable, match="trouble of its own"):
            await way.request("PUT", f"{EVIDENCE_PATH}/ev/parts/0", b"x")


async def test_the_servers_error_comes_back_as_the_same_class(server, tmp_path):
    """A refusal with a body of ours is that error again."""
    async with to(server, tmp_path, server.port) as way:
        with pytest.raises(NotFound, match="nothing here"):
            await way.request("GET", "/v1/nothing")


async def test_an_answer_that_is_too_large_is_not_taken_in(server, tmp_path):
    """The memory of the agent is not the server's to fill."""
    async with to(server, tmp_path, server.port, max_answer=10) as way:
        with pytest.raises(TooLarge):
            await way.request("GET", CA)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": 1}', b"<html>", b'{"error": {"code": "x"}}'])
def test_a_foreign_error_is_told_by_its_status(body):
    """A proxy's error page is no error of ours, and is told as what it is."""
    error = _error_of(418, body)
    assert type(error) is StanchError
    assert "418" in error.got


def test_an_error_of_ours_keeps_its_class():
    """The body of an error names its class by its code."""
    body = f'{{"error": {Invalid("wrong", got="x").body().model_dump_json()}}}'.encode()
    error = _error_of(422, body)
    assert (type(error), error.got) == (Invalid, "x")


async def test_another_certificate_is_used_from_the_next_request_on(server, tmp_path):
    """On new connections; a request that was refused because its certificate had just been replaced is asked again."""
    async with to(server, tmp_path, server.port) as way:
        assert await way.request("GET", CA)
        first, state = way._session, tmp_path / "state"
        await way.change_tls(server.identity(state).tls(state))
        assert await way.request("GET", CA)
        assert way._session is not first
        assert not first.closed  # a request on it may still be under way
        await way.change_tls(server.identity(state).tls(state))
        assert first.closed


async def test_a_refusal_of_the_certificate_before_says_nothing(server, tmp_path, monkeypatch):
    """It is asked again with the new one; a refusal of the one in use is the server's word."""
    state = tmp_path / "state"
    async with to(server, tmp_path, server.port) as way:
        real, asked = way._ask, []

        async def ask(*arguments):
            asked.append(way._tls)
            if len(asked) == 1:
                await way.change_tls(server.identity(state).tls(state))
                raise Denied("This certificate belongs to no endpoint")
            return await real(*arguments)

        monkeypatch.setattr(way, "_ask", ask)
        assert await way.request("GET", CA)
        assert len(set(asked)) == 2

        async def refuse(*_):
            raise Denied("This endpoint was revoked")

        monkeypatch.setattr(way, "_ask", refuse)
        with pytest.raises(Denied):
            await way.request("GET", CA)


# --- WebSockets ------------------------------------------------------------------------------------------------------

TERMINAL = f"{TERMINAL_PATH}/tsk_1"


async def test_a_websocket_goes_through_the_first_address_that_answers(server, tmp_path):
    """It finds its way as requests do, and proves who we are."""
    server.person = FakePerson()
    async with to(server, tmp_path, 1, server.port) as way, way.connected(TERMINAL, max_message=1000) as socket:
        await socket.send_str(Joined(have=0).model_dump_json())
        assert read_word((await socket.receive()).data) == Joined(have=0)


async def test_a_websocket_past_a_stranger(server, tmp_path):
    """Whoever cannot prove to be our server is passed over; if there is nobody else, it is an outage."""
    server.person = FakePerson()
    async with gateway(tmp_path) as stranger:
        async with to(server, tmp_path, stranger.port, server.port) as way, way.connected(TERMINAL, max_message=9):
            pass
        async with to(server, tmp_path, stranger.port) as way:
            with pytest.raises(Unavailable, match="prove who it is"):
                async with way.connected(TERMINAL, max_message=9):
                    pass


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotFound), (410, NotFound), (401, Denied), (403, Denied), (503, Unavailable)]
)
async def test_a_refused_websocket_says_what_that_means(server, tmp_path, status, error):
    """Nothing there, not wanted, or trouble: told apart by the status."""
    server.terminal_status = status
    async with to(server, tmp_path, server.port) as way:
        with pytest.raises(error):
            async with way.connected(TERMINAL, max_message=9):
                pass


async def test_nobody_answers_a_websocket(server, tmp_path):
    """Without an address that answers, it is an outage."""
    for ports in ((), (1,)):
        async with to(server, tmp_path, *ports) as way:
            with pytest.raises(Unavailable):
                async with way.connected(TERMINAL, max_message=9):
                    pass


async def test_a_terminal_over_real_connections_that_are_cut(server, tmp_path):
    """Through TLS and a server that cuts connections, every byte arrives once, and the end is told."""
    server.person = FakePerson(cuts=[3, 0, 5, 2])
    output = bytes(n % 251 for n in range(500_000))
    closed = Closed(why=Why.EXIT, code=0, pid=7, sent=len(output), received=0)
    async with to(server, tmp_path, server.port) as way:
        link = TerminalLink(task="tsk_1", dial=dial_through(way), backoff=lambda: Backoff(first=0.001, longest=0.002))
        async with link as one, asyncio.timeout(20):
            server.person.type("abc")
            for start in range(0, len(output), 50_000):
                while one.outgoing.room < 50_000:
                    one.room.clear()
                    await one.room.wait()
                one.outgoing.put(output[start : start + 50_000])
                one.wake()
            await eventually(lambda: one.typed.waiting == 3)
            await one.finish(closed)
    assert bytes(server.person.shown) == output
    assert server.person.closed == closed
