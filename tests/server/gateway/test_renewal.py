"""A certificate is renewed by whoever holds it, and ends when the new one is used."""

import asyncio
import json
import ssl
from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from stanch.core.frames import EVIDENCE_PATH, RENEW_PATH
from tests.server.live import Agent, Answer, Live, load_identity, new_csr, trusting


async def renew(agent: Agent, csr: str, *, tls: ssl.SSLContext | None = None) -> Answer:
    """Ask for a certificate."""
    return await agent.ask("POST", RENEW_PATH, data=json.dumps({"csr": csr}).encode(), tls=tls)


async def renewed(live: Live, agent: Agent) -> tuple[ssl.SSLContext, str]:
    """TLS with a new certificate that was not used yet, and the certificate."""
    csr, private = new_csr()
    answer = await renew(agent, csr)
    assert answer.status == 200, answer.body
    tls = trusting(live.services.authority.pem)
    load_identity(tls, answer.json["certificate"] + private)
    return tls, answer.json["certificate"]


async def status(agent: Agent, tls: ssl.SSLContext) -> int:
    """What the gateway says to somebody with this certificate: 422 means that it knows them."""
    return (await agent.ask("POST", EVIDENCE_PATH, data=b"{}", tls=tls)).status


async def audited(live: Live, endpoint: str) -> list[str]:
    """What the audit says of an endpoint, oldest first."""
    admin = await live.admin()
    entries = (await admin.ask("GET", "/audit?limit=100")).json["items"]
    return [one["what"] for one in reversed(entries) if one["subject"] == endpoint]


async def test_the_old_one_is_accepted_until_the_new_one_was_used(live: Live) -> None:
    """An answer that was lost, or an agent that was killed, costs nobody their identity."""
    agent = await live.enrol()
    tls, certificate = await renewed(live, agent)
    assert await status(agent, agent.tls) == 422
    assert await status(agent, tls) == 422
    refused = await agent.ask("POST", EVIDENCE_PATH, data=b"{}")
    assert (refused.status, refused.code) == (403, "denied")
    assert await status(agent, tls) == 422
    assert await audited(live, agent.endpoint) == ["enrol", "certificate", "renew"]
    names = x509.load_pem_x509_certificate(certificate.encode()).subject
    assert [one.value for one in names] == [agent.endpoint]


async def test_the_first_use_may_come_from_many_connections_at_once(live: Live) -> None:
    """All are accepted, and it is audited once."""
    agent = await live.enrol()
    tls, _ = await renewed(live, agent)
    assert await asyncio.gather(*(status(agent, tls) for _ in range(5))) == [422] * 5
    assert (await audited(live, agent.endpoint)).count("renew") == 1


async def test_a_link_is_a_use(live: Live) -> None:
    """The new certificate carries a link, and ends the old one."""
    agent = await live.enrol()
    old, (agent.tls, _) = agent.tls, await renewed(live, agent)
    async with agent.linked():
        assert await status(agent, old) == 403


async def test_a_second_renewal_replaces_the_one_that_waits(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one new certificate is good at a time."""
    monkeypatch.setattr("stanch.server.fleet.RENEWAL_PAUSE", timedelta(0))
    agent = await live.enrol()
    first, _ = await renewed(live, agent)
    second, _ = await renewed(live, agent)
    assert [await status(agent, one) for one in (first, second, agent.tls)] == [403, 422, 403]


async def test_it_is_not_done_as_often_as_somebody_likes(live: Live) -> None:
    """Once a minute, and the answer says how long to wait."""
    agent = await live.enrol()
    await renewed(live, agent)
    again = await renew(agent, new_csr()[0])
    assert (again.status, again.code) == (429, "too-many-requests")
    assert "Wait" in again.json["error"]["hint"]


async def test_the_key_must_be_new(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was stolen unseen ends with its certificate."""
    agent = await live.enrol()
    csr, private = new_csr()
    tls = trusting(live.services.authority.pem)
    load_identity(tls, (await renew(agent, csr)).json["certificate"] + private)
    monkeypatch.setattr("stanch.server.fleet.RENEWAL_PAUSE", timedelta(0))
    key = serialization.load_pem_private_key(private.encode(), None)
    again = await renew(agent, new_csr(key)[0], tls=tls)
    assert (again.status, again.code) == (409, "conflict")


async def test_a_revoked_endpoint_gets_none(live: Live) -> None:
    """Nor is one that waits accepted any more."""
    agent = await live.enrol()
    tls, _ = await renewed(live, agent)
    await (await live.admin()).ask("POST", f"/endpoints/{agent.endpoint}/revoke")
    assert [await status(agent, one) for one in (agent.tls, tls)] == [403, 403]
    assert (await renew(agent, new_csr()[0])).status == 403


async def test_without_a_certificate_there_is_nothing_to_renew(live: Live) -> None:
    """Enrolment needs a token."""
    agent = await live.enrol()
    nobody = await renew(agent, new_csr()[0], tls=live.tls)
    assert (nobody.status, nobody.code) == (401, "not-authenticated")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"csr": "rubbish"}', b'{"csr": 1}', b"\xff"])
async def test_rubbish_is_refused_and_changes_nothing(live: Live, body: bytes) -> None:
    """With what is wrong about it; the next request need not wait."""
    agent = await live.enrol()
    answer = await agent.ask("POST", RENEW_PATH, data=body)
    assert (answer.status, answer.code) == (422, "invalid")
    assert (await renew(agent, new_csr()[0])).status == 200


async def test_what_is_kept_is_the_hash(live: Live) -> None:
    """The server recognises certificates; it stores none."""
    agent = await live.enrol()
    _, certificate = await renewed(live, agent)
    admin = await live.admin()
    entries = (await admin.ask("GET", "/audit?limit=10")).json["items"]
    (issued,) = [one for one in entries if one["what"] == "certificate"]
    assert issued["detail"] == {"certificate": sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()}
