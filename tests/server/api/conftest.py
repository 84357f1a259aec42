"""One live server for all tests of a file: each makes its own endpoints and orders."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from stanch.core.policy import Role
from tests.server.live import PASSWORD, Live, Person, cheap_hasher, live_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """A server, with an account for each role."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stanch.server.accounts.PasswordHasher", cheap_hasher)
        async with live_server(tmp_path_factory.mktemp("server") / "data") as server:
            for role in Role:
                await server.services.accounts.create(f"a-{role}", PASSWORD, [role])
            yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(live: Live) -> Person:
    """The administrator, signed in."""
    return await live.admin()
