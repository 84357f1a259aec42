"""Enrolment tokens over HTTP."""

import pytest

from stanch.core.policy import Role
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_new_token_says_all_that_an_agent_needs(live: Live, admin: Person) -> None:
    """Secret, pin and URL; the secret only once."""
    made = (await admin.ask("POST", "/tokens", json={"uses": 2, "valid_for": "1h", "labels": ["env=prod"]})).json
    assert (made["ca_pin"], made["gateway_url"]) == (live.services.authority.pin, live.server.gateway_url)
    assert (made["uses_left"], made["labels"], made["created_by"]) == (2, ["env=prod"], "admin")
    listed = await admin.ask("GET", "/tokens")
    assert made["id"] in [one["id"] for one in listed.json]
    assert made["token"].encode() not in listed.body


async def test_a_token_can_be_withdrawn(live: Live, admin: Person) -> None:
    """One that is not there cannot."""
    made = (await admin.ask("POST", "/tokens", json={})).json
    assert (await admin.ask("DELETE", f"/tokens/{made['id']}")).status == 204
    listed = {one["id"]: one for one in (await admin.ask("GET", "/tokens")).json}
    assert listed[made["id"]]["revoked"]
    assert (await admin.ask("DELETE", "/tokens/tok_none")).code == "not-found"


async def test_making_tokens_needs_a_role(live: Live) -> None:
    """An incident lead orders anything, and lets nobody in."""
    lead = live.person()
    await lead.sign_in(f"a-{Role.INCIDENT_LEAD}", PASSWORD)
    tried = [await lead.ask("POST", "/tokens", json={}), await lead.ask("GET", "/tokens")]
    assert [one.status for one in tried] == [403, 403]
