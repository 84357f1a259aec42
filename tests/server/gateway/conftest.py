"""A live server for each test of the gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.live import Live, cheap_hasher, live_server


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A server with a data folder of this test's own."""
    monkeypatch.setattr("stanch.server.accounts.PasswordHasher", cheap_hasher)
    async with live_server(tmp_path / "data") as server:
        yield server
