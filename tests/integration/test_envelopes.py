"""Envelopes that an attacker could send over an open link: the endpoint does nothing, and says so."""

import subprocess
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from stanch.core.envelope import OrderBody
from stanch.core.frames import Deliver, FromAgent, Notice, Report
from stanch.core.task import State
from stanch.server.gateway.inbox import Inbox, Received
from stanch.server.signer import Signer
from tests.fakes.waiting import eventually
from tests.integration.stack import LiveAgent, LiveServer, until

pytestmark = pytest.mark.slow

Victim = subprocess.Popen[bytes]


class Tap:
    """Listens at the server's two seams to the link: what it signs, and what agents say that must be kept."""

    def __init__(self) -> None:
        self.signed: list[str] = []
        self.said: list[FromAgent] = []

    def reports(self, task: str) -> list[Report]:
        """What was reported of a task."""
        return [one for one in self.said if isinstance(one, Report) and one.task == task]

    def refusals(self) -> list[Notice]:
        """Envelopes that the endpoint refused."""
        return [one for one in self.said if isinstance(one, Notice) and one.kind == "envelope-refused"]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Tap:
    """A tap on every server of this test."""
    tap, sign, put = Tap(), Signer.sign, Inbox.put

    def keep_signed(self: Signer, *given: Any, **options: Any) -> str:
        tap.signed.append(sign(self, *given, **options))
        return tap.signed[-1]

    async def keep_said(self: Inbox, received: Received) -> None:
        tap.said.append(received.frame)
        await put(self, received)

    monkeypatch.setattr(Signer, "sign", keep_signed)
    monkeypatch.setattr(Inbox, "put", keep_said)
    return tap


async def deliver(server: LiveServer, agent: LiveAgent, envelope: str) -> None:
    """Put an envelope on the endpoint's link, which is attached a moment after the endpoint is online."""
    links = server.running.services.dispatcher._links
    await eventually(lambda: agent.endpoint in links)
    await links[agent.endpoint].send(Deliver(envelope=envelope))


def kill_body(pid: int) -> OrderBody:
    """An order to end a process, that no server has on record."""
    return OrderBody(
        task="tsk_forged",
        order="ord_forged",
        action="kill_process",
        action_version=1,
        params={"pid": pid},
        origin="cli",
        requested_by="nobody",
    )


async def test_a_replayed_order_is_reported_again_and_not_run_again(
    tap: Tap, server: LiveServer, agent: LiveAgent, victim: Victim
):
    """The same envelope once more gets the first answer once more: nothing new is looked up or done."""
    task = await server.api.run("list_processes", agent.endpoint, {"match": "sleep 600"})
    order = tap.signed[-1]
    victim.kill()
    victim.wait()
    before = len(tap.reports(task.id))
    await deliver(server, agent, order)
    await until(lambda: len(tap.reports(task.id)) > before)
    assert tap.reports(task.id)[-1].result == task.result
    assert (await server.api.ask(server.api.client.task, task.id)).state is State.DONE


async def test_an_order_for_another_endpoint_is_refused(tap: Tap, server: LiveServer, agent: LiveAgent, victim: Victim):
    """Signed by the right key, but not for this endpoint."""
    signer, valid = server.running.services.signer, server.running.services.now() + timedelta(hours=1)
    await deliver(server, agent, signer.sign("ep_other", kill_body(victim.pid), version=None, valid_until=valid))
    (refusal,) = await until(tap.refusals)
    assert "wrong-endpoint" in str(refusal.detail)
    assert victim.poll() is None


async def test_an_expired_order_is_refused(tap: Tap, server: LiveServer, agent: LiveAgent, victim: Victim):
    """Kept back and sent after its time, it does nothing."""
    signer, late = server.running.services.signer, server.running.services.now() - timedelta(seconds=5)
    await deliver(server, agent, signer.sign(agent.endpoint, kill_body(victim.pid), version=None, valid_until=late))
    await until(lambda: tap.refusals() or tap.reports("tsk_forged"))
    assert "expired" in str([*tap.refusals(), *tap.reports("tsk_forged")])
    assert victim.poll() is None


async def test_an_order_of_another_key_is_refused(tap: Tap, server: LiveServer, agent: LiveAgent, victim: Victim):
    """Whoever holds the link but not the signing key orders nothing."""
    services = server.running.services
    key = OKPKey.generate_key("Ed25519")
    named = OKPKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})
    forger = Signer(named, services.signer._versions, services.now)
    valid = services.now() + timedelta(hours=1)
    await deliver(server, agent, forger.sign(agent.endpoint, kill_body(victim.pid), version=None, valid_until=valid))
    (refusal,) = await until(tap.refusals)
    assert "bad-signature" in str(refusal.detail)
    assert victim.poll() is None


async def test_an_altered_order_is_refused(tap: Tap, server: LiveServer, agent: LiveAgent, victim: Victim):
    """One character of the payload changed on the way: the signature does not hold."""
    await server.api.run("list_processes", agent.endpoint, {"match": "nobody"})
    head, payload, signature = tap.signed[-1].split(".")
    other = ("B" if payload[40] == "A" else "A").join((payload[:40], payload[41:]))
    await deliver(server, agent, f"{head}.{other}.{signature}")
    (refusal,) = await until(tap.refusals)
    assert "bad-signature" in str(refusal.detail)


async def test_a_link_survives_what_it_refuses(tap: Tap, server: LiveServer, agent: LiveAgent):
    """After nonsense in an envelope the next order still runs."""
    await deliver(server, agent, "a.b.c")
    await until(tap.refusals)
    await server.api.run("list_processes", agent.endpoint, {"match": "nobody"})
