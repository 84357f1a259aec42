"""Evidence on its way, while either side dies: it goes on, and no part that the server has committed travels again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from joserfc.jwk import OKPKey

from stanch.agent.backoff import Backoff
from stanch.agent.enroll import enroll
from stanch.agent.gateway import Gateway
from stanch.agent.resolve import AddressBook
from stanch.agent.transfer import EvidenceSender
from stanch.core.envelope import verify
from stanch.core.files import Extent
from stanch.core.frames import LINK_PATH, PART_BYTES, Deliver, Hello, Inventory, PartInfo, read_server_frame
from stanch.core.rest import TokenCreate
from stanch.demo.program import wait_until
from stanch.demo.stage import pin_in
from stanch.server.evidence import Evidence
from tests.integration.stack import Api, LiveServer, until
from tests.integration.test_server_killed import ServerProcess

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PARTS = 6
DATA = os.urandom(PART_BYTES) * (PARTS - 1) + b"the end"


@dataclass(frozen=True, slots=True)
class Content:
    """A source in memory."""

    name: str = "/var/lib/large"

    @property
    def size(self) -> int:
        return len(DATA)

    async def read(self, offset: int, length: int) -> bytes:
        return DATA[offset : offset + length]

    async def extents(self) -> Sequence[Extent]:
        return [Extent(0, len(DATA))]


@asynccontextmanager
async def a_sender(api: Api, folder: Path) -> AsyncIterator[EvidenceSender]:
    """The transfer of an endpoint that has a task: enrolled, linked, and told the evidence key."""
    token, state = await api.ask(api.client.create_token, TokenCreate()), folder / "agent"
    identity = await enroll(server=token.gateway_url, token=token.token, ca_pin=token.ca_pin, state=state)
    keys = {key["kid"]: OKPKey.import_key(dict(key)) for key in identity.signing_keys}
    tls = identity.tls(state)
    async with aiohttp.ClientSession() as session, session.ws_connect(identity.urls[0] + LINK_PATH, ssl=tls) as link:
        hello = Hello(nonce="n", agent_version="1", inventory=Inventory(hostname="a"), actions={"list_processes": 1})
        await link.send_str(hello.model_dump_json())
        await link.receive_str(timeout=10)
        addresses = read_server_frame(await link.receive_str(timeout=10))
        assert isinstance(addresses, Deliver)
        told = verify(addresses.envelope, keys=keys, endpoint=identity.endpoint, now=None, versions={}).body
        order = await api.submit("list_processes", identity.endpoint, {})
        await link.receive_str(timeout=10)
        book = AddressBook(state / "addresses.json", urls=identity.urls)
        async with Gateway(tls=tls, targets=book.targets) as gateway:
            yield EvidenceSender(
                task=order.tasks[0].id,
                gateway=gateway,
                progress=lambda *_: None,
                recipient=lambda: told.evidence_key,
                backoff=lambda: Backoff(first=0.05, longest=0.2),
            )


def names_in(folder: Path) -> set[str]:
    """The part files of the only evidence that is there."""
    (one,) = folder.iterdir()
    return {path.name for path in one.iterdir() if not path.name.startswith(".")}


async def downloaded(api: Api, key: str, into: Path) -> bytes:
    """What people get."""
    view = await api.ask(api.client.find_evidence, key)
    await api.ask(api.client.download, view, into)
    return await asyncio.to_thread(into.read_bytes)


@pytest.mark.parametrize(("moment", "kept"), [("before", 2), ("after", 3)])
async def test_the_server_is_killed(tmp_path: Path, moment: str, kept: int):
    """What it had committed is not sent again (sealing it again would change its name), and the rest comes."""
    place, stored = ServerProcess(tmp_path), tmp_path / "server" / "evidence"
    with place.start(HERE / "dying_in_evidence.py", log="first.log", more=(moment,)) as dying:
        pin = pin_in(dying.said())
        async with place.people(pin) as api, a_sender(api, tmp_path) as sender, asyncio.TaskGroup() as group:
            sending = group.create_task(sender.send(Content()))
            assert await until(lambda: wait_until(lambda: dying.process.poll() is not None, within=0.1))
            assert dying.process.returncode == -signal.SIGKILL
            committed = {name for name in await asyncio.to_thread(names_in, stored) if int(name[:7]) < kept}
            assert len(committed) == kept
            with place.start("stanch.cli.main", log="second.log"):
                ref = await sending
                assert committed <= await asyncio.to_thread(names_in, stored)
                async with place.people(pin) as again:
                    assert await downloaded(again, ref.id, tmp_path / "got") == DATA


async def test_the_agent_is_killed(server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A transfer that begins again goes on at the first part that the server does not have."""
    put, received, third = Evidence.put_part, [], asyncio.Event()

    async def noted(self: Evidence, endpoint: str, key: str, n: int, **how: object) -> PartInfo:
        part = await put(self, endpoint, key, n, **how)
        received.append(n)
        if n == 2:
            third.set()
        return part

    monkeypatch.setattr(Evidence, "put_part", noted)
    async with a_sender(server.api, tmp_path) as sender:
        first = asyncio.create_task(sender.send(Content()))
        await third.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        before = len(received)
        ref = await sender.send(Content())
    assert sorted(set(received)) == list(range(PARTS))
    assert len(received) <= PARTS + 1
    assert min(received[before:]) >= 3
    assert await downloaded(server.api, ref.id, tmp_path / "got") == DATA
