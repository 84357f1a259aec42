"""The two ports."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from stanch.core.errors import Unavailable
from stanch.server.listening import bind, port_of
from stanch.server.settings import Listen
from tests.server.live import Live, cheap_hasher, live_server


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A server with a data folder of this test's own."""
    monkeypatch.setattr("stanch.server.accounts.PasswordHasher", cheap_hasher)
    async with live_server(tmp_path / "data") as server:
        yield server


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_free_port(host: str) -> None:
    """Port 0 is any; the real one can be asked for."""
    with closing(bind(Listen(host, 0))) as listening:
        assert port_of(listening) > 0
        with socket.create_connection((host, port_of(listening))):
            pass


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_everywhere_is_both_families(client: str) -> None:
    """`[::]:8444` answers IPv4 too, whatever the kernel's own default is."""
    with closing(bind(Listen.parse("[::]:0"))) as listening:
        socket.create_connection((client, port_of(listening))).close()


def test_a_port_in_use_is_said() -> None:
    """In one sentence, before anything is promised."""
    with closing(bind(Listen("127.0.0.1", 0))) as listening, pytest.raises(Unavailable, match="choose another port"):
        bind(Listen("127.0.0.1", port_of(listening)))


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "does-not-exist.invalid"])
def test_an_address_that_is_not_ours_is_said(host: str) -> None:
    """Nor one that does not resolve."""
    with pytest.raises(Unavailable, match="Cannot listen"):
        bind(Listen(host, 0))


async def test_uvicorn_leaves_signals_alone(live: Live) -> None:
    """They belong to whoever runs the server."""
    got = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await got.wait()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (await live.person().ask("GET", "/health")).status == 200
