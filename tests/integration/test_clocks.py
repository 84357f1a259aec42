"""An endpoint whose clock is a day off still enrols, links and obeys, and its deadlines stay right."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from stanch.core.task import State
from stanch.server.clock import utc_now
from tests.integration.stack import live_agent, live_server

pytestmark = pytest.mark.slow

DAY = timedelta(hours=23, minutes=59)


@pytest.mark.parametrize("offset", [DAY, -DAY], ids=["endpoint-behind", "endpoint-ahead"])
async def test_a_day_between_the_clocks_changes_nothing(offset: timedelta, tmp_path: Path):
    """The server's clock is moved instead of the machine's: certificates, validity and tasks hold all the same.

    CLOCK_REALTIME of the endpoint only matters relative to the server's: for TLS, which the backdated certificates
    bear, and for nothing that was signed, since the agent's time is the newest signed one.
    """

    def server_time() -> datetime:
        return utc_now() + offset

    async with live_server(tmp_path, now=server_time) as server, live_agent(server.api, tmp_path) as agent:
        task = await server.api.run("list_processes", agent.endpoint, {})
        assert task.result is not None
        assert any(row["pid"] == os.getpid() for row in task.result["processes"])
        order = await server.api.submit("get_file", agent.endpoint, {"path": str(tmp_path / "password")})
        assert (await server.api.finished(order)).state is State.DONE
