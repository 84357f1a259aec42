"""The server's keys: made once, kept closely, and used for nothing but what they are for."""

import json
import ssl
import stat
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import BadSignature, Conflict, Invalid, TooLarge, Unavailable
from stanch.server.authority import Authority
from tests.server.live import new_csr

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new one."""
    return Authority.open(tmp_path, clock=lambda: NOW)


def test_the_keys_are_made_once(tmp_path: Path, authority: Authority) -> None:
    """A second start reads the same CA and the same signing key."""
    again = Authority.open(tmp_path, clock=lambda: NOW)
    assert again.pin == authority.pin
    assert again.signing_key.kid == authority.signing_key.kid


def test_nobody_else_can_read_the_files(tmp_path: Path, authority: Authority) -> None:
    """Every file of the folder is for its owner only."""
    authority.tls(["localhost"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("ca.key", "ca.pem", "release.key", "server.pem", "signing.jwk"), 0o600)


def test_the_pin_is_the_hash_of_the_certificate(authority: Authority) -> None:
    """Anybody can compute it from the CA certificate."""
    assert authority.pin == sha256(ssl.PEM_cert_to_DER_cert(authority.pem)).hexdigest()


def test_the_signing_key_is_named_by_its_thumbprint(authority: Authority) -> None:
    """`kid` is RFC 7638, so that two servers cannot give two keys one name."""
    assert authority.signing_key.kid == authority.signing_key.thumbprint()


def test_the_ca_issues_leaves_only(authority: Authority) -> None:
    """Ten years, backdated by a day, and no CA below it."""
    constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert authority.certificate.not_valid_before_utc == NOW - timedelta(hours=24)
    assert authority.certificate.not_valid_after_utc > NOW + timedelta(days=3650)


@pytest.mark.parametrize("lost", ["ca.key", "signing.jwk"])
def test_a_lost_key_is_not_replaced_in_silence(tmp_path: Path, authority: Authority, lost: str) -> None:
    """A new key would cut every endpoint off: the server refuses to start, and says what to do."""
    (tmp_path / lost).unlink()
    with pytest.raises(Unavailable, match="backup"):
        Authority.open(tmp_path, clock=lambda: NOW)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "signing.jwk"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"{}", b"\xff\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, authority: Authority, name: str, content: bytes) -> None:
    """Which one, and what to do."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unavailable, match=name):
        Authority.open(tmp_path, clock=lambda: NOW)


def test_a_certificate_of_another_key_is_refused(tmp_path: Path, authority: Authority) -> None:
    """`ca.pem` and `ca.key` belong together."""
    (tmp_path / "other").mkdir()
    other = Authority.open(tmp_path / "other", clock=lambda: NOW)
    (tmp_path / "ca.pem").write_text(other.pem)
    with pytest.raises(Unavailable, match="another key"):
        Authority.open(tmp_path, clock=lambda: NOW)


def test_a_first_start_that_was_cut_begins_again(tmp_path: Path, authority: Authority) -> None:
    """The CA certificate is written last: without it, nothing was promised to anybody."""
    (tmp_path / "ca.pem").unlink()
    again = Authority.open(tmp_path, clock=lambda: NOW)
    assert again.pin != authority.pin


def test_an_agents_certificate_says_who_it_is_and_no_more(authority: Authority) -> None:
    """Common name from the server, client use only, one year, backdated by a day; the request's name is ignored."""
    csr, _ = new_csr(name="end_somebody_else")
    certificate = x509.load_der_x509_certificate(authority.issue_agent(csr, "end_1").der)
    extensions = certificate.extensions
    assert [one.value for one in certificate.subject] == ["end_1"]
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=24)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=365)
    certificate.verify_directly_issued_by(authority.certificate)


def test_a_leaf_never_outlives_the_ca(tmp_path: Path, authority: Authority) -> None:
    """Near the end of the CA, certificates become short."""
    late = Authority.open(tmp_path, clock=lambda: NOW + timedelta(days=3600))
    csr, _ = new_csr()
    certificate = x509.load_der_x509_certificate(late.issue_agent(csr, "end_1").der)
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_ed25519_keys_are_taken(authority: Authority) -> None:
    """Agents may have P-256 or Ed25519."""
    csr, _ = new_csr(ed25519.Ed25519PrivateKey.generate())
    certificate = x509.load_der_x509_certificate(authority.issue_agent(csr, "end_1").der)
    assert isinstance(certificate.public_key(), ed25519.Ed25519PublicKey)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_other_kinds_of_keys_are_refused(authority: Authority, key: object) -> None:
    """Whose strength we do not know."""
    if isinstance(key, rsa.RSAPrivateKey):
        from cryptography.hazmat.primitives import hashes, serialization

        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        csr = request.public_bytes(serialization.Encoding.PEM).decode()
    else:
        csr, _ = new_csr(key)
    with pytest.raises(Invalid, match="P-256"):
        authority.issue_agent(csr, "end_1")


def test_a_request_that_its_own_key_did_not_sign_is_refused(authority: Authority) -> None:
    """Nobody gets a certificate for a key that they do not hold."""
    csr, _ = new_csr()
    der = bytearray(x509.load_pem_x509_csr(csr.encode()).public_bytes(x509_der()))
    der[-1] ^= 1
    forged = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    with pytest.raises((BadSignature, Invalid)):
        authority.issue_agent(forged, "end_1")


def x509_der():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_an_oversized_request_is_not_even_decoded(authority: Authority) -> None:
    """Its length is looked at first."""
    with pytest.raises(TooLarge):
        authority.issue_agent("x" * 10_001, "end_1")


_shared: dict[str, Authority] = {}


@given(text=st.text(max_size=300))
def test_no_text_gets_past_the_parser(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever is sent as a request, the answer is one of our errors."""
    authority = _shared.setdefault("one", Authority.open(tmp_path_factory.mktemp("ca"), clock=lambda: NOW))
    with pytest.raises(Invalid):
        authority.issue_agent(text, "end_1")


def test_the_private_key_stays_private(tmp_path: Path, authority: Authority) -> None:
    """What is handed to endpoints has no private part."""
    public = authority.signing_key.as_dict(private=False)
    private = json.loads((tmp_path / "signing.jwk").read_bytes())
    assert "d" in private
    assert private["d"] not in json.dumps(public)


def test_a_certificate_for_more_names_is_shown_from_then_on(tmp_path: Path, authority: Authority) -> None:
    """Both ports take it up without a restart."""
    tls = authority.tls(["old.test"])
    authority.certify(tls, ["old.test", "192.0.2.7"])
    for port in (tls.api, tls.gateway):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(cadata=authority.pem)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        for name in ("old.test", "192.0.2.7"):
            assert (_handshake(client, port, name) or {})["subjectAltName"] == (
                ("DNS", "old.test"),
                ("IP Address", "192.0.2.7"),
            )


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> Mapping[str, Any] | None:
    """What the client has seen of the server, once it believes it; in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(back, there, server_hostname=name)
    other = server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for end in (one, other):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return one.getpeercert()


def test_the_release_key_is_made_once_even_later(tmp_path: Path, authority: Authority) -> None:
    """A server from before there were release codes gets one at its next start; after that it stays."""
    assert len(authority.release_key) == 32
    assert Authority.open(tmp_path, clock=lambda: NOW).release_key == authority.release_key
    (tmp_path / "release.key").unlink()
    later = Authority.open(tmp_path, clock=lambda: NOW)
    assert (later.pin, len(later.release_key)) == (authority.pin, 32)
    assert repr(later.release_key) not in repr(later)


def test_a_damaged_release_key_is_named(tmp_path: Path, authority: Authority) -> None:
    """Codes of another key would open nothing."""
    (tmp_path / "release.key").write_bytes(b"short")
    with pytest.raises(Unavailable, match=r"release\.key"):
        Authority.open(tmp_path, clock=lambda: NOW)


def test_a_renewed_certificate_needs_a_new_key(authority: Authority) -> None:
    """It carries the same name, and never the same key."""
    key = ec.generate_private_key(ec.SECP256R1())
    first = authority.issue_agent(new_csr(key)[0], "end_1")
    with pytest.raises(Conflict, match="new key"):
        authority.renew_agent(new_csr(key)[0], "end_1", current=first.der)
    second = authority.renew_agent(new_csr()[0], "end_1", current=first.der)
    assert x509.load_der_x509_certificate(second.der).public_key() != key.public_key()
