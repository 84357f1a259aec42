"""The signer: what it signs, an endpoint accepts."""

from datetime import timedelta

import pytest
from joserfc.jwk import OKPKey

from stanch.core.envelope import CancelBody, PolicyBody, verify
from stanch.core.errors import Expired


async def test_an_endpoint_with_the_public_key_accepts(parts):
    """The public keys that enrolment hands out verify what the signer signs, and hold no private part."""
    token = await parts.signer.envelope("end_web", CancelBody(task="t"))
    assert all("d" not in key for key in parts.signer.public_keys)
    keys = {key["kid"]: OKPKey.import_key(dict(key)) for key in parts.signer.public_keys}
    envelope = verify(token, keys=keys, endpoint="end_web", now=parts.clock.now, versions={})
    assert envelope.body == CancelBody(task="t")


async def test_validity_is_part_of_it(parts):
    """An envelope is refused after its validity."""
    until = parts.clock.now + timedelta(hours=1)
    token = await parts.signer.envelope("end_web", CancelBody(task="t"), valid_until=until)
    keys = {str(parts.key.kid): parts.key}
    with pytest.raises(Expired):
        verify(token, keys=keys, endpoint="end_web", now=until + timedelta(seconds=2), versions={})


async def test_kinds_that_replace_each_other_have_versions(parts):
    """A policy envelope carries a version, a cancel does not."""
    keys = {str(parts.key.kid): parts.key}
    for body, versioned in ((PolicyBody(settings={}), True), (CancelBody(task="t"), False)):
        token = await parts.signer.envelope("end_web", body)
        envelope = verify(token, keys=keys, endpoint="end_web", now=None, versions={})
        assert (envelope.version is not None) is versioned


async def test_several_are_signed_together(parts):
    """Each for its own endpoint, with a version of its own, growing in the order in which they were asked for."""
    keys = {str(parts.key.kid): parts.key}
    bodies = [(f"end_{n}", PolicyBody(settings={"n": {"n": n}})) for n in range(3)]
    tokens = await parts.signer.envelopes(bodies)
    opened = [
        verify(token, keys=keys, endpoint=endpoint, now=None, versions={})
        for token, (endpoint, _) in zip(tokens, bodies, strict=True)
    ]
    assert [one.body for one in opened] == [body for _, body in bodies]
    versions = [one.version for one in opened]
    assert versions == sorted(set(versions))
    assert await parts.signer.envelopes([]) == []
