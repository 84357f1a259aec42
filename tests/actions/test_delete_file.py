"""Is what was named gone, whole or said what not, and can it be brought back unless its bytes were destroyed?"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.delete_file import DeleteFile, delete_file
from stanch.actions.quarantine import Restore, restore
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, ForbiddenHere, Protected, TargetGone, TooLarge, Unsupported, VaultFull
from stanch.core.files import MOUNTED, Kind
from stanch.core.settings import GroupSettings, VaultSettings
from stanch.core.types import hours
from stanch.core.vault import Why
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

FOLDER, A, B, DEEP, OTHER = "/tmp/.x", "/tmp/.x/a", "/tmp/.x/b", "/tmp/.x/d/e/deep", "/home/eve/report"
SECRET = b"customers"


async def with_folder():
    """A folder of files, a link, a pipe and folders in it; and a file that is nobody's business."""
    endpoint = FakeEndpoint()
    endpoint.files.add(A, SECRET, mode=0o4755, user="eve")
    endpoint.files.add(B, b"two")
    endpoint.files.add(DEEP, b"deep")
    endpoint.files.add("/tmp/.x/link", "/etc/passwd", kind=Kind.LINK)
    endpoint.files.add("/tmp/.x/d/pipe", kind=Kind.FIFO)
    endpoint.files.add(OTHER, b"thesis")
    endpoint.files.caveats = ("the disk is flash memory",)
    return endpoint


@pytest.fixture
async def endpoint():
    return await with_folder()


def order(*paths, **fields):
    return DeleteFile.model_validate({"path": paths, **fields})


ALL = order(FOLDER, recursive=True)
SHREDDED = order(FOLDER, recursive=True, shred=True)


def left(endpoint):
    return {path for path in endpoint.files.tree if path.startswith(FOLDER)}


def snapshot(endpoint):
    return {path: (repr(node), sorted(endpoint.files.names_of(node))) for path, node in endpoint.files.tree.items()}


# --- into the vault --------------------------------------------------------------------------------------------------


async def test_a_file_is_gone_and_can_come_back(endpoint):
    """For 24 hours, as something deleted."""
    result = await delete_file.run(endpoint.host, order(A))
    assert A not in endpoint.files.content
    (item,) = await endpoint.vault.items()
    assert (item.why, item.until) == (Why.DELETED, endpoint.clock.now() + hours(24))
    assert [(one.path, one.id) for one in result.deleted] == [(A, item.id)]
    assert (result.count, result.size, result.shredded, result.caveats) == (1, len(SECRET), 0, ())
    assert (await delete_file.verify(endpoint.host, order(A), result)).verdict is Verdict.IN_PLACE


async def test_the_policy_says_how_long(endpoint):
    """Of the endpoint's groups."""
    endpoint.settings = GroupSettings(vault=VaultSettings(keep_deleted=hours(2)))
    await delete_file.run(endpoint.host, order(A))
    (item,) = await endpoint.vault.items()
    assert item.until == endpoint.clock.now() + hours(2)


async def test_a_folder_goes_with_all_that_is_in_it(endpoint):
    """Deepest first, the folder itself last; nothing else is touched."""
    result = await delete_file.run(endpoint.host, ALL)
    assert left(endpoint) == set()
    assert OTHER in endpoint.files.content
    paths = [one.path for one in result.deleted]
    assert (paths[0], paths[-1], result.count) == (DEEP, FOLDER, 8)
    assert (await delete_file.verify(endpoint.host, ALL, result)).verdict is Verdict.IN_PLACE


async def test_undo_brings_everything_back(endpoint):
    """Folders, links and pipes too, as they were."""
    before = snapshot(endpoint)
    name, params = delete_file.undo_params(ALL, await delete_file.run(endpoint.host, ALL))
    assert (name, params) == ("restore", Restore(order="ord_1"))
    endpoint.next_task("tsk_2")
    result = await restore.run(endpoint.host, params)
    assert snapshot(endpoint) == before
    assert result.count == 8


async def test_a_tree_comes_back_elsewhere_as_a_tree(endpoint):
    """What is below a folder follows the folder."""
    await delete_file.run(endpoint.host, ALL)
    endpoint.next_task("tsk_2")
    await restore.run(endpoint.host, Restore(order="ord_1", to="/home/eve"))
    assert endpoint.files.content["/home/eve/.x/d/e/deep"] == b"deep"


async def test_into_a_folder_that_is_there_again(endpoint):
    """It keeps what it is and holds, which is told; what was in it comes back."""
    await delete_file.run(endpoint.host, ALL)
    endpoint.files.add(f"{FOLDER}/new", b"new")
    endpoint.files.tree[FOLDER].mode = 0o700
    endpoint.next_task("tsk_2")
    result = await restore.run(endpoint.host, Restore(order="ord_1"))
    assert (endpoint.files.content[f"{FOLDER}/new"], endpoint.files.content[DEEP]) == (b"new", b"deep")
    assert endpoint.files.tree[FOLDER].mode == 0o700
    assert "was there already" in result.restored[0].lost[0]


TREES = st.sets(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(lambda parts: "/d/" + "/".join(parts)), min_size=1
)


@given(TREES, st.booleans())
async def test_any_tree_goes_and_comes_back(paths, by_pattern):
    """Whatever its shape, named or found by a pattern."""
    endpoint = FakeEndpoint()
    for path in sorted(paths, key=len, reverse=True):
        if path not in endpoint.files.tree:
            endpoint.files.add(path, path.encode())
    before = snapshot(endpoint)
    params = order(glob=["/d*"], recursive=True) if by_pattern else order("/d", recursive=True)
    result = await delete_file.run(endpoint.host, params)
    assert (endpoint.files.tree, result.count) == ({}, len(before))
    endpoint.next_task("tsk_2")
    await restore.run(endpoint.host, Restore(order="ord_1"))
    assert snapshot(endpoint) == before


async def test_other_names_go_too(endpoint):
    """Within the folder and without; the answer says how many."""
    endpoint.files.link("/tmp/.x/d/again", A)
    endpoint.files.link("/home/eve/again", A)
    result = await delete_file.run(endpoint.host, ALL)
    assert left(endpoint) == set()
    assert "/home/eve/again" not in endpoint.files.content
    assert (result.not_deleted, {one.others for one in result.deleted}) == ((), {0, 2})


async def test_by_hash_only_files_go(endpoint):
    """The folders around them stay."""
    params = order(FOLDER, recursive=True, sha256=[hashlib.sha256(SECRET).hexdigest()])
    result = await delete_file.run(endpoint.host, params)
    assert [one.path for one in result.deleted] == [A]
    assert B in endpoint.files.content


# --- refused before anything is touched ------------------------------------------------------------------------------


async def test_a_folder_needs_recursive(endpoint):
    """The hint says so; a pattern leaves folders out."""
    with pytest.raises(Unsupported, match="--recursive"):
        await delete_file.run(endpoint.host, order(FOLDER))
    assert endpoint.life.steps == []
    result = await delete_file.run(endpoint.host, order(glob=["/tmp/.x/*"]))
    assert {one.kind for one in result.deleted} == {Kind.FILE, Kind.LINK}


@pytest.mark.parametrize(
    "which", [{"path": [FOLDER]}, {"glob": ["/tmp/.*"]}, {"path": [A], "glob": ["/tmp/.[x]"]}, {"glob": ["/tmp/.x/**"]}]
)
async def test_the_bound_counts_everything(endpoint, which):
    """Folders, links and the folder itself, however it was named."""
    most = 7 if which != {"glob": ["/tmp/.x/**"]} else 6
    with pytest.raises(TooLarge, match=f"at most {most}"):
        await delete_file.run(endpoint.host, order(**{"recursive": True, "max_files": most, **which}))
    assert endpoint.life.steps == []
    await delete_file.run(endpoint.host, order(**{"recursive": True, "max_files": most + 1, **which}))
    assert left(endpoint) <= {FOLDER}


@pytest.mark.parametrize("shred", [False, True])
async def test_one_that_is_protected_refuses_all(endpoint, shred):
    """Deep in a folder, too; destroying is no way around."""
    endpoint.files.protected[DEEP] = "a service needs it"
    with pytest.raises(Protected, match=r"1 of 8.*a service needs it"):
        await delete_file.run(endpoint.host, order(FOLDER, recursive=True, shred=shred))
    assert endpoint.life.steps == []


async def test_no_room_refuses_all_and_names_the_way_out(endpoint):
    """Destroying needs no room."""
    endpoint.vault.limit = 15
    with pytest.raises(VaultFull, match="--shred"):
        await delete_file.run(endpoint.host, ALL)
    assert endpoint.life.steps == []
    await delete_file.run(endpoint.host, SHREDDED)
    assert left(endpoint) == set()


async def test_what_is_not_there_or_forbidden_touches_nothing(endpoint):
    """Nor what was named beside it."""
    with pytest.raises(TargetGone):
        await delete_file.run(endpoint.host, order(A, "/tmp/nowhere"))
    endpoint.files.forbidden.add(B)
    with pytest.raises(ForbiddenHere):
        await delete_file.run(endpoint.host, order(A, B))
    assert endpoint.life.steps == []


# --- changed in between ----------------------------------------------------------------------------------------------


async def test_a_folder_that_fills_meanwhile_stays(endpoint):
    """What was in it before is gone; the result lists both, and the check fails."""

    def fill(_taking):
        endpoint.files.add("/tmp/.x/d/new", b"new")

    endpoint.vault.before_take = fill
    result = await delete_file.run(endpoint.host, ALL)
    assert {str(one.path) for one in result.not_deleted} == {FOLDER, "/tmp/.x/d"}
    assert left(endpoint) == {FOLDER, "/tmp/.x/d", "/tmp/.x/d/new"}
    assert (await delete_file.verify(endpoint.host, ALL, result)).verdict is Verdict.ABSENT


async def test_if_nothing_can_be_deleted_it_is_an_error(endpoint):
    """The one error if it was one file."""
    endpoint.vault.fails = {A: ActionFailed("it kept changing")}
    with pytest.raises(ActionFailed, match=r"^it kept changing"):
        await delete_file.run(endpoint.host, order(A))


@pytest.mark.parametrize("params", [order(A), order(A, shred=True)])
async def test_the_same_file_at_its_place_again_is_seen(endpoint, params):
    """Somebody has put it there."""
    result = await delete_file.run(endpoint.host, params)
    endpoint.files.content[A] = SECRET
    assert (await delete_file.verify(endpoint.host, params, result)).verdict is Verdict.ABSENT


# --- destroyed -------------------------------------------------------------------------------------------------------


async def test_bytes_are_destroyed_and_what_may_keep_them_is_told(endpoint):
    """Nothing of it is in the vault, and there is no way back."""
    node = endpoint.files.tree[A]
    result = await delete_file.run(endpoint.host, order(A, shred=True))
    assert node.content == bytes(len(SECRET))
    assert (A in endpoint.files.content, await endpoint.vault.items()) == (False, [])
    assert (result.shredded, result.caveats) == (1, ("the disk is flash memory",))
    assert delete_file.undo_params(order(A, shred=True), result) is None
    assert (await delete_file.verify(endpoint.host, order(A, shred=True), result)).verdict is Verdict.IN_PLACE


async def test_in_a_folder_only_the_files_are_destroyed(endpoint):
    """The others, which hold no bytes, go through the vault."""
    result = await delete_file.run(endpoint.host, SHREDDED)
    assert left(endpoint) == set()
    assert (result.count, result.shredded) == (8, 3)
    assert {one.info.kind for one in await endpoint.vault.items()} == {Kind.FOLDER, Kind.LINK, Kind.FIFO}
    assert (await delete_file.verify(endpoint.host, SHREDDED, result)).verdict is Verdict.IN_PLACE


async def test_other_names_of_what_is_destroyed_are_told(endpoint):
    """Those in the folder go; one elsewhere leads to random bytes now."""
    endpoint.files.link("/tmp/.x/d/again", A)
    endpoint.files.link("/home/eve/again", A)
    result = await delete_file.run(endpoint.host, SHREDDED)
    assert left(endpoint) == set()
    assert endpoint.files.content["/home/eve/again"] == bytes(len(SECRET))
    assert any("random" in one for one in result.caveats)


async def test_another_file_under_the_name_is_not_destroyed(endpoint):
    """It is recognised by its number, not by its name."""
    begun = await delete_file.plan(endpoint.host, order(A, shred=True))
    assert begun.warnings == ("What is destroyed cannot be brought back.",)

    class Swapped(type(endpoint.files)):
        async def shred(self, path, expected):
            self.tree[str(path)] = self.numbered(type(self.tree[B])(b"thesis"))
            return await super().shred(path, expected)

    endpoint.files.__class__ = Swapped
    with pytest.raises(TargetGone):
        await delete_file.run(endpoint.host, order(A, shred=True))
    assert endpoint.files.content[A] == b"thesis"


async def test_a_plan_says_what_becomes_of_other_names(endpoint):
    """They may be anywhere."""
    endpoint.files.link("/home/eve/again", A)
    for shred, word in ((False, "all of them go"), (True, "random")):
        plan = await delete_file.plan(endpoint.host, order(A, shred=shred))
        assert any("2 names" in one and word in one for one in plan.warnings)


# --- plan and crash --------------------------------------------------------------------------------------------------


async def test_a_plan_lists_everything_and_changes_nothing(endpoint):
    """In the order in which it would go, and what would be refused."""
    before = snapshot(endpoint)
    endpoint.files.protected[DEEP] = "a service needs it"
    endpoint.vault.limit = 1
    plan = await delete_file.plan(endpoint.host, ALL)
    assert (len(plan.steps), DEEP in plan.steps[0].target, plan.changes) == (8, True, False)
    assert [any(word in one for one in plan.warnings) for word in ("a service needs it", "no room")] == [True] * 2
    assert {step.what for step in (await delete_file.plan(endpoint.host, SHREDDED)).steps} == {"Delete", "Destroy"}
    assert (snapshot(endpoint), endpoint.life.steps) == (before, [])


@pytest.mark.parametrize("params", [ALL, SHREDDED, order(A, "/tmp/.x/link")])
async def test_killed_anywhere_it_is_finished(params):
    """After `kill -9` at each step, twice: everything is gone, once, and the answer is whole."""
    clean = await with_folder()
    expected = await delete_file.run(clean.host, params)
    for endpoint in [
        *await killed_at_every_step(with_folder, delete_file, params),
        *await killed_twice(with_folder, delete_file, params, again=run_again),
    ]:
        result = await run_again(endpoint, delete_file, params)
        assert snapshot(endpoint) == snapshot(clean)
        assert set(endpoint.vault.kept) == set(clean.vault.kept)
        assert (result.deleted, result.shredded, result.not_deleted) == (expected.deleted, expected.shredded, ())


@pytest.mark.parametrize("params", [ALL, order(A, shred=True)])
async def test_a_cancel_is_in_time_until_the_first_is_gone(endpoint, params):
    """Absent means that nothing of it remains."""
    assert (await delete_file.verify(endpoint.host, params, None)).verdict is Verdict.ABSENT
    await delete_file.run(endpoint.host, params)
    endpoint.journal.restart()
    assert (await delete_file.verify(endpoint.host, params, None)).verdict is Verdict.IN_PLACE


async def test_what_is_mounted_below_is_no_part_of_a_folder(endpoint):
    """It may be the whole machine, seen a second time: refused before the first is touched."""
    endpoint.files.unreadable = {"/tmp/.x/d/e": MOUNTED}
    before = snapshot(endpoint)
    for params in (ALL, SHREDDED, DeleteFile(glob=("/tmp/.x*",), recursive=True)):
        with pytest.raises(Unsupported, match="mounted"):
            await delete_file.run(endpoint.host, params)
    assert snapshot(endpoint) == before
