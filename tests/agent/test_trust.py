"""Trusted keys: public Ed25519 keys with distinct names, and nothing else."""

from typing import Any

import pytest

from stanch.agent.trust import public_keys
from stanch.core.errors import Invalid
from tests.fakes.agent import jwk, new_key

GOOD = jwk(new_key("k1"))

BAD: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "no kid": [{name: value for name, value in GOOD.items() if name != "kid"}],
    "kid that is no text": [{**GOOD, "kid": 7}],
    "kid twice": [GOOD, jwk(new_key("k1"))],
    "private": [{**GOOD, "d": GOOD["x"]}],
    "another curve": [{**GOOD, "crv": "X25519"}],
    "no point": [{name: value for name, value in GOOD.items() if name != "x"}],
    "another type": [{**GOOD, "kty": "RSA"}],
}


def test_public_keys_are_read() -> None:
    """Keys come back by their kid."""
    assert set(public_keys([GOOD, jwk(new_key("k2"))])) == {"k1", "k2"}


@pytest.mark.parametrize("what", BAD)
def test_anything_else_is_refused(what: str) -> None:
    """A key that could sign for nobody, or for the wrong one, is Invalid."""
    with pytest.raises(Invalid):
        public_keys(BAD[what])
