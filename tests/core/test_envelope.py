"""Each numbered step of `verify` refuses what it is there to refuse, and nothing but our errors comes out."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from stanch.core.content import ContentKind, PackRef
from stanch.core.envelope import (
    ALGORITHM,
    MAX_ENVELOPE_BYTES,
    VERSIONED,
    AddressesBody,
    Body,
    CancelBody,
    ContentBody,
    Envelope,
    KeysBody,
    Kind,
    OrderBody,
    PolicyBody,
    sign,
    verify,
)
from stanch.core.errors import (
    BadSignature,
    Expired,
    Invalid,
    Outdated,
    Replayed,
    StanchError,
    TooLarge,
    WrongEndpoint,
)

US = "ep_1"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ORDER = OrderBody(
    task="tsk_1", order="ord_1", action="isolate", action_version=1, params={}, origin="cli", requested_by="alice"
)
BODIES: tuple[Body, ...] = (
    ORDER,
    CancelBody(task="tsk_1"),
    PolicyBody(settings={"isolation": {"allow": ["10.0.0.0/8"]}}),
    ContentBody(packs=(PackRef(name="yara", kind=ContentKind.YARA, version=1, sha256="0" * 64, size=5),)),
    KeysBody(keys=({"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "k2"},)),
    AddressesBody(urls=("https://a:7443",), nonce="n"),
)


@cache
def key(kid: str = "k1") -> OKPKey:
    """A signing key, the same for each name."""
    return OKPKey.generate_key("Ed25519", {"kid": kid})


def envelope(body: Body = ORDER, **changes: Any) -> Envelope:
    """A valid envelope for us, with changes."""
    fields: dict[str, Any] = {"endpoint": US, "id": "env_1", "iat": int(NOW.timestamp()), "version": 1, "body": body}
    return Envelope(**{**fields, **changes})


def check(token: str, *, now: datetime | None = NOW, versions: Mapping[Kind, int] | None = None) -> Envelope:
    """Verify as the endpoint that trusts key k1."""
    return verify(token, keys={"k1": key()}, endpoint=US, now=now, versions=versions or {})


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_of(header: object, payload: bytes, signature: bytes = b"\0" * 64) -> str:
    """A compact JWS of any parts."""
    return ".".join((encode(json.dumps(header).encode()), encode(payload), encode(signature)))


def signed_payload(payload: bytes, **header: Any) -> str:
    """Any payload under our own valid signature."""
    return jws.serialize_compact({"alg": ALGORITHM, "kid": "k1", **header}, payload, key(), [ALGORITHM])


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.kind)
def test_what_was_signed_comes_back(body: Body) -> None:
    """An envelope of each kind passes and is what was signed."""
    assert check(sign(envelope(body), key())) == envelope(body)


def test_every_kind_is_tried() -> None:
    """The list above leaves out no kind."""
    assert {body.kind for body in BODIES} == set(Kind)


def test_an_explicit_null_parameter_arrives() -> None:
    """A null inside parameters means something: never instead of the default."""
    order = ORDER.model_copy(update={"params": {"duration": None}})
    body = check(sign(envelope(order), key())).body
    assert isinstance(body, OrderBody)
    assert body.params == {"duration": None}


@pytest.mark.parametrize("size", [100_000, 150_000, 700_000])
def test_large_envelopes_pass(size: int) -> None:
    """Everything within our own bound passes: no smaller bound hides in a library."""
    big = PolicyBody(settings={"x": "y" * size})
    assert check(sign(envelope(big), key())).body == big


# --- (1) bounded -----------------------------------------------------------------------------------------------------


def test_what_no_endpoint_would_accept_is_not_signed() -> None:
    """The server notices an oversized envelope before it is sent."""
    with pytest.raises(TooLarge):
        sign(envelope(PolicyBody(settings={"x": "y" * MAX_ENVELOPE_BYTES})), key())


def test_oversized_envelopes_are_refused() -> None:
    """The bound is checked before anything is decoded."""
    with pytest.raises(TooLarge):
        check("x" * (MAX_ENVELOPE_BYTES + 1))


# --- (2) signed ------------------------------------------------------------------------------------------------------


def test_no_algorithm_is_refused() -> None:
    """The classic: alg none with an empty signature."""
    payload = envelope().model_dump_json().encode()
    for alg in ("none", "None", "NONE", ""):
        with pytest.raises(BadSignature):
            check(token_of({"alg": alg, "kid": "k1"}, payload, b""))


@pytest.mark.parametrize("decoded", [True, False])
def test_a_public_key_is_no_shared_secret(*, decoded: bool) -> None:
    """HS256 with the public key as its secret is refused."""
    public = str(key().as_dict(private=False)["x"]).encode()
    shared = OctKey.import_key(base64.urlsafe_b64decode(public + b"==") if decoded else public)
    payload = envelope().model_dump_json().encode()
    with pytest.raises(BadSignature):
        check(jws.serialize_compact({"alg": "HS256", "kid": "k1"}, payload, shared, ["HS256"]))


def test_unknown_keys_are_refused() -> None:
    """A valid signature of a key that we do not trust says nothing, whatever kid it claims."""
    with pytest.raises(BadSignature):
        check(sign(envelope(), key("k2")))
    with pytest.raises(BadSignature):
        check(jws.serialize_compact({"alg": ALGORITHM, "kid": "k1"}, b"{}", key("k2"), [ALGORITHM]))


def test_a_key_in_the_header_is_not_used() -> None:
    """A token that brings its own key proves nothing."""
    other = key("k2")
    header = {"alg": ALGORITHM, "kid": "k1", "jwk": other.as_dict(private=False)}
    with pytest.raises(BadSignature):
        check(jws.serialize_compact(header, envelope().model_dump_json().encode(), other, [ALGORITHM]))


@given(st.integers(min_value=0), st.integers(0, 7))
def test_every_changed_bit_is_noticed(position: int, bit: int) -> None:
    """One flipped bit anywhere in header, payload or signature is refused."""
    token = sign(envelope(), key())
    parts = [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]
    flat = bytearray(b"".join(parts))
    flat[position % len(flat)] ^= 1 << bit
    first, second = len(parts[0]), len(parts[0]) + len(parts[1])
    changed = ".".join(map(encode, (bytes(flat[:first]), bytes(flat[first:second]), bytes(flat[second:]))))
    with pytest.raises(BadSignature):
        check(changed)


@pytest.mark.parametrize("header", [[], 1, "x", None, {"alg": ["Ed25519"]}, {"alg": ALGORITHM, "kid": {}}])
def test_odd_headers_are_refused(header: object) -> None:
    """A header that is no object, or whose fields have other types, is refused."""
    with pytest.raises(BadSignature):
        check(token_of(header, b"{}"))


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b""])
def test_hostile_headers_are_refused(header: bytes) -> None:
    """A header that would exhaust a parser is refused like any other."""
    with pytest.raises(BadSignature):
        check(f"{encode(header)}.{encode(b'{}')}.{encode(b'x' * 64)}")


@given(st.text() | st.lists(st.binary().map(encode), min_size=1, max_size=4).map(".".join))
def test_random_tokens_raise_only_our_errors(token: str) -> None:
    """Whatever arrives, the answer is one of our errors."""
    with pytest.raises(StanchError):
        check(token)


# --- (3) of a form that we know --------------------------------------------------------------------------------------

MALFORMED = {
    "no json": b"isolate!",
    "no object": b"[]",
    "no body": b'{"endpoint": "ep_1", "id": "e", "iat": 1}',
    "unknown kind": b'{"endpoint": "ep_1", "id": "e", "iat": 1, "body": {"kind": "upgrade"}}',
    "iat is text": b'{"endpoint": "ep_1", "id": "e", "iat": "x", "body": {"kind": "cancel", "task": "t"}}',
    "negative iat": b'{"endpoint": "ep_1", "id": "e", "iat": -1, "body": {"kind": "cancel", "task": "t"}}',
    "iat after the year 9999": b'{"endpoint": "ep_1", "id": "e", "iat": 1099511627776, "exp": 5,'
    b' "body": {"kind": "cancel", "task": "t"}}',
    "id is a path": b'{"endpoint": "ep_1", "id": "../e", "iat": 1, "body": {"kind": "cancel", "task": "t"}}',
    "deep": b'{"body": ' + b"[" * 10_000,
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_signed_nonsense_is_refused(payload: bytes) -> None:
    """A valid signature does not make a malformed envelope right."""
    with pytest.raises(Invalid):
        check(signed_payload(payload))


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_random_signed_payloads_raise_only_our_errors(payload: bytes) -> None:
    """Whatever a server with a bug signs, the answer is one of our errors."""
    with pytest.raises(StanchError):
        check(signed_payload(payload))


def test_unknown_fields_are_ignored() -> None:
    """A newer server may say more."""
    raw = {**envelope().model_dump(mode="json", exclude_none=True), "from_the_future": 1}
    assert check(signed_payload(json.dumps(raw).encode())) == envelope()


# --- (4) for us ------------------------------------------------------------------------------------------------------


def test_an_envelope_for_another_endpoint_is_refused() -> None:
    """A valid order for one machine says nothing on another."""
    with pytest.raises(WrongEndpoint):
        check(sign(envelope(endpoint="ep_2"), key()))


# --- (5) in time -----------------------------------------------------------------------------------------------------


def expiring(after: timedelta) -> str:
    """An envelope whose validity ends so long after it was signed."""
    return sign(envelope(exp=int((NOW + after).timestamp())), key())


@pytest.mark.parametrize("now", [NOW, NOW + timedelta(minutes=5), None])
def test_a_valid_envelope_passes_until_its_end(now: datetime | None) -> None:
    """Validity includes its last second; without a clock of its own, an endpoint believes `iat`."""
    assert check(expiring(timedelta(minutes=5)), now=now).id == "env_1"


def test_an_expired_envelope_is_refused() -> None:
    """One second later it is over."""
    with pytest.raises(Expired):
        check(expiring(timedelta(minutes=5)), now=NOW + timedelta(minutes=5, seconds=1))


def test_an_envelope_that_was_born_expired_is_refused() -> None:
    """Signed after its own end: refused even if our clock is behind, or unset."""
    for now in (NOW - timedelta(days=1), None):
        with pytest.raises(Expired):
            check(expiring(timedelta(seconds=-1)), now=now)


def test_a_clock_behind_does_not_matter() -> None:
    """A fresh envelope passes on a machine whose clock is a day behind: `iat` is newer."""
    assert check(expiring(timedelta(minutes=5)), now=NOW - timedelta(days=1)).id == "env_1"


# --- (6) newer -------------------------------------------------------------------------------------------------------

versioned = pytest.mark.parametrize("body", [one for one in BODIES if one.kind in VERSIONED], ids=lambda one: one.kind)


@versioned
def test_only_newer_versions_pass(body: Body) -> None:
    """Of the kinds that replace each other, the same version is a replay and an older one is outdated."""
    token = sign(envelope(body, version=5), key())
    assert check(token, versions={body.kind: 4}).version == 5
    with pytest.raises(Replayed):
        check(token, versions={body.kind: 5})
    with pytest.raises(Outdated):
        check(token, versions={body.kind: 6})


@versioned
def test_versions_are_required(body: Body) -> None:
    """Without a version nobody can tell which one is newer."""
    with pytest.raises(Invalid):
        check(sign(envelope(body, version=None), key()))


def test_orders_have_no_version() -> None:
    """Orders and cancels are told apart by their ids: the versions of other kinds do not matter."""
    newest = dict.fromkeys(Kind, 100)
    assert check(sign(envelope(ORDER, version=None), key()), versions=newest).body == ORDER


def test_versions_are_kept_per_kind() -> None:
    """A new policy does not outdate an address list."""
    token = sign(envelope(BODIES[5], version=1), key())
    assert check(token, versions={Kind.POLICY: 9}).kind is Kind.ADDRESSES
