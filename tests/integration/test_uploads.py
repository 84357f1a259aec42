"""A file of somebody's own on its way to an endpoint: client, server, gateway, agent."""

import secrets
from pathlib import Path

import pytest
from sqlalchemy import update

from stanch.agent.enroll import enroll
from stanch.agent.gateway import Gateway
from stanch.agent.resolve import AddressBook
from stanch.agent.uploads import RANGE_BYTES, GatewayUploads
from stanch.core.errors import Conflict, NotFound
from stanch.core.rest import TokenCreate
from stanch.core.task import State
from stanch.server.store.tables import tasks
from tests.integration.stack import LiveAgent, LiveServer

pytestmark = pytest.mark.slow


async def test_a_file_is_put_on_an_endpoint(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """Of several ranges, as it is; then its upload can be deleted, and what was put stays."""
    api, content = server.api, secrets.token_bytes(2 * RANGE_BYTES + 4321)
    (tmp_path / "tool").write_bytes(content)
    upload = await api.ask(api.client.upload, tmp_path / "tool")
    place = tmp_path / "there"
    params = {"content": upload.model_dump(mode="json"), "path": str(place), "mode": 0o755}
    task = await api.finished(await api.submit("put_file", agent.endpoint, params))
    assert task.state is State.DONE, task.error
    assert place.read_bytes() == content
    assert place.stat().st_mode & 0o7777 == 0o755
    await api.ask(api.client.delete_upload, upload.id)
    assert place.exists()


async def test_the_agents_side_reads_what_the_clients_side_sent(server: LiveServer, tmp_path: Path):
    """Through the real gateway, with the certificate of an enrolment, and for this task alone."""
    api, content = server.api, secrets.token_bytes(3 * RANGE_BYTES + 1)
    (tmp_path / "tool").write_bytes(content)
    upload = await api.ask(api.client.upload, tmp_path / "tool")
    token, state = await api.ask(api.client.create_token, TokenCreate()), tmp_path / "state"
    identity = await enroll(server=token.gateway_url, token=token.token, ca_pin=token.ca_pin, state=state)
    params = {"content": upload.model_dump(mode="json"), "path": "/opt/tool"}
    task = (await api.submit("put_file", identity.endpoint, params)).tasks[0].id
    sent = update(tasks).where(tasks.c.id == task).values(state=State.SENT)
    await server.running.services.database.write(lambda connection: connection.execute(sent))
    book = AddressBook(state / "addresses.json", urls=identity.urls)
    async with Gateway(tls=identity.tls(state), targets=book.targets) as way:
        async with GatewayUploads(task=task, gateway=way).open(upload) as found:
            assert await found.read(0, found.size) == content
        with pytest.raises(NotFound):
            async with GatewayUploads(task="tsk_other", gateway=way).open(upload):
                pytest.fail("it must not be opened")


async def test_an_order_that_waits_keeps_its_upload(server: LiveServer, agent: LiveAgent, tmp_path: Path):
    """The endpoint is away: the file is still there when it comes back."""
    api = server.api
    (tmp_path / "tool").write_bytes(b"tool")
    upload = await api.ask(api.client.upload, tmp_path / "tool")
    agent.stop()
    params = {"content": upload.model_dump(mode="json"), "path": str(tmp_path / "there")}
    order = await api.submit("put_file", agent.endpoint, params)
    with pytest.raises(Conflict, match="not finished"):
        await api.ask(api.client.delete_upload, upload.id)
    agent.start()
    assert (await api.finished(order)).state is State.DONE
    assert (tmp_path / "there").read_bytes() == b"tool"
