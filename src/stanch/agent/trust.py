"""The server's signing keys that this endpoint trusts: pinned at enrolment, rotated only by a key that was trusted."""

from collections.abc import Iterable, Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from stanch.agent.journal import Journal
from stanch.core.envelope import KeysBody
from stanch.core.errors import Invalid

ENTRY = "trusted_keys"

Jwk = Mapping[str, str]


class TrustedKeys:
    """The keys by `kid`: those of the last rotation, before the first one those of the enrolment."""

    def __init__(self, journal: Journal, enrolled: Iterable[Jwk]) -> None:
        rotated = journal.get(ENTRY)
        self._journal = journal
        self._keys = public_keys(enrolled if rotated is None else rotated)

    @property
    def by_kid(self) -> Mapping[str, OKPKey]:
        """The keys that may sign envelopes."""
        return self._keys

    def rotate(self, body: KeysBody) -> None:
        """Trust these keys and no others, on the disk with the journal's next transaction; Invalid if they are none."""
        self._keys = public_keys(body.keys)
        self._journal.stage(ENTRY, [dict(key) for key in body.keys])


def public_keys(jwks: Iterable[Jwk]) -> dict[str, OKPKey]:
    """Ed25519 public keys by their `kid`; Invalid for anything else, a private key included."""
    keys = [(_kid(jwk), _key(jwk)) for jwk in jwks]
    by_kid = dict(keys)
    if not by_kid or len(by_kid) != len(keys):
        raise Invalid("Signing keys need each a kid of its own", got=[kid for kid, _ in keys])
    return by_kid


def _kid(jwk: Jwk) -> str:
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 200:  # noqa: PLR2004 - as long as any name
        raise Invalid("A signing key has no kid", got=kid)
    return kid


def _key(jwk: Jwk) -> OKPKey:
    plain: dict[str, Any] = dict(jwk)
    if (plain.get("kty"), plain.get("crv")) != ("OKP", "Ed25519") or "d" in plain:
        kind = f"{plain.get('kty')} {plain.get('crv')}" + (", private" if "d" in plain else "")
        raise Invalid("A signing key is of the wrong kind", got=kind, expected="a public Ed25519 key")
    try:
        return OKPKey.import_key(plain)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise Invalid("A signing key cannot be read", got=type(error).__name__) from None
