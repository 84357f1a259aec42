"""Is exactly what was named gone from the vault for good?"""

import pytest

from stanch.actions.quarantine_delete import QuarantineDelete, quarantine_delete
from stanch.core.action import Irreversible, Verdict
from stanch.core.errors import Invalid, NotFound
from stanch.core.types import EndpointPath, hours
from stanch.core.vault import Taking, Why, item_id
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

FIRST, SECOND, THIRD = (item_id("tsk_0", n) for n in range(3))


async def filled():
    """Three items, one hour apart; the last of another order."""
    endpoint = FakeEndpoint()
    for n, id_ in enumerate((FIRST, SECOND, THIRD)):
        path = EndpointPath(f"/tmp/f{n}")
        endpoint.files.add(path, b"12345")
        vault = endpoint.vault.in_hands_of("ord_b" if id_ == THIRD else "ord_a")
        await vault.take(Taking(id=id_, path=path, why=Why.QUARANTINE))
        endpoint.clock.advance(hours(1))
    endpoint.life.steps.clear()
    return endpoint


@pytest.fixture
async def endpoint():
    return await filled()


def order(**fields):
    return QuarantineDelete.model_validate(fields)


def left(endpoint):
    return set(endpoint.vault.kept)


async def test_named_items_are_gone(endpoint):
    """And no other; the answer says how much room that made."""
    params = order(items=[FIRST, SECOND, FIRST])
    result = await quarantine_delete.run(endpoint.host, params)
    assert left(endpoint) == {THIRD}
    assert (result.count, result.size, [one.path for one in result.items]) == (2, 10, ["/tmp/f0", "/tmp/f1"])
    assert (await quarantine_delete.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE


async def test_all_of_an_order_are_gone(endpoint):
    """Those of another one stay."""
    await quarantine_delete.run(endpoint.host, order(order="ord_a"))
    assert left(endpoint) == {THIRD}


async def test_what_is_older_is_gone(endpoint):
    """What was taken in that very moment stays."""
    moment = (await endpoint.vault.find(SECOND)).taken
    await quarantine_delete.run(endpoint.host, order(before=moment.isoformat()))
    assert left(endpoint) == {SECOND, THIRD}


@pytest.mark.parametrize(
    "params",
    [
        order(items=[FIRST, "qrt_0000000000000000"]),
        order(order="ord_none"),
        order(before="2000-01-01T00:00:00Z"),
    ],
)
async def test_what_is_not_there_touches_nothing(endpoint, params):
    """One unknown item refuses all; the plan says the same."""
    for call in (quarantine_delete.run, quarantine_delete.plan):
        with pytest.raises(NotFound):
            await call(endpoint.host, params)
    assert endpoint.life.steps == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"items": []},
        {"items": [FIRST], "order": "o"},
        {"order": "o", "before": "2026-01-01T00:00:00Z"},
    ],
)
def test_exactly_one_way_to_say_which(fields):
    """None would be everything, and two would be a guess."""
    with pytest.raises(Invalid, match="one of items, order, before"):
        quarantine_delete.parse(fields)


async def test_a_plan_lists_them_and_removes_nothing(endpoint):
    """With a warning, since nothing brings them back."""
    plan = await quarantine_delete.plan(endpoint.host, order(items=[FIRST, SECOND]))
    assert [step.target for step in plan.steps] == ["/tmp/f0 (5 bytes)", "/tmp/f1 (5 bytes)"]
    assert (plan.changes, len(plan.warnings), endpoint.life.steps) == (True, 1, [])
    assert isinstance(quarantine_delete.undo, Irreversible)


async def test_verify_sees_an_item_that_is_still_there(endpoint):
    """After the run; before the first is gone a cancel is in time."""
    params = order(items=[FIRST])
    assert (await quarantine_delete.verify(endpoint.host, params, None)).verdict is Verdict.ABSENT
    kept = dict(endpoint.vault.kept)
    result = await quarantine_delete.run(endpoint.host, params)
    endpoint.journal.restart()
    assert (await quarantine_delete.verify(endpoint.host, params, None)).verdict is Verdict.IN_PLACE
    endpoint.vault.kept |= kept
    for seen in (result, None):
        assert (await quarantine_delete.verify(endpoint.host, params, seen)).verdict is Verdict.ABSENT


async def test_killed_anywhere_it_is_finished():
    """After `kill -9` at each step, twice: all are gone, and the answer is whole."""
    params = order(order="ord_a")
    for endpoint in [
        *await killed_at_every_step(filled, quarantine_delete, params),
        *await killed_twice(filled, quarantine_delete, params, again=run_again),
    ]:
        result = await run_again(endpoint, quarantine_delete, params)
        assert (left(endpoint), result.count, result.size) == ({THIRD}, 2, 10)
