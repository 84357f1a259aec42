"""Does everything come back as it was, where it was or where it was wanted, and nothing over anything else?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.quarantine import Restore, quarantine, restore
from stanch.core.action import Verdict
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    Invalid,
    NotFound,
    NotVerified,
    Protected,
    TargetGone,
    VerificationFailed,
)
from stanch.core.types import hours
from stanch.core.vault import Why, item_id
from tests.actions.test_quarantine import (
    BOTH,
    EVIL,
    GOOD,
    LINK,
    OTHER,
    A,
    B,
    back,
    in_vault,
    order,
    quarantined,
    snapshot,
    with_files,
)
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again


@pytest.fixture
async def endpoint():
    return await with_files()


# --- back ---------------------------------------------------------------------------------------------------------


async def test_everything_comes_back_as_it_was(endpoint):
    """Content, owner, mode, both names; the vault is empty."""
    before = snapshot(endpoint)
    await quarantined(endpoint)
    result = await restore.run(endpoint.host, back())
    assert snapshot(endpoint) == before
    assert await in_vault(endpoint) == set()
    assert [(one.path, one.others) for one in result.restored] == [(A, 1), (B, 0)]
    assert (await restore.verify(endpoint.host, back(), result)).verdict is Verdict.IN_PLACE


async def test_undo_takes_back_and_undo_of_that_takes_again(endpoint):
    """Both ways with the parameters that the results give; those of a quarantine are the same on every endpoint."""
    before = snapshot(endpoint)
    result = await quarantined(endpoint)
    name, params = quarantine.undo_params(BOTH, result)
    assert (name, params) == ("restore", Restore(order="ord_1"))
    name, again = restore.undo_params(params, await restore.run(endpoint.host, params))
    assert snapshot(endpoint) == before
    assert (name, again.path) == ("quarantine", (A, B))
    endpoint.next_task("tsk_3")
    await quarantine.run(endpoint.host, again)
    assert dict(endpoint.files.content) == {OTHER: GOOD}


CONTENTS = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda parts: "/d/" + "/".join(parts) + ".x"),
    st.tuples(st.binary(max_size=20), st.integers(0, 0o7777)),
    min_size=1,
    max_size=6,
)


@given(CONTENTS)
async def test_any_files_come_back_as_they_were(files):
    """Whatever their content and mode."""
    endpoint = FakeEndpoint()
    for path, (content, mode) in files.items():
        endpoint.files.add(path, content, mode=mode)
    before = snapshot(endpoint)
    await quarantined(endpoint, order("/d", recursive=True))
    assert dict(endpoint.files.content) == {}
    await restore.run(endpoint.host, back())
    assert snapshot(endpoint) == before


async def test_single_items_come_back(endpoint):
    """Named by id, twice meaning once; the others stay."""
    result = await quarantined(endpoint)
    chosen = result.items[0].id
    await restore.run(endpoint.host, Restore(items=(chosen, chosen)))
    assert set(endpoint.files.content) == {A, LINK, OTHER}
    assert await in_vault(endpoint) == {B}


async def test_restoring_twice_is_a_clear_error(endpoint):
    """By order and by item."""
    result = await quarantined(endpoint)
    await restore.run(endpoint.host, back())
    for params in (back(), Restore(items=(result.items[0].id,))):
        endpoint.next_task("tsk_3")
        with pytest.raises(NotFound, match="restored or removed already"):
            await restore.run(endpoint.host, params)


async def test_an_item_can_stay_in_the_vault(endpoint):
    """A copy for later."""
    await quarantined(endpoint)
    result = await restore.run(endpoint.host, back(keep_item=True))
    assert await in_vault(endpoint) == {A, B}
    assert (await restore.verify(endpoint.host, back(keep_item=True), result)).verdict is Verdict.IN_PLACE


async def test_copies_do_not_come_back_with_the_order(endpoint):
    """Their originals are in place; by their item they go elsewhere."""
    result = await quarantined(endpoint, order(A, keep_original=True))
    with pytest.raises(NotFound):
        await restore.run(endpoint.host, back())
    await restore.run(endpoint.host, Restore(items=(result.items[0].id,), to="/home/copy"))
    assert endpoint.files.content["/home/copy"] == EVIL


async def test_what_was_lost_is_told(endpoint):
    """A place that cannot hold all of it."""
    endpoint.vault.lost = ("user.note: not supported here",)
    await quarantined(endpoint, order(B))
    (row,) = (await restore.run(endpoint.host, back())).restored
    assert row.lost == ("user.note: not supported here",)


# --- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "path"), [("/home/sample", "/home/sample"), ("/home/eve", "/home/eve/a")])
async def test_another_place_for_one(endpoint, to, path):
    """A path, or a folder that is there, where it keeps its name."""
    await quarantined(endpoint, order(A))
    (row,) = (await restore.run(endpoint.host, back(to=to))).restored
    assert (row.path, row.was) == (path, A)
    assert endpoint.files.content[path] == EVIL


async def test_another_place_for_several_is_a_folder(endpoint):
    """One that is there."""
    await quarantined(endpoint)
    with pytest.raises(TargetGone, match="no folder"):
        await restore.run(endpoint.host, back(to="/opt/none"))
    await restore.run(endpoint.host, back(to="/home/eve"))
    assert {"/home/eve/a", "/home/eve/b"} <= set(endpoint.files.content)


async def test_two_of_one_name_do_not_go_into_one_folder(endpoint):
    """Neither is put back."""
    endpoint.files.add("/srv/a", b"another")
    await quarantined(endpoint, order(A, "/srv/a"))
    with pytest.raises(Conflict, match=r"stand in the way.*Two items would both be /home/eve/a"):
        await restore.run(endpoint.host, back(to="/home/eve"))
    assert endpoint.life.steps == []


async def without_folder():
    """The files are in the vault, and their folder is gone."""
    endpoint = await with_files()
    await quarantined(endpoint)
    del endpoint.files.tree["/tmp/.x"]
    return endpoint


async def test_a_folder_that_is_gone_refuses():
    """With both ways out in the hint; nothing is touched."""
    endpoint = await without_folder()
    with pytest.raises(TargetGone, match="--fallback FOLDER, or --to PATH"):
        await restore.run(endpoint.host, back())
    assert endpoint.life.steps == []


async def test_the_fallback_is_used_if_its_folder_is_gone():
    """It is made if need be, and must not be a file."""
    endpoint = await without_folder()
    with pytest.raises(Conflict, match="no folder"):
        await restore.run(endpoint.host, back(fallback=OTHER))
    result = await restore.run(endpoint.host, back(fallback="/found/here"))
    assert [one.path for one in result.restored] == ["/found/here/a", "/found/here/b"]


# --- something is there already --------------------------------------------------------------------------------------


async def with_conflict():
    """In the vault, and another file at the place of one of them."""
    endpoint = await with_files()
    await quarantined(endpoint)
    endpoint.files.add(B, b"new config")
    return endpoint


async def test_another_file_at_the_place_refuses_all():
    """Nothing is put back, also what nothing stands in the way of."""
    endpoint = await with_conflict()
    with pytest.raises(Conflict, match=f"1 of 2 stand in the way.*{B}"):
        await restore.run(endpoint.host, back())
    assert (endpoint.life.steps, await in_vault(endpoint)) == ([], {A, B})


async def test_rename_puts_it_beside():
    """Both are there."""
    endpoint = await with_conflict()
    result = await restore.run(endpoint.host, back(rename=True))
    moved = result.restored[1].path
    assert moved != B
    assert (endpoint.files.content[B], endpoint.files.content[moved]) == (b"new config", b"config")


async def test_replace_keeps_what_was_there():
    """In the vault, for as long as what is deleted is kept."""
    endpoint = await with_conflict()
    result = await restore.run(endpoint.host, back(replace=True))
    assert endpoint.files.content[B] == b"config"
    (kept,) = await endpoint.vault.items()
    assert (kept.why, kept.id, kept.until) == (
        Why.REPLACED,
        result.restored[1].replaced,
        endpoint.clock.now() + hours(24),
    )


async def test_what_is_protected_is_not_replaced():
    """It stays, and nothing is put back."""
    endpoint = await with_conflict()
    endpoint.files.protected[B] = "sshd needs it"
    with pytest.raises(Protected, match="1 of 2"):
        await restore.run(endpoint.host, back(replace=True))
    assert endpoint.files.content[B] == b"new config"
    assert endpoint.life.steps == []


async def test_a_folder_is_not_replaced_by_a_file(endpoint):
    """Nor is anything in it taken away."""
    await quarantined(endpoint, order(B))
    endpoint.files.add(f"{B}/inside", b"x")
    with pytest.raises(Conflict, match="got a folder"):
        await restore.run(endpoint.host, back(replace=True))
    await restore.run(endpoint.host, back(rename=True))
    assert endpoint.files.content[f"{B}/inside"] == b"x"


async def test_what_was_replaced_is_put_back_if_the_restore_fails():
    """Nothing half done: the place holds what it held."""
    endpoint = await with_conflict()
    endpoint.vault.fails = {item_id("tsk_1", 1): ActionFailed("no space left")}
    result = await restore.run(endpoint.host, back(replace=True))
    assert endpoint.files.content[B] == b"new config"
    assert [(one.path, one.why) for one in result.not_restored] == [(B, "no space left")]
    assert await in_vault(endpoint) == {B}
    check = await restore.verify(endpoint.host, back(replace=True), result)
    assert (check.verdict, B in check.detail) == (Verdict.ABSENT, True)


async def test_what_was_replaced_is_named_if_its_place_is_taken_too(monkeypatch):
    """A third file appears meanwhile: it stays, and the error says where the second one is."""
    endpoint = await with_conflict()
    put_back = type(endpoint.vault).put_back

    async def put_back_later(self, returning):
        if returning.id == item_id("tsk_1", 1):
            endpoint.files.add(B, b"third")
        return await put_back(self, returning)

    monkeypatch.setattr(type(endpoint.vault), "put_back", put_back_later)
    with pytest.raises(ActionFailed, match=f"in the vault as {item_id('tsk_2', 0)}"):
        await restore.run(endpoint.host, Restore(items=(item_id("tsk_1", 1),), replace=True))
    assert endpoint.files.content[B] == b"third"
    assert sorted(endpoint.vault.kept) == sorted([item_id("tsk_1", 0), item_id("tsk_1", 1), item_id("tsk_2", 0)])


async def test_if_none_can_be_put_back_it_is_an_error(endpoint):
    """All are still in the vault."""
    await quarantined(endpoint)
    endpoint.vault.fails = {item_id("tsk_1", n): ActionFailed("no space left") for n in (0, 1)}
    with pytest.raises(ActionFailed, match="None of 2 could be put back"):
        await restore.run(endpoint.host, back())
    assert await in_vault(endpoint) == {A, B}


async def test_a_damaged_item_refuses_all(endpoint):
    """Before anything is touched."""
    await quarantined(endpoint)
    endpoint.vault.damage(item_id("tsk_1", 0))
    for call in (restore.run, restore.plan):
        with pytest.raises(VerificationFailed, match=r"damaged; nothing was touched.*its bytes were changed"):
            await call(endpoint.host, back())
    assert endpoint.life.steps == []


async def test_what_is_not_there_after_all_stays_in_the_vault(endpoint, monkeypatch):
    """An item is removed only when the file was seen."""
    await quarantined(endpoint, order(B))
    place = endpoint.vault._place

    def place_and_lose(self, *args):
        returned = place(*args)
        del endpoint.files.tree[B]
        return returned

    monkeypatch.setattr(type(endpoint.vault), "_place", place_and_lose)
    with pytest.raises(NotVerified, match="is not there"):
        await restore.run(endpoint.host, back())
    assert await in_vault(endpoint) == {B}


async def test_verify_sees_what_has_gone_again(endpoint):
    """And an item that is still in the vault."""
    await quarantined(endpoint, order(B))
    result = await restore.run(endpoint.host, back(keep_item=True))
    assert (await restore.verify(endpoint.host, back(), result)).verdict is Verdict.ABSENT
    del endpoint.files.tree[B]
    assert (await restore.verify(endpoint.host, back(keep_item=True), result)).verdict is Verdict.ABSENT


@pytest.mark.parametrize(
    "fields", [{}, {"items": ["qrt_0123456789abcdef"], "order": "ord_1"}, {"order": "x", "replace": 1, "rename": 1}]
)
def test_what_is_not_clear_is_refused(fields):
    """Neither or both of items and order; replace and rename at once."""
    with pytest.raises(Invalid, match="expected either"):
        restore.parse(fields)


async def test_a_plan_of_a_restore_changes_nothing():
    """It says where each would go and what would be taken away, or what stands in the way."""
    endpoint = await with_conflict()
    plan = await restore.plan(endpoint.host, back(replace=True))
    assert [step.what.split()[0] for step in plan.steps] == ["Restore", "Put", "Restore"]
    refused = await restore.plan(endpoint.host, back())
    assert (refused.changes, len(refused.warnings), B in refused.warnings[0]) == (False, 1, True)
    assert endpoint.life.steps == []


@pytest.mark.parametrize("params", [back(replace=True), back(rename=True), back(replace=True, keep_item=True)])
async def test_killed_anywhere_a_restore_is_finished(params):
    """After `kill -9` at each step, twice: the world is as after an undisturbed run."""
    clean = await with_conflict()
    await restore.run(clean.host, params)
    for endpoint in [
        *await killed_at_every_step(with_conflict, restore, params),
        *await killed_twice(with_conflict, restore, params, again=run_again),
    ]:
        result = await run_again(endpoint, restore, params)
        assert snapshot(endpoint) == snapshot(clean)
        assert sorted(await in_vault(endpoint)) == sorted(await in_vault(clean))
        assert (result.count, result.not_restored) == (2, ())
