"""Are many files taken as one order means it: all checked first, none twice, and each failure told?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import ActionFailed, Protected, TargetGone, TooLarge, Unsupported, VaultFull
from stanch.core.selection import Selection, choose
from stanch.core.taking import (
    MAX_ROWS,
    MAX_TOLD_BYTES,
    Left,
    Target,
    Way,
    found_of,
    lefts_of,
    named,
    no_room,
    none_done,
    protected,
    refuse_no_room,
    refuse_protected,
    refuse_too_large,
    skip_counts,
    still_there,
    take_all,
    targets_of,
    told,
    too_large,
)
from stanch.core.vault import Why, item_id
from tests.fakes.files import Extent
from tests.fakes.host import FakeEndpoint

A, B, LINK = "/tmp/a", "/tmp/b", "/tmp/link"
WAY = Way(why=Why.QUARANTINE)


@pytest.fixture
def endpoint():
    endpoint = FakeEndpoint()
    endpoint.files.add(A, b"12345")
    endpoint.files.add(B, b"123")
    endpoint.files.link(LINK, A)
    return endpoint


async def chosen(endpoint, *paths, **fields):
    return await choose(endpoint.host, Selection.model_validate({"path": paths, **fields}))


async def targets(endpoint, *paths, once=False):
    return targets_of("tsk_1", await chosen(endpoint, *paths), once=once)


async def test_targets_have_the_ids_of_their_task(endpoint):
    """In the order in which they were chosen; a record brings back the same."""
    found = await targets(endpoint, A, B)
    assert [(one.path, one.id) for one in found] == [(A, item_id("tsk_1", 0)), (B, item_id("tsk_1", 1))]
    assert [Target.model_validate(one.model_dump(mode="json")) for one in found] == found


async def test_once_means_one_name_of_a_file(endpoint):
    """The first that was chosen."""
    assert [one.path for one in await targets(endpoint, LINK, B, A, once=True)] == [LINK, B]
    assert [one.path for one in await targets(endpoint, LINK, B, A)] == [LINK, B, A]


async def test_a_sparse_file_needs_room_for_its_data_only(endpoint):
    """And several names of one file need it once."""
    endpoint.files.add("/tmp/sparse", bytes(1000), extents=(Extent(0, 8),))
    endpoint.vault.limit = 8 + 5
    assert await no_room(endpoint.host, await targets(endpoint, "/tmp/sparse", A, LINK)) is None
    endpoint.vault.limit -= 1
    assert await no_room(endpoint.host, await targets(endpoint, "/tmp/sparse", A)) == "13 bytes, room for 12"


async def test_room_that_is_taken_counts(endpoint):
    """Full is full, never less than nothing."""
    await take_all(endpoint.host, await targets(endpoint, A), WAY)
    endpoint.vault.limit = 2
    assert await no_room(endpoint.host, await targets(endpoint, B)) == "3 bytes, room for 0"


async def test_checks_name_what_stands_in_the_way(endpoint):
    """Each with its reason, as an error of its kind; nothing in the way is no error."""
    endpoint.files.protected[B] = "sshd needs it"
    found = await targets(endpoint, A, B)
    with pytest.raises(Protected, match=r"1 of 2 .*nothing was touched.*/tmp/b: sshd needs it"):
        refuse_protected(await protected(endpoint.host, found), 2)
    with pytest.raises(TooLarge, match=r"1 of 2 .*/tmp/a: 5 bytes.*at most 4 bytes"):
        refuse_too_large(too_large(found, 4), 2, 4)
    endpoint.vault.limit = 7
    with pytest.raises(VaultFull, match=r"all of 2; nothing was touched.*got 8 bytes, expected 7.*make room"):
        await refuse_no_room(endpoint.host, found, hint="make room")
    assert len(endpoint.vault.told_full) == 1
    endpoint.vault.limit = 8
    refuse_protected([], 2)
    refuse_too_large(too_large(found, 5), 2, 5)
    refuse_too_large(too_large(found, None), 2, None)
    await refuse_no_room(endpoint.host, found)


async def test_one_failure_does_not_keep_the_others(endpoint):
    """It is told with its reason."""
    found = await targets(endpoint, A, B)
    endpoint.vault.fails = {A: Unsupported("a mount point", got="/tmp")}
    taken = await take_all(endpoint.host, found, WAY)
    assert [one.path for one in taken.items] == [B]
    assert [(one.path, one.why) for one in lefts_of(taken.failed)] == [(A, "a mount point (got /tmp)")]


async def test_another_name_of_what_was_taken_is_no_failure(endpoint):
    """It went with the first; a file that is gone for another reason is one."""
    found = await targets(endpoint, A, LINK, B)
    del endpoint.files.tree[B]
    taken = await take_all(endpoint.host, found, WAY)
    assert ([one.path for one in taken.items], [one.path for one, _ in taken.failed]) == ([A], [B])


async def test_a_name_that_was_not_found_is_taken_after_all(endpoint):
    """If it was chosen, too."""
    endpoint.vault.hidden_names = {LINK}
    taken = await take_all(endpoint.host, await targets(endpoint, A, LINK), WAY)
    assert [one.path for one in taken.items] == [A, LINK]
    assert set(endpoint.files.content) == {B}


async def test_of_what_all_failed_one_error_is_made(endpoint):
    """The error itself of one; of several, one of the first's kind that names each."""
    first, second = await targets(endpoint, A, B)
    alone = TargetGone("gone")
    assert none_done([(first, alone)]) is alone
    both = none_done([(first, Unsupported("odd", hint="Do it by hand.")), (second, ActionFailed("changing"))])
    assert (type(both), both.message, both.hint) == (Unsupported, "None of 2 worked", "Do it by hand.")
    assert both.got == "/tmp/a: odd; /tmp/b: changing"


def test_an_error_names_the_first_ten():
    """And how many more."""
    line = named([Left(path=f"/tmp/{n}", why="x") for n in range(12)])
    assert line.endswith("/tmp/9: x and 2 more")


async def test_what_was_left_out_becomes_rows(endpoint):
    """The most frequent reason first."""
    for n, why in enumerate(("rare", "often", "often")):
        endpoint.files.add(f"/d/{n}", b"x")
        endpoint.files.unreadable[f"/d/{n}"] = why
    counts = skip_counts(await chosen(endpoint, A, "/d", recursive=True))
    assert [(one.why, one.files) for one in counts] == [("often", 2), ("rare", 1)]


@given(st.lists(st.integers(0, 4000), max_size=400))
def test_rows_of_an_answer_are_bounded(sizes):
    """They are the first ones, within the bound, and not one less than fits."""
    rows = [Left(path="/x", why="y" * size) for size in sizes]
    kept = told(rows)
    used = sum(len(one.model_dump_json()) for one in kept)
    assert list(kept) == rows[: len(kept)]
    assert used <= MAX_TOLD_BYTES
    assert len(kept) == len(rows) or used + len(rows[len(kept)].model_dump_json()) > MAX_TOLD_BYTES


def test_rows_of_an_answer_are_bounded_in_number():
    """However short they are."""
    assert len(told([Left(path="/x", why="")] * (MAX_ROWS + 1))) == MAX_ROWS


async def test_still_there_is_decided_by_the_content(endpoint):
    """Another file under the name, or one that cannot be read, is not it."""
    (item,) = (await take_all(endpoint.host, await targets(endpoint, A), WAY)).items
    assert not await still_there(endpoint.host, item)
    for content, expected in (
        (b"54321", False),
        (b"1234", False),
        (ActionFailed("unreadable"), False),
        (b"12345", True),
    ):
        endpoint.files.add(A, content)
        assert await still_there(endpoint.host, item) is expected


async def test_only_complete_items_are_found(endpoint):
    """After a crash in the middle of a copy there is none."""
    found = await targets(endpoint, A)
    endpoint.life.restart(ends_at=2)
    with pytest.raises(BaseException, match="remove-original"):
        await take_all(endpoint.host, found, WAY)
    assert await found_of(endpoint.host, [found[0].id]) == []
    endpoint.life.restart()
    await take_all(endpoint.host, found, WAY)
    assert [one.path for one in await found_of(endpoint.host, [found[0].id, "qrt_0000000000000000"])] == [A]
