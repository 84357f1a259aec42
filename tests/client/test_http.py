"""Requests: whatever goes wrong leaves as an error of the tree."""

import httpx2
import pytest

from stanch.client.api import Client
from stanch.core.errors import (
    Denied,
    Invalid,
    NotAuthenticated,
    NotFound,
    StanchError,
    Unavailable,
    VerificationFailed,
    error_classes,
)
from tests.client.stub import TOKEN, certificates


def test_every_request_says_who_and_how(client, stub):
    """Token, origin and version travel in headers."""
    client.whoami()
    sent = stub.headers[-1]
    assert sent["authorization"] == f"Bearer {TOKEN}"
    assert sent["x-stanch-origin"] == "api"
    assert sent["user-agent"].startswith("stanch/")


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.code)
def test_an_error_arrives_as_its_own_class(client, stub, kind):
    """Each error of the tree comes back as the class that the server raised, with all that it said."""
    stub.errors["GET /whoami"] = kind("It went wrong", got="this", expected="that", hint="Do so.")
    with pytest.raises(kind) as raised:
        client.whoami()
    assert type(raised.value) is kind
    assert (raised.value.got, raised.value.expected, raised.value.hint) == ("this", "that", "Do so.")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotAuthenticated), (403, Denied), (404, NotFound), (422, Invalid), (502, Unavailable), (418, StanchError)],
)
def test_a_foreign_error_becomes_the_class_of_its_status(client, stub, status, kind):
    """A proxy's error page is told by its status, with a piece of what it said."""
    stub.raw["GET /whoami"] = (status, b"<html>I am a proxy</html>")
    with pytest.raises(kind, match="I am a proxy") as raised:
        client.whoami()
    assert type(raised.value) is kind


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"name": 1}', b"\xff\xfe", b"[" * 100_000])
def test_an_answer_of_another_kind_is_named(client, stub, body):
    """What is no answer of ours is Unavailable and never a traceback."""
    stub.raw["GET /whoami"] = (200, body)
    stub.raw["GET /orders"] = (200, body)
    with pytest.raises(Unavailable, match="understood"):
        client.whoami()
    if body != b"[]":
        with pytest.raises(Unavailable, match="understood"):
            list(client.orders())


def test_an_answer_without_end_is_cut_off(stub, monkeypatch):
    """An answer over the bound is refused before it fills the memory."""
    monkeypatch.setattr("stanch.client.http.MAX_ANSWER", 1000)
    stub.raw["GET /whoami"] = (200, b"x" * 2000)
    with Client(stub.url, ca=stub.ca, token=TOKEN) as client, pytest.raises(Unavailable, match="too large"):
        client.whoami()


def test_nobody_there_is_unavailable(stub):
    """A refused connection says where, and what to do."""
    with Client("https://127.0.0.1:1", ca=stub.ca) as client, pytest.raises(Unavailable) as raised:
        client.health()
    assert "127.0.0.1:1" in raised.value.got
    assert raised.value.hint


def test_a_server_of_another_ca_is_refused(stub):
    """A certificate of a CA that is not ours ends the connection before anything is said."""
    other, _, _ = certificates()
    with Client(stub.url, ca=other.decode(), token=TOKEN) as client, pytest.raises(VerificationFailed) as raised:
        client.whoami()
    assert "login" in raised.value.hint
    assert not stub.requests


def test_a_certificate_for_another_host_is_refused(stub):
    """The right CA does not make a certificate right for every name."""
    url = stub.url.replace("127.0.0.1", "ip6-other.invalid")
    transport = httpx2.HTTPTransport(verify=Client(stub.url, ca=stub.ca)._http._client._transport._pool._ssl_context)
    with Client(url, ca=stub.ca, transport=transport) as client, pytest.raises((VerificationFailed, Unavailable)):
        client.health()
