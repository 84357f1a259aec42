"""Enrolment tokens under competition."""

import asyncio

import pytest

from stanch.core.errors import NotFound, TokenSpent
from stanch.core.rest import TokenCreate
from stanch.server.tokens import spend
from tests.fakes.server_parts import principal


async def test_the_last_use_goes_to_one(parts):
    """Of many that spend a token with three uses at the same time, exactly three succeed."""
    _, secret = await parts.tokens.create(principal(), TokenCreate(uses=3))
    tries = [parts.database.write(lambda c: spend(c, secret, parts.clock.now)) for _ in range(10)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, TokenSpent) for one in answers) == 7


async def test_revoking_what_is_not_there(parts):
    """An unknown token cannot be withdrawn."""
    with pytest.raises(NotFound):
        await parts.tokens.revoke(principal(), "tok_none")
