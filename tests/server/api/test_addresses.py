"""Announcing an address over HTTP, and what agents that are connected hear of it."""

import asyncio
import socket
import ssl

import pytest

from stanch.core.envelope import AddressesBody
from stanch.core.policy import Role
from tests.server.live import PASSWORD, SOON, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/server/addresses"
NEW = "https://new.test:8444"


async def test_connected_agents_hear_of_an_announced_address(live: Live, admin: Person) -> None:
    """Signed and at once, with the address that each of them uses; and the certificate carries the new name."""
    one, other = await live.enrol("web-01"), await live.enrol("web-02")
    async with one.linked() as first, other.linked() as second:
        answer = await admin.ask("PUT", PATH, json={"urls": [NEW]})
        assert (answer.status, answer.json["announced"]) == (200, [NEW])
        for wire in (first, second):
            body = (await wire.hear_order()).body
            assert isinstance(body, AddressesBody)
            assert body.urls == (live.server.gateway_url, NEW)
            assert live.server.gateway_url.endswith(f":{body.peers[0].port}")
            assert body.nonce is None
    async with one.connected() as wire:
        await wire.say(one.hello())
        await wire.hear()
        assert NEW in (await wire.hear_order()).body.urls
    assert await asyncio.to_thread(_answers_as, live, "new.test")
    shown = (await admin.ask("GET", PATH)).json
    assert (shown["configured"], shown["announced"]) == ([live.server.gateway_url], [NEW])
    assert (await admin.ask("PUT", PATH, json={"urls": []})).json["announced"] == []


def _answers_as(live: Live, name: str) -> bool:
    """Does the gateway prove that it is called so?"""
    host, port = live.server.gateway_url.removeprefix("https://").rsplit(":", 1)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(cadata=live.services.authority.pem)
    with (
        socket.create_connection((host, int(port)), timeout=SOON) as sock,
        tls.wrap_socket(sock, server_hostname=name) as secured,
    ):
        return secured.version() is not None


@pytest.mark.parametrize("body", [{}, {"urls": ["http://a:1"]}, {"urls": [NEW] * 17}, {"urls": NEW}, {"url": []}])
async def test_what_cannot_be_announced_is_refused(admin: Person, body: dict) -> None:
    """Before any agent hears of it."""
    assert (await admin.ask("PUT", PATH, json=body)).code == "invalid"


async def test_announcing_needs_an_administrator(live: Live) -> None:
    """Everybody who may read may look; nobody may look without signing in."""
    lead = live.person()
    assert (await lead.ask("GET", PATH)).status == 401
    await lead.sign_in(f"a-{Role.INCIDENT_LEAD}", PASSWORD)
    assert (await lead.ask("PUT", PATH, json={"urls": [NEW]})).status == 403
    assert (await lead.ask("GET", PATH)).status == 200
