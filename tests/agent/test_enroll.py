"""Enrolment against a small gateway with real TLS: the pin comes before the token."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.enroll import enroll, fingerprint
from stanch.agent.identity import Identity
from stanch.agent.journal import Journal
from stanch.agent.supervisor import locked
from stanch.core.envelope import OrderBody
from stanch.core.errors import Conflict, Invalid, NotFound, TokenSpent, Unavailable, VerificationFailed
from stanch.core.frames import Inventory
from tests.fakes.gateway import ENDPOINT, Authority, FakeGateway, gateway


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        one.tokens = {"good", "better"}
        yield one


def here() -> Inventory:
    return Inventory(hostname="web-01")


async def enrolled(gateway: FakeGateway, state: Path, **changed: object) -> Identity:
    wanted = {"server": gateway.url, "token": "good", "ca_pin": gateway.authority.pin, "inventory": here} | changed
    return await enroll(state=state, **wanted)


async def test_enrolment_leaves_a_working_identity(server, tmp_path):
    """The name, key, certificate, CA and signing keys are on the disk, closed to others, and load again."""
    state = tmp_path / "state"
    identity = await enrolled(server, state)
    assert identity.endpoint == ENDPOINT
    assert Identity.load(state) == identity
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in state.iterdir()} == {0o600}
    identity.tls(state)
    assert set(identity.keys()) == {"k1"}
    assert server.enrolments[0].inventory.hostname == "web-01"


async def test_another_ca_than_the_pinned_one_never_sees_the_token(server, tmp_path):
    """A wrong pin ends before anything is sent, and says both sides."""
    pin = Authority("other").pin
    with pytest.raises(VerificationFailed) as caught:
        await enrolled(server, tmp_path / "state", ca_pin=pin)
    assert (caught.value.got, caught.value.expected) == (server.authority.pin, pin)
    assert server.enrolments == []
    assert list((tmp_path / "state").glob("*.json")) == []


async def test_a_server_that_shows_the_right_ca_but_is_not_of_it_never_sees_the_token(server, tmp_path):
    """Repeating somebody's public CA proves nothing: the verified connection fails."""
    true = server.authority
    server.authority = Authority("impostor")
    await server.stop()
    await server.start()
    server.authority = true
    with pytest.raises(VerificationFailed, match="did not prove who it is"):
        await enrolled(server, tmp_path / "state")
    assert server.enrolments == []


async def test_the_port_for_people_is_the_wrong_one(server, tmp_path, monkeypatch):
    """Whoever mixes up the two ports is told which is which, and the token stays here."""
    monkeypatch.setattr("stanch.agent.enroll.CA_PATH", "/not/of/this/port")
    with pytest.raises(NotFound, match="8444"):
        await enrolled(server, tmp_path / "state")
    assert server.enrolments == []


async def test_a_spent_token_is_a_clear_error(server, tmp_path):
    """A token that was used up is told as such."""
    await enrolled(server, tmp_path / "one")
    with pytest.raises(TokenSpent):
        await enrolled(server, tmp_path / "two")


async def test_enrolling_twice_needs_to_be_said(server, tmp_path):
    """An identity is not replaced by accident; with `again` it is, and what belonged to the old one is put aside."""
    state = tmp_path / "state"
    await enrolled(server, state)
    with pytest.raises(Conflict, match="enrolled already") as caught:
        await enrolled(server, state, token="better")
    assert "--again" in caught.value.hint
    await Journal(state / "journal.db").close()
    (state / "addresses.json").write_bytes(b"{}")
    await enrolled(server, state, token="better", again=True)
    assert not (state / "journal.db").exists()
    assert (state / f"journal-before-{ENDPOINT}.db").exists()
    assert not (state / "addresses.json").exists()


async def test_an_isolated_endpoint_keeps_its_identity(server, tmp_path):
    """While something is in force, a new identity would forget how to lift it."""
    state = tmp_path / "state"
    await enrolled(server, state)
    journal = Journal(state / "journal.db")
    effects = Effects(journal, AgentClock(journal, lambda: 1.0, "boot_1"))
    order = OrderBody(
        task="tsk_1", order="ord_1", action="isolate", action_version=1, params={}, origin="api", requested_by="ada"
    )
    await effects.hold(order, "isolation", lift_action="release", lift_params={}, detail={}, lasts=None)
    await journal.close()
    with pytest.raises(Conflict, match="in force") as caught:
        await enrolled(server, state, token="better", again=True)
    assert caught.value.got == "isolation"
    assert "better" in server.tokens


async def test_a_damaged_identity_can_be_replaced(server, tmp_path):
    """`again` is also the way out of a damaged state folder."""
    state = tmp_path / "state"
    await enrolled(server, state)
    (state / "identity.json").write_text("{")
    with pytest.raises(Conflict, match="enrolled already") as caught:
        await enrolled(server, state, token="better")
    assert "damaged" in caught.value.got
    assert (await enrolled(server, state, token="better", again=True)).endpoint == ENDPOINT


async def test_a_running_agent_is_not_enrolled_under_its_feet(server, tmp_path):
    """While a supervisor holds the state folder, nothing is changed."""
    state = tmp_path / "state"
    with locked(state), pytest.raises(Conflict, match="agent runs"):
        await enrolled(server, state)


async def test_an_unreachable_server_is_a_clear_error(server, tmp_path):
    """Nobody listens: the error names the address."""
    await server.stop()
    with pytest.raises(Unavailable, match=server.url):
        await enrolled(server, tmp_path / "state")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://h:1/path", "https://h:x"])
async def test_a_wrong_url_is_refused(server, tmp_path, url):
    """Only https://HOST:PORT is a gateway."""
    with pytest.raises(Invalid, match="gateway URL"):
        await enrolled(server, tmp_path / "state", server=url)


async def test_a_certificate_for_another_key_is_refused(server, tmp_path, monkeypatch):
    """A certificate of the right CA and name, but for somebody else's key, is no identity."""
    theirs = server.authority.credentials(ENDPOINT)
    certificate = theirs[theirs.index(b"-----BEGIN CERTIFICATE") :].decode()
    monkeypatch.setattr(server.authority, "issue", lambda *_: certificate)
    with pytest.raises(VerificationFailed, match="somebody else"):
        await enrolled(server, tmp_path / "state")


async def test_a_certificate_with_another_name_is_refused(server, tmp_path, monkeypatch):
    """The name in the certificate must be the one that the server told."""
    issue = server.authority.issue
    monkeypatch.setattr(server.authority, "issue", lambda _name, key, *_: issue("ep_other", key))
    with pytest.raises(VerificationFailed, match="somebody else"):
        await enrolled(server, tmp_path / "state")


async def test_a_certificate_of_another_ca_is_refused(server, tmp_path, monkeypatch):
    """A certificate that the pinned CA did not sign is no identity."""
    other = Authority("other")
    monkeypatch.setattr(server.authority, "issue", lambda name, key, *_: other.issue(name, key))
    with pytest.raises(VerificationFailed, match="not from the pinned CA"):
        await enrolled(server, tmp_path / "state")


def test_a_fingerprint_is_of_the_der_form():
    """The pin is independent of how the PEM is wrapped."""
    authority = Authority()
    assert fingerprint(authority.pem) == authority.pin
    assert fingerprint("comment\n" + authority.pem) == authority.pin
    assert x509.load_pem_x509_certificate(authority.pem.encode()).subject
    with pytest.raises(Invalid, match="no certificate"):
        fingerprint("nonsense")
