"""The audit chain shows every change and every gap."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text, update

from stanch.core.errors import VerificationFailed
from stanch.core.rest import AuditVerified
from stanch.server import audit
from stanch.server.store import tables


async def fill(parts, count: int = 5) -> None:
    """Some entries."""
    for i in range(count):
        entry = audit.Entry(at=parts.clock.now, who="ada", what="order", subject=f"o{i}", detail={"i": i})
        await parts.database.write(lambda c, e=entry: audit.append(c, e))


async def test_an_untouched_chain_verifies(parts):
    """Its length and the hash of its newest entry are told."""
    await fill(parts)
    newest = await parts.database.read(lambda c: c.execute(select(tables.audit.c.hash).where(tables.audit.c.n == 5)))
    assert await parts.database.read(audit.verify) == AuditVerified(entries=5, newest=newest.scalar_one())


async def test_an_empty_chain_verifies(parts):
    """Where nothing was done, nothing is missing."""
    assert await parts.database.read(audit.verify) == AuditVerified(entries=0, newest=audit.FIRST)


async def test_a_chain_longer_than_a_batch_is_walked_whole(parts, monkeypatch):
    """What is changed beyond the first batch is seen too, and named."""
    monkeypatch.setattr(audit, "BATCH", 2)
    await fill(parts, 7)
    assert (await parts.database.read(audit.verify)).entries == 7
    await parts.database.write(lambda c: c.execute(update(tables.audit).where(tables.audit.c.n == 6).values(who="eve")))
    with pytest.raises(VerificationFailed, match="entry 6 "):
        await parts.database.read(audit.verify)


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


async def test_a_chain_whose_end_was_cut_off_has_another_newest_hash(parts):
    """It holds in itself; only what was written down elsewhere shows it."""
    await fill(parts)
    before = await parts.database.read(audit.verify)
    await parts.database.write(lambda c: c.execute(delete(tables.audit).where(tables.audit.c.n == 5)))
    after = await parts.database.read(audit.verify)
    assert (before.entries, after.entries) == (5, 4)
    assert after.newest != before.newest


@pytest.mark.parametrize("change", ["detail = '{'", "detail = '[]'", "at = 'yesterday'", "at = 5", "who = x'00ff'"])
@pytest.mark.parametrize("look", [audit.verify, lambda c: audit.page(c, None, 10)], ids=["verify", "page"])
async def test_an_entry_that_cannot_be_read_was_changed(parts, change, look):
    """What the server never writes is no error of the server."""
    await fill(parts)
    await parts.database.write(lambda c: c.execute(text(f"UPDATE audit SET {change} WHERE n = 3")))
    with pytest.raises(VerificationFailed, match="changed"):
        await parts.database.read(look)


async def test_pages_have_every_entry_once(parts):
    """Newest first, and the number to go on from; none after the last."""
    await fill(parts)
    found, after = [], None
    while True:
        views, after = await parts.database.read(lambda c, a=after: audit.page(c, a, 2))
        found += views
        if after is None:
            break
    assert [one.subject for one in found] == ["o4", "o3", "o2", "o1", "o0"]
    assert [one.previous for one in found] == [*(one.hash for one in found[1:]), audit.FIRST]
