"""Does each thing go where it should, with what stands in the way found before anything is touched?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import ActionFailed, Conflict, NotFound, TargetGone
from stanch.core.files import Kind
from stanch.core.returning import (
    Intent,
    Wish,
    below,
    named_items,
    put_all_back,
    raise_first,
    restore_intent,
    restored_of,
    seen_back,
    wanted_items,
)
from stanch.core.types import EndpointPath, hours
from stanch.core.vault import OnConflict, Taking, Why, item_id
from tests.fakes.host import FakeEndpoint

EVERYTHING = tuple(Kind)


async def taken(*paths, folders=()):
    """An endpoint with these in its vault, deepest first, as a deletion takes them; and a folder beside."""
    endpoint = FakeEndpoint()
    endpoint.files.add("/srv/here", b"here")
    for path in (*folders, *paths):
        if path not in endpoint.files.tree:
            endpoint.files.add(
                path, b"" if path in folders else path.encode(), kind=Kind.FOLDER if path in folders else Kind.FILE
            )
    for n, path in enumerate(sorted((*folders, *paths), key=lambda one: -one.count("/"))):
        taking = Taking(id=item_id("tsk_0", n), path=EndpointPath(path), why=Why.DELETED, kinds=EVERYTHING)
        await endpoint.vault.take(taking)
    endpoint.life.steps.clear()
    endpoint.next_task("tsk_1", order="ord_2")
    return endpoint


def wish(**fields):
    return Wish(**{"order": "ord_1", **fields})


async def places(endpoint, **fields):
    intent, errors = await restore_intent(endpoint.host, wish(**fields))
    assert errors == []
    return {str(one.was): str(one.target) for one in intent.entries}


@pytest.mark.parametrize(("folder", "path"), [("/", "/name"), ("/a", "/a/name"), ("/a/", "/a/name")])
def test_a_name_in_a_folder(folder, path):
    """The root included."""
    assert below(EndpointPath(folder), "name") == path


async def test_items_are_found_each_once():
    """One that is not there names itself, and refuses all."""
    endpoint = await taken("/tmp/a")
    id_ = item_id("tsk_0", 0)
    assert [one.id for one in await named_items(endpoint.host, (id_, id_))] == [id_]
    with pytest.raises(NotFound, match="got qrt_0000000000000000"):
        await named_items(endpoint.host, (id_, "qrt_0000000000000000"))


async def test_folders_come_before_what_is_in_them():
    """Whatever the order in which they were taken."""
    endpoint = await taken("/d/e/f", "/x", folders=("/d", "/d/e"))
    found = [str(one.path) for one in await wanted_items(endpoint.host, wish())]
    assert found.index("/d") < found.index("/d/e") < found.index("/d/e/f")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"/d": "/d", "/d/e": "/d/e", "/d/e/f": "/d/e/f"}),
        ({"to": EndpointPath("/srv")}, {"/d": "/srv/d", "/d/e": "/srv/d/e", "/d/e/f": "/srv/d/e/f"}),
        ({"to": EndpointPath("/srv/new")}, {"/d": "/srv/new", "/d/e": "/srv/new/e", "/d/e/f": "/srv/new/e/f"}),
    ],
)
async def test_a_tree_keeps_its_shape(fields, expected):
    """In its place, in a folder, under another name; the plan and the deed agree."""
    endpoint = await taken("/d/e/f", folders=("/d", "/d/e"))
    assert await places(endpoint, **fields) == expected
    intent, _ = await restore_intent(endpoint.host, wish(**fields))
    done = await put_all_back(endpoint.host, wish(**fields), intent, replaced_for=hours(1))
    assert {str(one.was): str(one.path) for one in done.done} == expected
    assert endpoint.files.content[expected["/d/e/f"]] == b"/d/e/f"


async def test_what_is_below_a_folder_under_a_new_name_follows_it():
    """A file is where the folder was: the whole tree goes beside."""
    endpoint = await taken("/d/e", folders=("/d",))
    endpoint.files.add("/d", b"a file")
    intent, errors = await restore_intent(endpoint.host, wish(on_conflict=OnConflict.RENAME))
    done = await put_all_back(endpoint.host, wish(on_conflict=OnConflict.RENAME), intent, replaced_for=hours(1))
    folder, inside = (str(one.path) for one in done.done)
    assert (errors, inside) == ([], f"{folder}/e")
    assert folder != "/d"


async def test_a_tree_whose_place_is_gone_falls_back_as_a_tree():
    """The fallback holds its highest folder."""
    endpoint = await taken("/gone/d/e", folders=("/gone/d",))
    del endpoint.files.tree["/gone"]
    fallback = EndpointPath("/srv")
    assert await places(endpoint, fallback=fallback) == {"/gone/d": "/srv/d", "/gone/d/e": "/srv/d/e"}
    intent, _ = await restore_intent(endpoint.host, wish(fallback=fallback))
    await put_all_back(endpoint.host, wish(fallback=fallback), intent, replaced_for=hours(1))
    assert endpoint.files.content["/srv/d/e"] == b"/gone/d/e"


async def test_everything_in_the_way_is_found_at_once():
    """Not only the first."""
    endpoint = await taken("/a/x", "/a/y", "/gone/z")
    endpoint.files.add("/a/x", b"new")
    endpoint.files.add("/a/y", b"new")
    del endpoint.files.tree["/gone"]
    _intent, errors = await restore_intent(endpoint.host, wish())
    assert [type(one) for one in errors] == [Conflict, Conflict, TargetGone]
    with pytest.raises(Conflict, match="3 of 3 stand in the way; nothing was touched"):
        raise_first(errors, 3)
    assert endpoint.life.steps == []


def test_nothing_in_the_way_is_no_error():
    """And one alone is itself."""
    raise_first([], 0)
    alone = Conflict("there")
    with pytest.raises(Conflict) as raised:
        raise_first([alone], 1)
    assert raised.value is alone


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3000)), max_size=6))
async def test_what_was_lost_is_told_within_bounds(lines):
    """However much a file system cannot hold."""
    endpoint = await taken(*(f"/a/{n}" for n in range(len(lines) + 1)))
    endpoint.vault.lost = tuple("x" * size for count, size in lines for _ in range(count))
    intent, _ = await restore_intent(endpoint.host, wish())
    done = await put_all_back(endpoint.host, wish(), intent, replaced_for=hours(1))
    for row in done.done:
        assert len(row.lost) <= 20
        assert all(len(one) <= 200 for one in row.lost)
        assert bool(row.lost) is bool(endpoint.vault.lost)


async def test_very_much_that_was_lost_is_one_line():
    """The record must fit into the journal."""
    endpoint = await taken(*(f"/a/{n}" for n in range(200)))
    endpoint.vault.lost = ("x" * 200,) * 20
    intent, _ = await restore_intent(endpoint.host, wish())
    done = await put_all_back(endpoint.host, wish(), intent, replaced_for=hours(1))
    assert len(done.model_dump_json()) < 1_000_000
    assert done.done[-1].lost == ("more could not be brought back than can be told here",)


async def test_the_record_brings_back_the_same():
    """After a crash it is all there is."""
    endpoint = await taken("/d/e", folders=("/d",))
    intent, _ = await restore_intent(endpoint.host, wish())
    assert Intent.model_validate(intent.model_dump(mode="json")) == intent
    assert await seen_back(endpoint.host, intent.entries) == 0
    done = await put_all_back(endpoint.host, wish(), intent, replaced_for=hours(1))
    again = Intent.model_validate(done.model_dump(mode="json"))
    assert restored_of(again).count == 2
    assert await seen_back(endpoint.host, intent.entries) == 2


async def test_what_failed_is_told_and_counted():
    """And one that was not begun by a run that was cut short is not seen as back."""
    endpoint = await taken("/a/x", "/a/y")
    endpoint.vault.fails = {item_id("tsk_0", 1): ActionFailed("no space left", got="0 bytes")}
    intent, _ = await restore_intent(endpoint.host, wish())
    result = restored_of(await put_all_back(endpoint.host, wish(), intent, replaced_for=hours(1)))
    assert (result.count, [(one.path, one.why) for one in result.not_restored]) == (
        1,
        [("/a/y", "no space left (got 0 bytes)")],
    )
    assert await seen_back(endpoint.host, intent.entries) == 1
