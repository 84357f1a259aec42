"""Enrolment tokens under competition."""

import asyncio
from datetime import timedelta

import pytest

from stanch.core.errors import Denied, NotFound, TokenSpent
from stanch.core.rest import TokenCreate
from stanch.server.tokens import spend
from tests.fakes.server_parts import principal


async def test_the_last_use_goes_to_one(parts):
    """Of many that spend a token with three uses at the same time, exactly three succeed."""
    _, secret = await parts.tokens.create(principal(), TokenCreate(uses=3))
    tries = [parts.database.write(lambda c: spend(c, secret, parts.clock.now)) for _ in range(10)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, TokenSpent) for one in answers) == 7


async def test_labels_bound_which_tokens_are_made_seen_and_withdrawn(parts):
    """Whoever is confined to some endpoints lets in no others."""
    confined = principal(labels=("site=a",))
    with pytest.raises(Denied, match="site=a"):
        await parts.tokens.create(confined, TokenCreate(labels=("env=prod",)))
    mine, _ = await parts.tokens.create(confined, TokenCreate(labels=("env=prod", "site=a")))
    parts.clock.pass_(timedelta(seconds=1))
    other, _ = await parts.tokens.create(principal(), TokenCreate(labels=("site=b",)))
    assert [one.id for one in await parts.tokens.list(confined)] == [mine.id]
    assert {one.id for one in await parts.tokens.list(principal())} == {mine.id, other.id}
    with pytest.raises(Denied):
        await parts.tokens.revoke(confined, other.id)
    await parts.tokens.revoke(confined, mine.id)
    assert [one.revoked for one in await parts.tokens.list(principal())] == [False, True]


async def test_revoking_what_is_not_there(parts):
    """An unknown token cannot be withdrawn."""
    with pytest.raises(NotFound):
        await parts.tokens.revoke(principal(), "tok_none")
