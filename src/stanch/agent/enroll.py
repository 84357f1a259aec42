"""Make this machine an endpoint: `stanch agent enroll`.

Trust comes before the token. The first connection is made without any trust and only fetches the server's CA; if that
is the pinned one, a second, verified connection carries the token and brings back the certificate.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Literal

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from stanch.agent.certificates import check_certificate, new_key, private_pem, signing_request
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.gateway import answering, dial, read_answer
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.inventory import read_inventory
from stanch.agent.identity import IDENTITY_FILE, Binding, Identity, make_private, trusting
from stanch.agent.journal import Journal
from stanch.agent.proxy import Proxy
from stanch.agent.resolve import split_url
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked
from stanch.core.errors import Conflict, Invalid, NotFound, VerificationFailed
from stanch.core.frames import CA_PATH, ENROL_PATH, Enrolled, EnrolRequest, Inventory
from stanch.core.types import parse_pin

MAX_CA_BYTES = 20_000
MAX_ENROLLED_BYTES = 256 * 1024
_PORTS = "That is port 8444, unless the server was told otherwise; 8443 is for people and programs."
_TIMEOUT = aiohttp.ClientTimeout(total=30.0, sock_connect=10.0)


async def enroll(
    *,
    server: str,
    token: str,
    ca_pin: str,
    state: Path,
    again: bool = False,
    proxy: str | None = None,
    inventory: Callable[[], Inventory] = read_inventory,
) -> Identity:
    """Enrol at the gateway and keep the identity in `state`; the new identity.

    Args:
        server: the gateway, https://HOST:PORT.
        token: from `stanch token create`.
        ca_pin: SHA-256 of the server's CA certificate (DER), hexadecimal.
        state: the agent's state folder; made if it is not there.
        again: replace an identity that is there already.
        proxy: URL of the HTTP proxy through which the gateway is reached, from now on.
        inventory: tells about the machine.

    VerificationFailed if the CA is not the pinned one: then the token was not sent. TokenSpent, Conflict (already
    enrolled, or the agent is running), Unavailable.
    """
    split_url(server)
    pin, through = parse_pin(ca_pin), Proxy.parse(proxy) if proxy else None
    make_private(state)
    with _agent_stopped(state):
        await _refuse_earlier(state, again=again)
        ca = await _pinned_ca(server.rstrip("/"), pin, through)
        key = new_key()
        request = EnrolRequest(token=token, csr=signing_request(key), inventory=inventory())
        enrolled = await _ask(server.rstrip("/"), trusting(ca), request, through)
        _check_certificate(enrolled, ca, key)
        identity = Identity(
            endpoint=enrolled.endpoint,
            urls=enrolled.urls or (server,),
            ca=ca,
            signing_keys=enrolled.signing_keys,
            binding=Binding.here(boot_id()),
            proxy=proxy,
        )
        identity.keys()
        _replace(state, identity, private_pem(key) + enrolled.certificate.encode())
        return identity


def fingerprint(certificate: str) -> str:
    """SHA-256 of the DER form of a PEM certificate; Invalid if it is none."""
    try:
        der = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise Invalid("This is no certificate", got=error, expected="a PEM certificate") from None
    return hashlib.sha256(der).hexdigest()


# --- what must be true before anything is sent -----------------------------------------------------------------------


@contextmanager
def _agent_stopped(state: Path) -> Iterator[None]:
    """Hold the state folder, so that no running agent has the old identity in its memory."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(state))
        except BlockingIOError:
            raise Conflict("An agent runs on this state folder", hint="Stop it first, then enrol.") from None
        yield


async def _refuse_earlier(state: Path, *, again: bool) -> None:
    """Raise Conflict if there is an identity that must not be replaced."""
    if again and _is_there(Settings(state=state).journal):
        await _refuse_effects(Settings(state=state).journal)
    if again or not _is_there(state / IDENTITY_FILE):
        return
    got = f"a damaged {state / IDENTITY_FILE}"
    with suppress(NotFound, VerificationFailed):
        got = f"endpoint {Identity.load(state).endpoint}"
    raise Conflict(
        "This endpoint is enrolled already", got=got, hint="To replace the identity: stanch agent enroll --again ..."
    )


async def _refuse_effects(path: Path) -> None:
    """Raise Conflict while something lasting is in force: an agent with a new journal would not know how to lift it."""
    journal = Journal(path)
    try:
        held = Effects(journal, AgentClock(journal, boot_seconds, boot_id())).active()
    finally:
        await journal.close()
    if held:
        names = ", ".join(effect.name for effect in held)
        hint = "Release it first, by an order or with: stanch local isolation off"
        raise Conflict("The earlier identity of this endpoint has something in force", got=names, hint=hint)


def _is_there(path: Path) -> bool:
    return path.exists()


async def _pinned_ca(server: str, pin: str, proxy: Proxy | None) -> str:
    """The server's CA (PEM), which is the pinned one; VerificationFailed if it presents another."""
    try:
        ca = await _shown_ca(server, proxy)
    except NotFound:
        raise NotFound("This is not the port for agents", got=server, hint=_PORTS) from None
    got = fingerprint(ca)
    if got != pin:
        raise VerificationFailed(
            "This is not the server that you mean: its CA is another one than the pinned one",
            got=got,
            expected=pin,
            hint="Compare the pin with what `stanch token create` printed. The token was not sent.",
        )
    return ca


async def _shown_ca(server: str, proxy: Proxy | None) -> str:
    async with (
        answering(server, proxy=proxy),
        _session(False, proxy) as session,  # nothing is believed yet: the pin decides
        session.get(server + CA_PATH, proxy_headers=_told(proxy), allow_redirects=False) as response,
    ):
        return (await read_answer(response, limit=MAX_CA_BYTES)).decode("ascii", "replace")


# --- the request itself ----------------------------------------------------------------------------------------------


def _told(proxy: Proxy | None) -> Mapping[str, str] | None:
    return None if proxy is None else proxy.headers


def _session(tls: SSLContext | Literal[False], proxy: Proxy | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=tls, socket_factory=dial)
    return aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, proxy=proxy.at(proxy.host) if proxy else None)


async def _ask(server: str, tls: SSLContext, request: EnrolRequest, proxy: Proxy | None) -> Enrolled:
    async with answering(server, proxy=proxy), _session(tls, proxy) as session:
        body = request.model_dump_json().encode()
        headers = {"Content-Type": "application/json"}
        posted = session.post(
            server + ENROL_PATH, data=body, headers=headers, proxy_headers=_told(proxy), allow_redirects=False
        )
        async with posted as response:
            answer = await read_answer(response, limit=MAX_ENROLLED_BYTES)
    try:
        return Enrolled.model_validate_json(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        got, expected = ".".join(map(str, first["loc"])), first["msg"]
        raise Invalid("The server's answer is malformed", got=got, expected=expected) from None


def _check_certificate(enrolled: Enrolled, ca: str, key: ec.EllipticCurvePrivateKey) -> None:
    """The certificate is from the pinned CA, for our key, and carries the name that we were told."""
    if fingerprint(enrolled.ca) != fingerprint(ca):
        raise VerificationFailed("The server sent another CA than the pinned one", got=fingerprint(enrolled.ca))
    check_certificate(enrolled.certificate, ca=ca, key=key, endpoint=enrolled.endpoint)


def _replace(state: Path, identity: Identity, credentials: bytes) -> None:
    """Keep the new identity; an earlier journal is put aside, since its tasks were for another endpoint."""
    settings = Settings(state=state)
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            journal = settings.journal.with_name(settings.journal.name + suffix)
            journal.rename(state / f"journal-before-{identity.endpoint}.db{suffix}")
    settings.addresses.unlink(missing_ok=True)
    identity.save(state, credentials)
    for old in set(state.glob("credentials-*.pem")) - {identity.credentials(state)}:
        old.unlink()
