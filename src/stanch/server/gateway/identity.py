"""Who is at the other end: the client certificate of a connection, and the endpoint that it belongs to."""

import ssl
from hashlib import sha256
from typing import cast

from aiohttp import web

from stanch.core.errors import NotAuthenticated
from stanch.core.network import Peer
from stanch.server.fleet import Fleet, Identity


async def identify(request: web.Request, fleet: Fleet) -> Identity:
    """The endpoint that asks; NotAuthenticated without a certificate, Denied with one that is not accepted (any more).

    That our CA signed it and that it is in time, TLS has checked.
    """
    tls = _tls_of(request)
    presented = sha256(_der(tls)).hexdigest()
    return await fleet.identify(certificate_sha256=presented, name=_common_name(tls))


def certificate_of(request: web.Request) -> bytes:
    """The client certificate in DER form; NotAuthenticated if there is none."""
    return _der(_tls_of(request))


def _der(tls: ssl.SSLObject | None) -> bytes:
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if der is None:
        raise NotAuthenticated(
            "This path needs the client certificate of an endpoint",
            hint="Enrol the endpoint with `stanch agent enroll`.",
        )
    return der


def remote_address(request: web.Request) -> str:
    """Where the request comes from, for logs and notices."""
    return request.remote or "unknown"


def reached_at(request: web.Request) -> Peer | None:
    """Our own address and port as the other end sees them, unless there is a translation in between."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return Peer(address=str(name[0]).partition("%")[0], port=name[1]) if name else None


def _tls_of(request: web.Request) -> ssl.SSLObject | None:
    found = request.transport.get_extra_info("ssl_object") if request.transport else None
    return found if isinstance(found, ssl.SSLObject) else None


def _common_name(tls: ssl.SSLObject | None) -> str:
    """The one common name of the client certificate; empty if it has none, or several."""
    certificate = (None if tls is None else tls.getpeercert()) or {}
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""
