"""The audit chain shows every change and every gap."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from stanch.core.errors import VerificationFailed
from stanch.server import audit
from stanch.server.store import tables


async def fill(parts, count: int = 5) -> None:
    """Some entries."""
    for i in range(count):
        entry = audit.Entry(at=parts.clock.now, who="ada", what="order", subject=f"o{i}", detail={"i": i})
        await parts.database.write(lambda c, e=entry: audit.append(c, e))


async def test_an_untouched_chain_verifies(parts):
    """The chain of any number of entries holds."""
    await fill(parts)
    assert await parts.database.read(audit.verify) == 5


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.sampled_from(["who", "what", "subject", "detail", "hash", "previous"]), n=st.integers(1, 5))
async def test_any_change_is_seen(parts, column, n):
    """Changing any column of any entry breaks the chain."""
    await parts.database.write(lambda c: c.execute(delete(tables.audit)))
    await fill(parts)
    query = (
        update(tables.audit).where(tables.audit.c.n == n).values(**{column: {"x": 1} if column == "detail" else "x"})
    )
    assert (await parts.database.write(lambda c: c.execute(query).rowcount)) == 1
    with pytest.raises(VerificationFailed):
        await parts.database.read(audit.verify)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
async def test_a_removed_entry_is_seen(parts, n):
    """Removing an entry that has a successor breaks the chain."""
    await fill(parts)
    await parts.database.write(lambda c: c.execute(delete(tables.audit).where(tables.audit.c.n == n)))
    with pytest.raises(VerificationFailed):
        await parts.database.read(audit.verify)
