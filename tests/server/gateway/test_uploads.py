"""Uploads on their way out: for the endpoint and the task that need them, in ranges."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from stanch.core.frames import UPLOAD_PATH
from stanch.core.types import Upload
from stanch.server.uploads import use
from tests.server.live import Agent, Live, Wire

DATA = bytes(range(256)) * 4096


async def bring(live: Live) -> Upload:
    """An upload of the administrator's."""
    answer = await (await live.admin()).ask("POST", "/uploads", data=DATA, params={"name": "tool"})
    assert answer.status == 201, answer.body
    view = answer.json
    return Upload(id=view["id"], name=view["name"], size=view["size"], sha256=view["sha256"])


async def needing(live: Live, agent: Agent, wire: Wire, upload: Upload) -> str:
    """A task that was sent, whose order names the upload."""
    order = (await (await live.admin()).order("list_processes", endpoints=[agent.endpoint])).json
    now = live.services.now()
    await live.services.database.write(lambda connection: use(connection, order["id"], [upload], now))
    await wire.hear_order()
    return str(order["tasks"][0]["id"])


@pytest.fixture
async def agent(live: Live) -> Agent:
    return await live.enrol()


@pytest.fixture
async def wire(agent: Agent) -> AsyncIterator[Wire]:
    async with agent.linked() as one:
        yield one


@pytest.mark.parametrize(
    ("wanted", "status", "data"),
    [
        (None, 200, DATA),
        ("bytes=0-0", 206, DATA[:1]),
        ("bytes=1000-70000", 206, DATA[1000:70_001]),
        (f"bytes={len(DATA) - 1}-{len(DATA) + 5}", 206, DATA[-1:]),
        (f"bytes={len(DATA)}-", 416, None),
        ("bytes=x", 416, None),
    ],
)
async def test_ranges(live: Live, wire: Wire, wanted: str | None, status: int, data: bytes | None) -> None:
    """The whole, a part of it, and what is beyond the end."""
    upload, agent = await bring(live), wire.agent
    task = await needing(live, agent, wire, upload)
    headers = {"Range": wanted} if wanted else {}
    answer = await agent.ask("GET", f"{UPLOAD_PATH}/{upload.id}?task={task}", headers=headers)
    assert answer.status == status
    if data is not None:
        assert answer.body == data
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "Server" not in answer.headers
    if status == 200:
        assert hashlib.sha256(answer.body).hexdigest() == upload.sha256


async def test_only_the_task_and_endpoint_that_need_it(live: Live, agent: Agent, wire: Wire) -> None:
    """Another endpoint, another task, none, one that is finished: to all of them it does not exist."""
    upload, other = await bring(live), await live.enrol("web-02")
    task = await needing(live, agent, wire, upload)
    order = (await (await live.admin()).order("list_processes", endpoints=[agent.endpoint])).json
    await wire.hear_order()
    path = f"{UPLOAD_PATH}/{upload.id}"
    tried = [
        await other.ask("GET", f"{path}?task={task}"),
        await agent.ask("GET", f"{path}?task={order['tasks'][0]['id']}"),
        await agent.ask("GET", path),
        await agent.ask("GET", f"{path}?task={'x' * 65}"),
        await agent.ask("GET", f"{UPLOAD_PATH}/upl_none?task={task}"),
    ]
    assert [(one.status, one.code) for one in tried] == [(404, "not-found")] * 5
    assert (await agent.ask("GET", f"{path}?task={task}")).body == DATA
    await wire.report(1, task, "failed")
    assert (await agent.ask("GET", f"{path}?task={task}")).code == "not-found"


async def test_nobody_without_a_certificate_gets_in(live: Live, agent: Agent) -> None:
    """401, whatever is asked for."""
    assert (await agent.ask("GET", f"{UPLOAD_PATH}/upl_1?task=tsk_1", tls=live.tls)).status == 401
