"""What an administrator may decide, and what is refused early."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import Invalid
from stanch.server.settings import Listen, Settings, url_of

DATA = Path("/nowhere")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:8443", "127.0.0.1", 8443), ("[::1]:0", "::1", 0), ("::1:8443", "::1", 8443), (":8443", "", 8443)],
)
def test_listening_addresses(text: str, host: str, port: int) -> None:
    """IPv4, IPv6 with and without brackets, and everywhere."""
    assert Listen.parse(text) == Listen(host, port)


@pytest.mark.parametrize(
    "text", ["", "8443", "host", "host:", "host:65536", "host:-1", "host:x", "host:٣", "h:" + "1" * 99]
)
def test_wrong_listening_addresses(text: str) -> None:
    """Each is refused before anything is started."""
    with pytest.raises(Invalid):
        Settings(data=DATA, api_listen=text)


@given(host=st.sampled_from(["127.0.0.1", "::1", "srv.example"]), port=st.integers(0, 65535))
def test_a_listening_address_shows_as_it_is_parsed(host: str, port: int) -> None:
    """`str` and `parse` are inverse."""
    assert Listen.parse(str(Listen(host, port))) == Listen(host, port)


@pytest.mark.parametrize(
    ("text", "local"), [("127.0.0.1:1", True), ("[::1]:1", True), ("0.0.0.0:1", False), ("[::]:1", False)]
)
def test_what_others_cannot_reach(text, local):
    """The first start says so of an address of this machine only."""
    assert Listen.parse(text).local is local


@pytest.mark.parametrize("name", ["", "a b", "-/", "exämple.org", "a..b", "x" * 64, "*.example.org", "http://x"])
def test_wrong_names(name: str) -> None:
    """What no certificate can carry is refused."""
    with pytest.raises(Invalid):
        Settings(data=DATA, names=(name,))


def test_too_many_names() -> None:
    """There is a bound."""
    with pytest.raises(Invalid):
        Settings(data=DATA, names=tuple(f"h{n}" for n in range(33)))


@pytest.mark.parametrize(("days", "lasts"), [(None, None), (0, None), (30, timedelta(days=30))])
def test_how_long_evidence_is_kept(days: int | None, lasts: timedelta | None) -> None:
    """For ever, unless somebody says for how many days."""
    assert Settings(data=DATA, evidence_days=days).evidence_lasts == lasts


@pytest.mark.parametrize("days", [-1, 36_501])
def test_evidence_is_kept_for_a_reasonable_time(days: int) -> None:
    """What no calendar holds is refused at the start, not at the first sweep."""
    with pytest.raises(Invalid):
        Settings(data=DATA, evidence_days=days)


@pytest.mark.parametrize("wrong", [{"upload_days": 0}, {"upload_days": 36_501}, {"max_upload": -1}])
def test_wrong_bounds_of_uploads(wrong: dict[str, int]) -> None:
    """They are kept for a day at least."""
    with pytest.raises(Invalid, match="Uploads"):
        Settings(data=DATA, **wrong)


def test_uploads_are_kept_for_a_while() -> None:
    """In days."""
    assert Settings(data=DATA).uploads_last == timedelta(days=30)


def test_the_names_that_were_set_are_advertised() -> None:
    """And stand in the certificate, with loopback."""
    settings = Settings(data=DATA, names=("stanch.example.org", "10.0.0.1"))
    assert settings.advertised == ("stanch.example.org", "10.0.0.1")
    assert {"stanch.example.org", "10.0.0.1", "127.0.0.1", "::1", "localhost"} <= set(settings.certified)


def test_without_names_the_listening_address_is_advertised() -> None:
    """If it is one."""
    assert Settings(data=DATA, gateway_listen="10.1.1.1:1").advertised == ("10.1.1.1",)
    assert "0.0.0.0" not in Settings(data=DATA).certified


def test_urls() -> None:
    """IPv6 stands in brackets."""
    assert url_of("::1", 1) == "https://[::1]:1"
    assert url_of("host", 2) == "https://host:2"
