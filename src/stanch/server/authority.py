"""The server's keys: its certificate authority, its own TLS identity, the agents' certificates, and the signing key.

Five files, each readable by the server only: `ca.key`, `ca.pem`, `server.pem` (key and certificate together, made anew
at every start), `signing.jwk`, `release.key`. The CA and the signing key are made once and never change: agents pin
both. From the release key all release codes follow.

Everything is backdated by a day, because an endpoint's clock may be wrong by that much.
"""

import json
import secrets
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from stanch.core.errors import BadSignature, Conflict, Invalid, TooLarge, Unavailable
from stanch.disk.atomic import atomic_write

MAX_CSR_BYTES = 10_000
RELEASE_KEY_BYTES = 32
BACKDATED = timedelta(hours=24)
CA_LASTS = timedelta(days=3653)
SERVER_LASTS = timedelta(days=825)
AGENT_LASTS = timedelta(days=365)

AgentKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class AgentCertificate:
    """A certificate that was issued to an endpoint."""

    pem: str
    der: bytes
    """Its SHA-256 is how the server recognises it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """How the two ports speak TLS."""

    api: ssl.SSLContext
    gateway: ssl.SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The CA, the signing key and the release key, in memory."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    signing_key: OKPKey
    release_key: bytes = field(repr=False)
    clock: Callable[[], datetime]
    agent_lasts: timedelta = AGENT_LASTS
    """For how long an endpoint's certificate is valid."""

    @classmethod
    def open(cls, folder: Path, *, clock: Callable[[], datetime], agent_lasts: timedelta = AGENT_LASTS) -> "Authority":
        """Read the keys from a folder; make them at the first start. Unavailable if what is there cannot be used."""
        if not (folder / "ca.pem").exists():
            _make(folder, now=clock())
        key = _read_ca_key(folder / "ca.key")
        certificate = _read_ca(folder / "ca.pem", key)
        return cls(
            folder=folder,
            certificate=certificate,
            key=key,
            signing_key=_read_signing_key(folder / "signing.jwk"),
            release_key=_release_key(folder / "release.key"),
            clock=clock,
            agent_lasts=agent_lasts,
        )

    @property
    def pem(self) -> str:
        """The CA certificate, for those who pin it."""
        return _pem(self.certificate)

    @property
    def pin(self) -> str:
        """SHA-256 of the CA certificate's DER form, hexadecimal: what `--ca-pin` takes."""
        return sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def issue_agent(self, csr_pem: str, endpoint: str) -> AgentCertificate:
        """Sign an endpoint's request. Only its key is taken from it: who it is, the server decides.

        Invalid or BadSignature if the request is malformed, its key is of another kind, or it was not signed by it.
        """
        public = _requested_key(csr_pem)
        certificate = self._issue(
            public,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, endpoint)]),
            lasts=self.agent_lasts,
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
        )
        return AgentCertificate(_pem(certificate), certificate.public_bytes(serialization.Encoding.DER))

    def renew_agent(self, csr_pem: str, endpoint: str, *, current: bytes) -> AgentCertificate:
        """The same for an endpoint that has a certificate (DER) already; Conflict if it asks for the same key again."""
        if _requested_key(csr_pem) == x509.load_der_x509_certificate(current).public_key():
            raise Conflict(
                "The new certificate must be for a new key", hint="A key that was stolen unseen is to end with it."
            )
        return self.issue_agent(csr_pem, endpoint)

    def tls(self, names: Iterable[str]) -> "ServerTls":
        """TLS for both ports, with a new certificate for these names and addresses."""
        identity = self._server_identity(names)
        return ServerTls(api=_api_tls(identity), gateway=_gateway_tls(identity, ca=self.pem))

    def certify(self, tls: "ServerTls", names: Iterable[str]) -> None:
        """Let both ports show a new certificate, for these names and addresses, to whoever connects from now on."""
        identity = self._server_identity(names)
        for context in (tls.api, tls.gateway):
            context.load_cert_chain(identity)

    def _server_identity(self, names: Iterable[str]) -> Path:
        """A new key and certificate for our own names and addresses, with the CA, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(
            key.public_key(),
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stanch server")]),
            lasts=SERVER_LASTS,
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            names=x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)]),
        )
        path = self.folder / "server.pem"
        atomic_write(path, _private_pem(key) + _pem(certificate).encode() + self.pem.encode())
        return path

    def _issue(
        self,
        key: AgentKey,
        subject: x509.Name,
        *,
        lasts: timedelta,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        """A leaf certificate; it never outlives the CA."""
        now = self.clock()
        until = min(now + lasts, self.certificate.not_valid_after_utc)
        builder = _builder(subject, self.certificate.subject, key, since=now - BACKDATED, until=until)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_issuer_id(self.key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


# --- TLS -------------------------------------------------------------------------------------------------------------


def _api_tls(identity: Path) -> ssl.SSLContext:
    """For people and programs: our certificate, and no question for theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(identity)
    return context


def _gateway_tls(identity: Path, *, ca: str) -> ssl.SSLContext:
    """For agents: theirs is optional here, since enrolment comes without; every other path requires it.

    No session tickets: they cost memory per link, and agents reconnect rarely.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(identity)
    return context


# --- what an agent asks for ------------------------------------------------------------------------------------------


def _requested_key(csr_pem: str) -> AgentKey:
    """The public key of a signing request, in numbered steps."""
    # (1) Bounded, before it is decoded.
    if len(csr_pem) > MAX_CSR_BYTES:
        raise TooLarge("The certificate request is too large", got=len(csr_pem), expected=f"at most {MAX_CSR_BYTES}")
    # (2) A request at all.
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid(
            "The certificate request is malformed", got=type(error).__name__, expected="PKCS #10, PEM"
        ) from None
    # (3) Of a kind whose strength we know.
    if not _is_agent_key(key):
        raise Invalid("The key of the certificate request is of another kind", expected="P-256 or Ed25519")
    # (4) Made by whoever holds the private key.
    _check_possession(request)
    return cast("AgentKey", key)


def _is_agent_key(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _check_possession(request: x509.CertificateSigningRequest) -> None:
    try:
        holds = request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        holds = False
    if not holds:
        raise BadSignature("The certificate request is not signed by its own key")


# --- files -----------------------------------------------------------------------------------------------------------


def _make(folder: Path, *, now: datetime) -> None:
    """Make the keys, and the CA certificate last: where it is, all of them are, and a lost one is never replaced."""
    key = ec.generate_private_key(ec.SECP256R1())
    signing_key = OKPKey.generate_key("Ed25519").as_dict(private=True)
    atomic_write(folder / "ca.key", _private_pem(key))
    atomic_write(folder / "signing.jwk", json.dumps(signing_key).encode())
    atomic_write(folder / "ca.pem", _pem(_self_signed(key, now=now)).encode())


def _read_ca_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, error) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, "a key of another kind")
    return key


def _read_ca(path: Path, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None
    if certificate.public_key() != key.public_key():
        raise _unusable(path, "the certificate of another key than ca.key")
    return certificate


def _read_signing_key(path: Path) -> OKPKey:
    """Ed25519; apart from TLS, so that taking over a TLS key orders nothing."""
    try:
        key = OKPKey.import_key(json.loads(path.read_bytes()))
        return OKPKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})
    except (OSError, JoseError, ValueError, TypeError, KeyError) as error:
        raise _unusable(path, error) from None


def _release_key(path: Path) -> bytes:
    """Random; made where it is missing, since servers from before there were release codes have none."""
    if not path.exists():
        atomic_write(path, secrets.token_bytes(RELEASE_KEY_BYTES))
    try:
        key = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from None
    if len(key) != RELEASE_KEY_BYTES:
        raise _unusable(path, f"{len(key)} bytes, not {RELEASE_KEY_BYTES}")
    return key


def _unusable(path: Path, why: object) -> Unavailable:
    return Unavailable(
        f"{path} cannot be used",
        got=why,
        hint="Restore it from a backup: agents trust this key only. Without one, every endpoint must enrol again.",
    )


# --- certificates ----------------------------------------------------------------------------------------------------


def _self_signed(key: ec.EllipticCurvePrivateKey, *, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stanch CA")])
    builder = _builder(name, name, key.public_key(), since=now - BACKDATED, until=now + CA_LASTS)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: AgentKey, *, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_id(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
