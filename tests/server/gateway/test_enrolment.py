"""Letting endpoints in, and nobody else."""

import asyncio
import hashlib
import ssl
from io import BytesIO

import pytest

from stanch.core.frames import ENROL_PATH
from tests.server.live import Answer, Live, new_csr


async def ask(live: Live, **changes: object) -> Answer:
    """An enrolment request without a certificate."""
    body = {"token": "unknown", "csr": new_csr()[0], "inventory": {"hostname": "web-01"}, **changes}
    return await post(live, json=body)


async def post(live: Live, **how: object) -> Answer:
    async with live.session.post(live.server.gateway_url + ENROL_PATH, **how) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def test_a_token_lets_one_endpoint_in(live: Live) -> None:
    """With an identity, the CA, the signing keys and where the gateway is."""
    token = await (await live.admin()).new_token(labels=["env=prod"])
    enrolled = (await ask(live, token=token)).json
    assert enrolled["ca"] == live.services.authority.pem
    assert enrolled["urls"] == [live.server.gateway_url]
    assert [one["kid"] for one in enrolled["signing_keys"]] == [live.services.authority.signing_key.kid]
    assert "d" not in enrolled["signing_keys"][0]
    view = await live.services.fleet.get(enrolled["endpoint"])
    assert (view.hostname, view.labels, view.online) == ("web-01", ("env=prod",), False)


async def test_a_token_is_used_once(live: Live) -> None:
    """The second endpoint is refused, and told what to do."""
    token = await (await live.admin()).new_token()
    assert (await ask(live, token=token)).status == 201
    again = await ask(live, token=token)
    assert (again.status, again.code) == (403, "token-spent")
    assert "stanch token create" in again.json["error"]["hint"]


async def test_of_two_at_once_one_gets_in(live: Live) -> None:
    """The last use cannot be had twice."""
    token = await (await live.admin()).new_token()
    answers = await asyncio.gather(*(ask(live, token=token) for _ in range(5)))
    assert sorted(one.status for one in answers) == [201, 403, 403, 403, 403]


async def test_a_bad_request_does_not_spend_the_token(live: Live) -> None:
    """Token and identity are one unit of work."""
    token = await (await live.admin()).new_token()
    assert (await ask(live, token=token, csr="rubbish")).code == "invalid"
    assert (await ask(live, token=token)).status == 201


async def test_an_unknown_token_lets_nobody_in(live: Live) -> None:
    """Nor a withdrawn one."""
    admin = await live.admin()
    token = await admin.new_token()
    number = (await admin.ask("GET", "/tokens")).json[0]["id"]
    assert (await admin.ask("DELETE", f"/tokens/{number}")).status == 204
    assert [(await ask(live, token=one)).status for one in ("unknown", token)] == [403, 403]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"token":"x"}', b"[" * 100_000, b"\xff"])
async def test_a_malformed_body_is_answered(live: Live, body: bytes) -> None:
    """With what is wrong about it."""
    answer = await post(live, data=body)
    assert (answer.status, answer.code) == (422, "invalid")


async def test_an_oversized_body_is_refused(live: Live) -> None:
    """413, as JSON."""
    answer = await post(live, data=BytesIO(b"x" * 2_000_000))
    assert (answer.status, answer.code) == (413, "too-large")


async def test_the_ca_can_be_fetched_and_pinned(live: Live) -> None:
    """Its hash is the pin."""
    async with live.session.get(live.server.gateway_url + "/v1/ca") as answer:
        pem = await answer.text()
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == live.services.authority.pin
