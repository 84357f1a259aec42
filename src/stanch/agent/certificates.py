"""Keys and certificates of this endpoint: what it asks its server to sign, and whether the answer is the right one."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stanch.core.errors import VerificationFailed


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    """Only proves that we hold the key: the server chooses the name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "endpoint")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key, for the credentials file."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def check_certificate(certificate: str, *, ca: str, key: ec.EllipticCurvePrivateKey, endpoint: str) -> None:
    """Raise VerificationFailed unless it is from this CA (PEM), for this key, and carries this name."""
    try:
        ours = x509.load_pem_x509_certificate(certificate.encode())
        ours.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.encode()))
        names = [str(one.value) for one in ours.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        other_key = ours.public_key() != key.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        got = str(error) or type(error).__name__
        raise VerificationFailed("The certificate is not from the pinned CA", got=got) from None
    if names != [endpoint] or other_key:
        raise VerificationFailed("The certificate is for somebody else", got=f"{names}, another key", expected=endpoint)


def validity(credentials: bytes) -> tuple[datetime, datetime]:
    """From when until when the first certificate in these PEM bytes is valid; VerificationFailed if there is none."""
    try:
        certificate = x509.load_pem_x509_certificate(credentials)
    except ValueError as error:
        raise VerificationFailed("The credentials hold no certificate", got=error, hint="Enrol again.") from None
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
