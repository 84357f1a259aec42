"""The agent put together, against a small gateway: real files, processes and journal, no server.

Nothing here changes the machine: only actions that read are ordered.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from stanch.agent import wire
from stanch.agent.content import ContentUpdates
from stanch.agent.host.clock import boot_id
from stanch.agent.identity import Binding, Identity
from stanch.agent.process import run
from stanch.agent.settings import Settings
from stanch.agent.wire import load_identity
from stanch.core.content import ContentKind, PackRef
from stanch.core.envelope import AddressesBody, Body, ContentBody, Envelope, OrderBody, sign
from stanch.core.errors import NotFound, VerificationFailed
from stanch.core.frames import Deliver, Hello, Notice, Report
from stanch.core.network import Peer
from stanch.core.task import State
from tests.fakes.gateway import ENDPOINT, FakeGateway, gateway
from tests.fakes.proxy import connect_proxy
from tests.fakes.waiting import eventually

NUMBERS = count(1)
LONG_AGO = 1_700_000_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        yield one


@pytest.fixture
def settings(server: FakeGateway, tmp_path: Path) -> Settings:
    """The places of an agent that is enrolled at the gateway."""
    state = tmp_path / "state"
    identity = server.identity(state)
    identity.model_copy(update={"binding": Binding.here(boot_id())}).save(state)
    return Settings(state=state, config=tmp_path / "agent.toml", socket=tmp_path / "run" / "agent.sock")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[list[str]]:
    """A whole agent in this process until the end of the block; its beats."""
    beats, stop = list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run(settings, beat=lambda: beats.append("."), stop=stop))
        try:
            yield beats
        finally:
            stop.set()


def signed(server: FakeGateway, body: Body, *, version: int | None = None) -> Deliver:
    number = next(NUMBERS)
    envelope = Envelope(endpoint=ENDPOINT, id=f"env_{number}", iat=LONG_AGO + number, version=version, body=body)
    return Deliver(envelope=sign(envelope, server.signing_key))


def order(server: FakeGateway, action: str, **params: Any) -> Deliver:
    asked = {"action": action, "action_version": 1, "origin": "api", "requested_by": "alice"}
    return signed(server, OrderBody(task=f"tsk_{action}", order="ord_1", params=params, **asked))


def final(server: FakeGateway, task: str) -> list[Report]:
    return [one for one in server.received if isinstance(one, Report) and one.task == task and one.state.final]


async def test_orders_are_carried_out_and_reported(server, settings):
    """From a signed order on the link to its result: a process list that has this very process in it."""
    async with running(settings) as beats:
        await server.until(lambda: server.hellos == 1)
        await server.say(order(server, "list_processes"))
        await server.until(lambda: bool(final(server, "tsk_list_processes")))
        (report,) = final(server, "tsk_list_processes")
        assert report.state is State.DONE
        assert os.getpid() in [one["pid"] for one in report.result["processes"]]
        assert beats


async def test_a_file_arrives_as_evidence(server, settings, tmp_path):
    """The evidence of a task goes through the gateway, and its report says where it is."""
    (tmp_path / "dropper").write_bytes(b"harmless" * 1000)
    async with running(settings):
        await server.until(lambda: server.hellos == 1)
        await server.say(order(server, "get_file", path=str(tmp_path / "dropper")))
        await server.until(lambda: bool(final(server, "tsk_get_file")))
    (report,) = final(server, "tsk_get_file")
    assert report.state is State.DONE, report.error
    assert (report.result["files"][0]["evidence"]["size"], server.parts[0]) == (8000, b"harmless" * 1000)


async def test_everything_goes_through_the_configured_proxy(server, settings, tmp_path):
    """Link and evidence of an agent whose owner names a proxy in its configuration; the proxy reads nothing of it."""
    (tmp_path / "dropper").write_bytes(b"harmless" * 1000)
    async with connect_proxy() as proxy:
        settings.config.write_text(f'[link]\nproxy = "{proxy.url}"\n')
        async with running(settings):
            await server.until(lambda: server.hellos == 1)
            await server.say(order(server, "get_file", path=str(tmp_path / "dropper")))
            await server.until(lambda: bool(final(server, "tsk_get_file")))
    (report,) = final(server, "tsk_get_file")
    assert report.state is State.DONE, report.error
    assert len(proxy.asked) == 2
    assert len(proxy.seen) > 2000
    assert b"harmless" not in proxy.seen


async def test_hello_tells_the_actions_and_what_the_machine_can_do(server, settings):
    """The server learns at once whom it has: inventory, action versions, capabilities."""
    async with running(settings):
        await server.until(lambda: server.hellos == 1)
    (hello,) = server.of(Hello)
    assert hello.actions["isolate"] >= 1
    assert hello.inventory.hostname
    assert hello.capabilities


async def test_a_forged_order_is_refused_and_told(server, settings):
    """An order that a stranger signed is not carried out; the server hears of it."""
    async with running(settings):
        await server.until(lambda: server.hellos == 1)
        genuine = order(server, "list_processes").envelope
        head, payload, signature = genuine.split(".")
        await server.say(Deliver(envelope=f"{head}.{payload}.{signature[::-1]}"))
        await server.until(lambda: any(one.kind == "envelope-refused" for one in server.of(Notice)))
        assert not final(server, "tsk_list_processes")


async def test_signed_addresses_are_kept_for_the_time_of_an_isolation(server, settings):
    """What the server says about its addresses is on the disk before it is needed."""
    body = AddressesBody(urls=(server.url,), peers=(Peer.model_validate({"address": "192.0.2.7", "port": 8444}),))
    async with running(settings):
        await server.until(lambda: server.hellos == 1)
        await server.say(signed(server, body, version=1))
        await eventually(lambda: settings.addresses.exists() and "192.0.2.7" in settings.addresses.read_text())


async def test_signed_content_is_looked_at_without_an_order(server, settings, monkeypatch):
    """The agent updates its rules by itself: here it refuses what is called like its own, and tells so."""
    monkeypatch.setattr(wire, "ContentUpdates", partial(ContentUpdates, spread=0.0))
    ref = PackRef(name="stanch-base", kind=ContentKind.YARA, version=3, sha256="0" * 64, size=1)
    async with running(settings):
        await server.until(lambda: server.hellos == 1)
        await server.say(signed(server, ContentBody(packs=(ref,)), version=1))
        await server.until(lambda: any(one.kind == "content-not-loaded" for one in server.of(Notice)))
    (notice,) = [one for one in server.of(Notice) if one.kind == "content-not-loaded"]
    assert (notice.detail["name"], notice.detail["refused"], notice.detail["in_use"]) == ("stanch-base", 3, None)


async def test_what_was_not_acknowledged_survives_a_restart(server, settings):
    """A report that the server never acknowledged is sent by the next agent, and the order is not carried out twice."""
    server.acks = False
    async with running(settings):
        await server.until(lambda: server.hellos == 1)
        await server.say(order(server, "list_processes"))
        await server.until(lambda: len(final(server, "tsk_list_processes")) == 1)
    async with running(settings):
        await server.until(lambda: len(final(server, "tsk_list_processes")) == 2)
    first, second = final(server, "tsk_list_processes")
    assert first == second


def test_an_identity_is_bound_anew_after_a_reboot(settings):
    """The numbers of the namespaces hold for one boot; the next start writes down the new ones."""
    before = Identity.load(settings.state)
    old = before.binding.model_copy(update={"boot_id": "an earlier boot", "net": 1})
    before.model_copy(update={"binding": old}).save(settings.state)
    assert load_identity(settings).binding == Binding.here(boot_id())
    assert Identity.load(settings.state) == before


def test_a_full_disk_after_a_reboot_keeps_no_agent_from_starting(settings, monkeypatch):
    """That it is bound to this boot is written down another time."""
    before = Identity.load(settings.state)
    old = before.binding.model_copy(update={"boot_id": "an earlier boot", "net": 1})
    before.model_copy(update={"binding": old}).save(settings.state)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Identity, "save", full)
    assert load_identity(settings).binding == Binding.here(boot_id())


def test_an_identity_of_elsewhere_does_not_start(settings):
    """An agent in another namespace than it was enrolled in ends before it touches anything."""
    identity = Identity.load(settings.state)
    elsewhere = identity.binding.model_copy(update={"net": 1})
    identity.model_copy(update={"binding": elsewhere}).save(settings.state)
    with pytest.raises(VerificationFailed, match="other namespaces"):
        load_identity(settings)


async def test_without_an_identity_nothing_starts(tmp_path):
    """An agent that was never enrolled says so."""
    with pytest.raises(NotFound, match="not enrolled"):
        await run(Settings(state=tmp_path), beat=lambda: None, stop=asyncio.Event())
