"""How a client comes to trust a server: its CA, checked against a pin that came by another way.

1. Fetch `GET /api/v1/ca` over a connection whose certificate nobody has checked yet.
2. Take exactly one certificate from the answer; its SHA-256 must be the pin, else VerificationFailed.
3. From then on accept only certificates of this CA, for the host name in the address.
"""

import hashlib
import re
import ssl
from urllib.parse import urlsplit

from stanch.core.errors import Invalid, VerificationFailed
from stanch.core.types import parse_pin

_HOST = re.compile(r"[\w.-]{1,253}|[0-9a-f:.]{2,45}")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]{1,20000}-----END CERTIFICATE-----")


def normal_url(url: str) -> str:
    """`https://host[:port]` without a path; Invalid for anything else, plain HTTP included."""
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _wrong_url(url) from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme != "https" or extra or not _HOST.fullmatch(host):
        raise _wrong_url(url)
    return f"https://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


def _wrong_url(url: str) -> Invalid:
    return Invalid("The server's address is wrong", got=url[:200], expected="https://HOST[:PORT]")


def verified_ca(pem: str, pin: str) -> str:
    """The one certificate of an answer that the pin names, as PEM; VerificationFailed otherwise."""
    found = _CERTIFICATE.search(pem)
    try:
        der = ssl.PEM_cert_to_DER_cert(found[0]) if found else b""
    except ValueError:
        der = b""
    got = hashlib.sha256(der).hexdigest() if der else "no certificate"
    if got != parse_pin(pin):
        raise VerificationFailed(
            "This is not the server that the pin names",
            got=got,
            expected=parse_pin(pin),
            hint="Compare the pin with what the server printed at its first start; somebody may stand between you.",
        )
    # Written anew from what was hashed: nothing else that the answer contained becomes trusted.
    return ssl.DER_cert_to_PEM_cert(der)


def verifying_context(ca: str) -> ssl.SSLContext:
    """TLS that accepts certificates of this CA only, with the right host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca)
    except ssl.SSLError:
        raise Invalid("The stored CA is no certificate", hint="Sign in again with `stanch login`.") from None
    return context


def unverified_context() -> ssl.SSLContext:
    """TLS that accepts anybody: only to fetch what a pin then checks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
