"""What the server signs for one endpoint, and how the endpoint checks it.

Everything that changes an endpoint arrives as one compact JWS (Ed25519, RFC 9864) whose payload is an `Envelope`.
`verify` raises on the first thing that is not right and returns the envelope otherwise; it never answers False.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OKPKey
from joserfc.util import json_b64encode, urlsafe_b64encode
from pydantic import Field, ValidationError

from stanch.core.content import MAX_PACKS, PackRef
from stanch.core.errors import BadSignature, Expired, Invalid, Outdated, Replayed, TooLarge, WrongEndpoint
from stanch.core.isolation import ReleaseCode
from stanch.core.model import LooseModel
from stanch.core.network import Peer
from stanch.core.types import Id, Name, Text

ALGORITHM = "Ed25519"
MAX_ENVELOPE_BYTES = 1_048_576


class _Registry(jws.JWSRegistry):
    """Our one algorithm, with our own bounds instead of the library's smaller ones."""

    max_payload_length = MAX_ENVELOPE_BYTES


_REGISTRY = _Registry(algorithms=[ALGORITHM])
_ED25519 = _REGISTRY.get_alg(ALGORITHM)


class Kind(StrEnum):
    """What an envelope is about."""

    ORDER = "order"
    CANCEL = "cancel"
    POLICY = "policy"
    CONTENT = "content"
    KEYS = "keys"
    ADDRESSES = "addresses"


class OrderBody(LooseModel):
    """Do this."""

    kind: Literal[Kind.ORDER] = Kind.ORDER
    task: Id
    """The task; the agent runs each at most once as its `after_crash` allows."""
    order: Id
    """The order that the task is part of."""
    action: Name
    """Name of the action."""
    action_version: Annotated[int, Field(ge=1)]
    """Version of its declaration on the server."""
    params: Mapping[str, Any]
    """Parameters without the defaults."""
    dry_run: bool = False
    """Only plan."""
    origin: Name
    """Who asked: see core.policy."""
    requested_by: Name
    """Name of the principal."""
    reason: Text = ""
    """Why, as the requester put it."""
    release_code: ReleaseCode | None = None
    """Recognises the code that lifts the effect of this task at the endpoint itself."""


class CancelBody(LooseModel):
    """Stop that task."""

    kind: Literal[Kind.CANCEL] = Kind.CANCEL
    task: Id
    """The task to stop."""


class PolicyBody(LooseModel):
    """Settings of the endpoint's group."""

    kind: Literal[Kind.POLICY] = Kind.POLICY
    settings: Mapping[str, Any]
    """By section."""


class ContentBody(LooseModel):
    """Rules and indicators that the endpoint should have to scan with: all of them, each time."""

    kind: Literal[Kind.CONTENT] = Kind.CONTENT
    packs: Annotated[tuple[PackRef, ...], Field(max_length=MAX_PACKS)]
    """Each in its version; what is not listed any more is to go."""


class KeysBody(LooseModel):
    """The server's signing keys from now on; signed by a key that the endpoint trusts already."""

    kind: Literal[Kind.KEYS] = Kind.KEYS
    keys: Annotated[tuple[Mapping[str, str], ...], Field(min_length=1, max_length=8)]
    """Public keys as JWK (RFC 8037) with `kid`."""


class AddressesBody(LooseModel):
    """Where the server can be reached; answers every hello, so that it also sets the agent's time."""

    kind: Literal[Kind.ADDRESSES] = Kind.ADDRESSES
    urls: Annotated[tuple[Text, ...], Field(max_length=32)]
    """Base URLs of the gateway, best first."""
    peers: Annotated[tuple[Peer, ...], Field(max_length=256)] = ()
    """Addresses behind them, for a firewall that must not depend on names."""
    evidence_key: Annotated[str, Field(max_length=200)] = ""
    """age recipient (`age1...`) to which evidence and what is quarantined are encrypted; empty if there is none."""
    nonce: Id | None = None
    """The nonce of the hello that this answers: proof that `iat` is now, so that a clock may also be set back."""


Body = Annotated[
    OrderBody | CancelBody | PolicyBody | ContentBody | KeysBody | AddressesBody, Field(discriminator="kind")
]

VERSIONED = frozenset({Kind.POLICY, Kind.CONTENT, Kind.KEYS, Kind.ADDRESSES})
"""Kinds of which only a newer version is accepted. Orders and cancels are recognised by their ids instead."""


Seconds = Annotated[int, Field(ge=0, le=2**37)]
"""Since 1970, until the year 6325: what can be computed with."""


class Envelope(LooseModel):
    """A signed message to one endpoint."""

    endpoint: Id
    """The only endpoint that may accept it."""
    id: Id
    """Of this envelope: a replay has a known one."""
    iat: Seconds
    """When it was signed, seconds since 1970."""
    exp: Seconds | None = None
    """When its validity ends."""
    version: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    """Grows per kind, for the kinds that replace each other."""
    body: Body
    """What it says."""

    @property
    def kind(self) -> Kind:
        """What it is about."""
        return self.body.kind

    @property
    def issued(self) -> datetime:
        """`iat` as a moment."""
        return datetime.fromtimestamp(self.iat, UTC)


def sign(envelope: Envelope, key: OKPKey) -> str:
    """A compact JWS of the envelope; the header names the key by its `kid`. TooLarge if no endpoint would take it."""
    # Compact serialisation by hand (RFC 7515, 7.1): the library encodes and checks the same header anew for each
    # envelope, which takes about as long as the signature itself, and an order may go to thousands of endpoints.
    signed = _protected(str(key.kid)) + b"." + urlsafe_b64encode(envelope.model_dump_json(exclude_none=True).encode())
    token = (signed + b"." + urlsafe_b64encode(_ED25519.sign(signed, key))).decode()
    _check_size(token)
    return token


@lru_cache(maxsize=8)
def _protected(kid: str) -> bytes:
    """The encoded header, which is the same for every envelope of a key."""
    return json_b64encode({"alg": ALGORITHM, "kid": kid})


def verify(
    token: str,
    *,
    keys: Mapping[str, OKPKey],
    endpoint: str,
    now: datetime | None,
    versions: Mapping[Kind, int],
    late_too: bool = False,
) -> Envelope:
    """Check everything that can be checked without a store, and return the envelope.

    Args:
        token: the compact JWS as received.
        keys: the trusted public keys by `kid`.
        endpoint: who we are.
        now: the agent's time; None before the first signed `iat` was ever seen.
        versions: the newest accepted version of each kind.
        late_too: return an envelope whose validity is over, too. The caller MUST NOT obey it.

    The caller MUST still refuse an order whose task it has seen: that needs its journal.
    """
    # (1) Bounded, before anything is decoded.
    _check_size(token)
    # (2) One algorithm, a key that we trust, a signature that holds.
    payload = _checked_payload(token, keys)
    # (3) Of the form that we know.
    envelope = _parse(payload)
    # (4) For us and nobody else.
    if envelope.endpoint != endpoint:
        raise WrongEndpoint("The envelope is for another endpoint", got=envelope.endpoint, expected=endpoint)
    # (5) In time, by a clock that only signed envelopes have set.
    if not late_too:
        _check_time(envelope, now)
    # (6) Newer than what it replaces.
    _check_version(envelope, versions.get(envelope.kind))
    return envelope


def _check_size(token: str) -> None:
    if len(token) > MAX_ENVELOPE_BYTES:
        raise TooLarge("The envelope is too large", got=len(token), expected=f"at most {MAX_ENVELOPE_BYTES} bytes")


def _checked_payload(token: str, keys: Mapping[str, OKPKey]) -> bytes:
    def trusted(unverified: GuestProtocol) -> OKPKey:
        header = unverified.headers()
        key = keys.get(str(header.get("kid")))
        if header.get("alg") != ALGORITHM or key is None:
            raise BadSignature(
                "The envelope is not signed by a key that this endpoint trusts",
                got=f"alg {header.get('alg')}, kid {header.get('kid')}",
                expected=f"alg {ALGORITHM}, kid one of {', '.join(keys)}",
            )
        return key

    try:
        return jws.deserialize_compact(token.encode("ascii"), trusted, [ALGORITHM], registry=_REGISTRY).payload
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise BadSignature("The signature of the envelope does not hold", got=type(error).__name__) from None


def _parse(payload: bytes) -> Envelope:
    try:
        return Envelope.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Invalid("The envelope is signed but malformed", got=where, expected=first["msg"]) from None


def _check_time(envelope: Envelope, now: datetime | None) -> None:
    newest = envelope.issued if now is None else max(now, envelope.issued)
    if envelope.exp is not None and newest.timestamp() > envelope.exp:
        until = datetime.fromtimestamp(envelope.exp, UTC)
        raise Expired("The validity of the envelope is over", got=f"now {newest}", expected=f"until {until}")


def _check_version(envelope: Envelope, newest: int | None) -> None:
    if envelope.kind not in VERSIONED:
        return
    if envelope.version is None:
        raise Invalid(f"An envelope of kind {envelope.kind} needs a version")
    if newest is not None and envelope.version == newest:
        raise Replayed("This envelope was accepted before", got=envelope.version, expected=f"over {newest}")
    if newest is not None and envelope.version < newest:
        raise Outdated(
            "A newer envelope of this kind was accepted before", got=envelope.version, expected=f"over {newest}"
        )
