"""Is the file that was ordered there, whole or not at all, and is nothing lost that was there before?"""

import asyncio
import hashlib

import pytest

from stanch.actions.delete_file import delete_file
from stanch.actions.put_file import PutFile, put_file
from stanch.actions.quarantine import restore
from stanch.core.action import Verdict
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    ForbiddenHere,
    Invalid,
    NotFound,
    Protected,
    TargetGone,
    Unsupported,
    VaultFull,
    VerificationFailed,
)
from stanch.core.files import Kind
from stanch.core.types import Upload
from stanch.core.vault import Why
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import go_on, killed_at_every_step, killed_twice

PATH = "/opt/ir/tool.sh"
NEW, OLD = b"#!/bin/sh\n", b"what was there"
UPLOAD = Upload(id="upl_1", name="tool.sh", size=len(NEW), sha256=hashlib.sha256(NEW).hexdigest())


async def empty():
    endpoint = FakeEndpoint()
    endpoint.files.add("/opt/ir", kind=Kind.FOLDER)
    endpoint.uploads.content["upl_1"] = NEW
    return endpoint


async def taken():
    endpoint = await empty()
    endpoint.files.add(PATH, OLD, user="eve", mode=0o640)
    return endpoint


@pytest.fixture
async def endpoint():
    return await empty()


@pytest.fixture
async def occupied():
    return await taken()


def order(**fields):
    return PutFile.model_validate({"content": UPLOAD, "path": PATH, **fields})


REPLACE = order(replace=True, mode="0755")


async def check(endpoint, params, result=None):
    return (await put_file.verify(endpoint.host, params, result)).verdict


async def test_it_is_there_with_owner_and_mode(endpoint):
    """Read back, and verified."""
    params = order(mode="4755", owner="eve", owner_group="staff")
    result = await put_file.run(endpoint.host, params)
    node = endpoint.files.tree[PATH]
    assert (node.content, node.mode, node.user, node.group) == (NEW, 0o4755, "eve", "staff")
    assert (result.changed, result.replaced, result.sha256, result.info.mode) == (True, None, UPLOAD.sha256, 0o4755)
    assert await check(endpoint, params, result) is Verdict.IN_PLACE


async def test_without_a_wish_it_is_roots_alone(endpoint):
    """The careful default."""
    await put_file.run(endpoint.host, order())
    node = endpoint.files.tree[PATH]
    assert (node.user, node.group, node.mode) == ("root", "root", 0o600)


async def test_what_was_there_goes_into_the_vault(occupied):
    """As it was, marked as replaced, for as long as deleted files are kept."""
    result = await put_file.run(occupied.host, REPLACE)
    (item,) = await occupied.vault.items()
    assert (item.id, item.why, item.path, item.info.user) == (result.replaced, Why.REPLACED, PATH, "eve")
    assert item.until is not None
    assert occupied.files.content[PATH] == NEW


async def test_other_names_of_what_was_there_are_told(occupied):
    """They are in the vault with it; the plan warns of it."""
    occupied.files.link("/opt/ir/other", PATH)
    assert "2 names" in (await put_file.plan(occupied.host, REPLACE)).warnings[0]
    assert (await put_file.run(occupied.host, REPLACE)).others == 1


def folder(files):
    files.add(PATH, kind=Kind.FOLDER)


def link(files):
    files.add(PATH, "/etc/passwd", kind=Kind.LINK)


def file(files):
    files.add(PATH, OLD)


def protected(files):
    file(files)
    files.protected[PATH] = "a shell"


def forbidden(files):
    files.forbidden.add("/opt")


def no_folder(files):
    del files.tree["/opt/ir"]


@pytest.mark.parametrize(
    ("prepare", "fields", "error"),
    [
        (file, {}, Conflict),
        (folder, {"replace": True}, Unsupported),
        (link, {"replace": True}, Unsupported),
        (protected, {"replace": True}, Protected),
        (forbidden, {}, ForbiddenHere),
        (no_folder, {}, TargetGone),
    ],
)
async def test_what_must_not_be_is_refused_before_anything_is_changed(endpoint, prepare, fields, error):
    """In the plan and in the run, with the same error."""
    prepare(endpoint.files)
    before = dict(endpoint.files.tree)
    for call in (put_file.plan, put_file.run):
        with pytest.raises(error):
            await call(endpoint.host, order(**fields))
    assert (endpoint.files.tree, endpoint.life.steps) == (before, [])


async def test_missing_folders_are_made_if_ordered(endpoint):
    """Not otherwise."""
    del endpoint.files.tree["/opt/ir"]
    await put_file.run(endpoint.host, order(make_folders=True))
    assert endpoint.files.content[PATH] == NEW


async def test_the_very_same_file_is_left_as_it_is(endpoint):
    """Ordered again, it changes nothing, and there is nothing to take back."""
    await put_file.run(endpoint.host, order())
    endpoint.next_task("tsk_2")
    endpoint.life.restart()
    again = await put_file.run(endpoint.host, order())
    assert (again.changed, endpoint.life.steps) == (False, [])
    assert put_file.undo_params(order(), again) is None
    assert not (await put_file.plan(endpoint.host, order())).changes
    assert await check(endpoint, order(), again) is Verdict.IN_PLACE


@pytest.mark.parametrize(
    ("sent", "error"), [(b"something else", VerificationFailed), (NEW + b"x", VerificationFailed), (None, NotFound)]
)
async def test_if_the_server_sends_something_else_all_is_as_before(occupied, sent, error):
    """The hash of the signed order decides; what was there is there again, and not in the vault."""
    occupied.uploads.content = {} if sent is None else {"upl_1": sent}
    with pytest.raises(error):
        await put_file.run(occupied.host, REPLACE)
    node = occupied.files.tree[PATH]
    assert (node.content, node.user, node.mode) == (OLD, "eve", 0o640)
    assert await occupied.vault.items() == []


async def test_stopped_on_request_what_was_there_comes_back(occupied, monkeypatch):
    """Then nothing of the order is left, and the agent may call it cancelled."""
    arrived = asyncio.Event()

    async def hang(*_args):
        arrived.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(occupied.files, "put", hang)
    running = asyncio.create_task(put_file.run(occupied.host, REPLACE))
    await arrived.wait()
    assert PATH not in occupied.files.tree
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert occupied.files.content[PATH] == OLD
    assert await check(occupied, REPLACE) is Verdict.ABSENT


async def test_stopped_while_it_is_taken_away_it_comes_back(occupied, monkeypatch):
    """Also if the vault had it already."""
    arrived, take = asyncio.Event(), occupied.vault.take

    async def hang(taking):
        await take(taking)
        arrived.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(occupied.vault, "take", hang)
    running = asyncio.create_task(put_file.run(occupied.host, REPLACE))
    await arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert occupied.files.content[PATH] == OLD
    assert await occupied.vault.items() == []


async def test_what_cannot_be_put_back_is_named(occupied):
    """It is still in the vault, and the error says under which id."""
    occupied.uploads.content = {}
    (begun,) = (await put_file.plan(occupied.host, REPLACE)).steps[:1]
    assert begun.what == "Put into the vault"

    async def occupy(*_args):
        raise Conflict("Something is there by now")

    occupied.vault.put_back = occupy
    with pytest.raises(ActionFailed, match="in the vault as qrt_") as failed:
        await put_file.run(occupied.host, REPLACE)
    assert "restore --items qrt_" in failed.value.hint
    assert len(await occupied.vault.items()) == 1


async def test_a_full_vault_stops_it_before_anything_is_lost(occupied):
    """What is there stays."""
    occupied.vault.limit = 1
    with pytest.raises(VaultFull):
        await put_file.run(occupied.host, REPLACE)
    assert occupied.files.content[PATH] == OLD


async def test_what_vanished_before_it_could_be_taken_is_no_loss(occupied):
    """The new file is put, and nothing was replaced."""
    occupied.vault.before_take = lambda _taking: occupied.files.tree.pop(PATH)
    result = await put_file.run(occupied.host, REPLACE)
    assert (result.changed, result.replaced, occupied.files.content[PATH]) == (True, None, NEW)


# --- taking it back --------------------------------------------------------------------------------------------------


async def test_undo_brings_back_what_was_replaced(occupied):
    """The new file goes into the vault in its turn."""
    result = await put_file.run(occupied.host, REPLACE)
    name, params = put_file.undo_params(REPLACE, result)
    assert (name, params.order, params.replace) == ("restore", "ord_1", True)
    occupied.next_task("tsk_2")
    await restore.run(occupied.host, params)
    node = occupied.files.tree[PATH]
    assert (node.content, node.user, node.mode) == (OLD, "eve", 0o640)
    assert await check(occupied, REPLACE, result) is Verdict.ABSENT


async def test_undo_deletes_what_replaced_nothing(endpoint):
    """By its path and its hash."""
    result = await put_file.run(endpoint.host, order())
    name, params = put_file.undo_params(order(), result)
    assert name == "delete_file"
    endpoint.next_task("tsk_2")
    await delete_file.run(endpoint.host, params)
    assert PATH not in endpoint.files.tree


async def test_undo_does_not_delete_what_was_changed_since(endpoint):
    """It is somebody's work by now."""
    result = await put_file.run(endpoint.host, order())
    endpoint.files.content[PATH] = b"edited"
    endpoint.next_task("tsk_2")
    with pytest.raises(TargetGone):
        await delete_file.run(endpoint.host, put_file.undo_params(order(), result)[1])
    assert endpoint.files.content[PATH] == b"edited"


# --- verify and plan -------------------------------------------------------------------------------------------------


def other_content(files):
    files.content[PATH] = b"other"


def other_mode(files):
    files.tree[PATH].mode = 0o666


def other_owner(files):
    files.tree[PATH].user = "eve"


def gone(files):
    del files.tree[PATH]


def unreadable(files):
    files.content[PATH] = Unsupported("odd")


@pytest.mark.parametrize("change", [other_content, other_mode, other_owner, gone, unreadable])
async def test_verify_sees_every_difference(endpoint, change):
    """Content, mode, owner, absence."""
    result = await put_file.run(endpoint.host, order())
    change(endpoint.files)
    assert await check(endpoint, order(), result) is Verdict.ABSENT


async def test_a_plan_says_what_and_where(occupied):
    """What goes away, what comes, with owner and mode; nothing is changed or fetched."""
    plan = await put_file.plan(occupied.host, order(replace=True, mode="0755", owner="eve", owner_group="staff"))
    away, put = plan.steps
    assert "eve, mode 0640" in away.target
    assert UPLOAD.sha256 in put.what
    assert put.target == f"{PATH} (eve:staff, mode 0755)"
    assert occupied.life.steps == []


@pytest.mark.parametrize("bad", [{"mode": "0999"}, {"mode": 0o10000}, {"owner": "a b"}, {"owner": ""}, {"path": "x"}])
def test_bad_parameters_are_refused(bad):
    """Before they reach an endpoint."""
    with pytest.raises(Invalid):
        put_file.parse({"content": UPLOAD.model_dump(), "path": PATH, **bad})


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prepare", "params"), [(empty, order()), (taken, REPLACE)])
@pytest.mark.parametrize("killed", [killed_at_every_step, killed_twice])
async def test_killed_anywhere_it_is_finished(prepare, params, killed):
    """The new file is there, and what it replaced is in the vault, once."""
    for endpoint in await killed(prepare, put_file, params):
        await go_on(endpoint, put_file, params)
        assert endpoint.files.content[PATH] == NEW
        items = await endpoint.vault.items()
        assert [one.path for one in items] == ([PATH] if params.replace else [])


async def test_killed_after_it_was_put_it_needs_the_upload_no_more(occupied):
    """The server may have removed it while the agent was down."""
    first = await put_file.run(occupied.host, REPLACE)
    occupied.restart()
    occupied.uploads.content = {}
    assert await put_file.run(occupied.host, REPLACE) == first


async def same_content():
    endpoint = await taken()
    endpoint.files.content[PATH] = NEW
    return endpoint


async def test_killed_anywhere_owner_and_mode_of_what_was_there_are_kept():
    """Even if its content was the same: it is in the vault, and was not mistaken for the new file."""
    for endpoint in await killed_twice(same_content, put_file, REPLACE):
        result = await put_file.run(endpoint.host, REPLACE)
        (item,) = await endpoint.vault.items()
        assert (item.id, item.info.user, item.info.mode) == (result.replaced, "eve", 0o640)
        assert endpoint.files.tree[PATH].mode == 0o755


async def test_killed_at_any_step_the_old_content_is_somewhere():
    """At its place or in the vault; never in neither."""
    for endpoint in await killed_at_every_step(taken, put_file, REPLACE):
        there = [node.content for node in endpoint.files.tree.values()]
        kept = [one.node.content for one in endpoint.vault.kept.values()]
        assert OLD in there + kept


async def test_killed_while_it_fails_the_old_content_comes_back():
    """A failing put that is cut short at any step ends with the old file at its place, and not in the vault."""

    async def failing():
        endpoint = await taken()
        endpoint.uploads.content = {}
        return endpoint

    whole = await failing()
    with pytest.raises(NotFound):
        await put_file.run(whole.host, REPLACE)
    for step in range(1, len(whole.life.steps) + 1):
        endpoint = await failing()
        endpoint.life.restart(ends_at=step)
        with pytest.raises(BaseException):  # noqa: B017 - the agent's death, or what it was about to say
            await put_file.run(endpoint.host, REPLACE)
        endpoint.restart()
        with pytest.raises(NotFound):
            await put_file.run(endpoint.host, REPLACE)
        assert endpoint.files.content[PATH] == OLD, step
        assert await endpoint.vault.items() == [], step
