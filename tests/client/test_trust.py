"""Pins, addresses, and what becomes trusted."""

import hashlib
import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.client.api import fetch_ca
from stanch.client.trust import normal_url, verified_ca, verifying_context
from stanch.core.errors import Invalid, VerificationFailed
from tests.client.stub import certificates


def pin_of(pem: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def test_the_pinned_ca_is_fetched(stub):
    """The CA that the pin names is returned, and nothing but /ca was asked."""
    assert pin_of(fetch_ca(stub.url, stub.pin)) == stub.pin
    assert [what for what, _ in stub.requests] == ["GET /ca"]


def test_another_ca_is_refused(stub):
    """A pin that does not fit raises, with both sides."""
    with pytest.raises(VerificationFailed) as raised:
        fetch_ca(stub.url, "0" * 64)
    assert raised.value.got == stub.pin
    assert raised.value.expected == "0" * 64


def test_only_the_pinned_certificate_becomes_trusted():
    """A second certificate in the answer is dropped, wherever it stands behind the first."""
    good, evil = (certificates()[0].decode() for _ in range(2))
    kept = verified_ca(f"noise\n{good}\n{evil}", pin_of(good))
    assert kept.count("BEGIN CERTIFICATE") == 1
    assert pin_of(kept) == pin_of(good)
    with pytest.raises(VerificationFailed):
        verified_ca(f"{evil}\n{good}", pin_of(good))


@given(st.text())
def test_an_answer_that_is_no_certificate_is_refused(text):
    """Whatever else the server says, it is not the pinned CA."""
    with pytest.raises(VerificationFailed):
        verified_ca(text, "0" * 64)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://server:8443/", "https://server:8443"),
        ("server:8443", "https://server:8443"),
        ("HTTPS://Server", "https://server"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_addresses_are_brought_to_one_form(url, normal):
    """The same server is the same address."""
    assert normal_url(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://server",
        "https://",
        "https://a/b",
        "https://u:p@a",
        "https://a:99999",
        "ftp://a",
        "https://a?x",
        "https://[",
        "a b",
    ],
)
def test_a_wrong_address_is_named(url):
    """Plain HTTP, paths and passwords in an address are refused."""
    with pytest.raises(Invalid):
        normal_url(url)


@given(st.text())
def test_no_text_breaks_the_address_parser(text):
    """Every text is an address or Invalid."""
    with suppress(Invalid):
        assert normal_url(text).startswith("https://")


def test_a_damaged_ca_says_what_to_do():
    """A stored CA that is no certificate is not a traceback."""
    with pytest.raises(Invalid, match="login"):
        verifying_context("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
