"""Signing in over HTTP."""

import hashlib
import ssl

import pytest

from stanch.core.policy import Role
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_sign_in_and_out(live: Live) -> None:
    """A token works until its session is ended."""
    person = live.person()
    session = (await person.sign_in()).json
    assert session["roles"] == ["administrator"]
    assert (await person.ask("GET", "/whoami")).json["name"] == "admin"
    assert (await person.ask("POST", "/logout")).status == 204
    assert (await person.ask("GET", "/whoami")).status == 401


async def test_a_wrong_password(live: Live) -> None:
    """401, and nothing about which part was wrong."""
    answer = await live.person().sign_in(password="wrong")
    assert (answer.status, answer.code) == (401, "not-authenticated")


@pytest.mark.parametrize(
    ("role", "up_to", "permissions"),
    [
        (Role.VIEWER, None, ["read"]),
        (Role.RESPONDER, "disruptive", ["evidence", "read", "upload"]),
        (
            Role.ADMINISTRATOR,
            "destructive",
            [
                *("administer", "configure", "content", "delete-evidence", "enrol", "evidence"),
                *("read", "release-code", "upload"),
            ],
        ),
    ],
)
async def test_whoami_says_what_one_may(live: Live, role: Role, up_to: str | None, permissions: list[str]) -> None:
    """By role."""
    person = live.person()
    await person.sign_in(f"a-{role}", PASSWORD)
    said = (await person.ask("GET", "/whoami")).json
    assert (said["up_to"], said["permissions"]) == (up_to, permissions)


async def test_health_tells_strangers_no_version(live: Live, admin: Person) -> None:
    """Nor those with a wrong token; but that it is well."""
    stranger = (await live.person().ask("GET", "/health")).json
    assert (stranger["status"], stranger["version"]) == ("ok", "")
    liar = await live.person().ask("GET", "/health", headers={"Authorization": "Bearer wrong"})
    assert (liar.status, liar.json["version"]) == (200, "")
    assert (await admin.ask("GET", "/health")).json["version"]


async def test_the_ca_can_be_pinned(live: Live) -> None:
    """Its hash is what the first start said."""
    pem = (await live.person().ask("GET", "/ca")).body.decode()
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert f"CA pin: {pin}" in live.said
