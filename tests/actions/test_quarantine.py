"""Is what is suspected out of the way, all of it or said which, and does everything come back as it was?"""

import asyncio
import hashlib

import pytest

from stanch.actions.quarantine import Quarantine, Restore, quarantine, restore
from stanch.core.action import Verdict
from stanch.core.errors import (
    ForbiddenHere,
    Protected,
    TargetGone,
    TooLarge,
    Unsupported,
    VaultFull,
    VerificationFailed,
)
from stanch.core.files import Kind
from stanch.core.processes import Held
from stanch.core.settings import GroupSettings, VaultSettings
from stanch.core.types import hours
from stanch.core.vault import item_id
from tests.fakes.files import Node
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice, run_again

A, B, OTHER, LINK = "/tmp/.x/a", "/tmp/.x/b", "/home/eve/report", "/tmp/link"
EVIL, GOOD = b"\x7fELF evil", b"my thesis"
EVIL_HASH = hashlib.sha256(EVIL).hexdigest()
RUNNER = 100


async def with_files():
    """Two names of one program that runs, a second one, and a file that is nobody's business."""
    endpoint = FakeEndpoint()
    endpoint.files.add(A, EVIL, mode=0o4755, user="eve")
    endpoint.files.add(B, b"config")
    endpoint.files.add(OTHER, GOOD)
    endpoint.files.link(LINK, A)
    endpoint.processes.add(RUNNER, name="evil")
    hold(endpoint, RUNNER, A, Held.RUNS)
    return endpoint


@pytest.fixture
async def endpoint():
    return await with_files()


def hold(endpoint, pid, path, how):
    file = endpoint.files.info_of(endpoint.files.tree[path]).id
    endpoint.processes.hold(endpoint.processes.table[pid].id, file, how)


def order(*paths, **fields):
    return Quarantine.model_validate({"path": paths, **fields})


def back(**fields):
    return Restore.model_validate({"order": "ord_1", **fields})


BOTH = order(A, B)


async def quarantined(endpoint, params=BOTH):
    """Done, and a new task of another order to follow."""
    result = await quarantine.run(endpoint.host, params)
    endpoint.next_task("tsk_2")
    endpoint.life.steps.clear()
    return result


def snapshot(endpoint):
    return {path: (repr(node), sorted(endpoint.files.names_of(node))) for path, node in endpoint.files.tree.items()}


async def in_vault(endpoint):
    return {str(one.path) for one in await endpoint.vault.items()}


# --- quarantine ------------------------------------------------------------------------------------------------------


async def test_the_files_are_gone_and_in_the_vault(endpoint):
    """Under every name, nothing else touched, and verify sees it."""
    result = await quarantine.run(endpoint.host, BOTH)
    assert dict(endpoint.files.content) == {OTHER: GOOD}
    assert await in_vault(endpoint) == {A, B}
    assert (result.taken, result.size, result.order) == (2, len(EVIL) + 6, "ord_1")
    first = result.items[0]
    assert (first.path, first.sha256, first.others, first.names_left) == (A, EVIL_HASH, 1, 0)
    assert (await quarantine.verify(endpoint.host, BOTH, result)).verdict is Verdict.IN_PLACE


async def test_all_is_written_down_before_the_first_is_touched(endpoint):
    """The record comes first, with every file that will be taken."""
    await quarantine.run(endpoint.host, BOTH)
    assert endpoint.life.steps[0] == "journal.record"
    assert [one["path"] for one in endpoint.journal.records[0]["targets"]] == [A, B]


async def test_its_ids_follow_from_the_task(endpoint):
    """So that a run after a crash finds what it had taken."""
    result = await quarantine.run(endpoint.host, BOTH)
    assert [one.id for one in result.items] == [item_id("tsk_1", 0), item_id("tsk_1", 1)]


async def test_a_copy_leaves_the_file(endpoint):
    """It stays where it is, one copy whatever its names, and there is nothing to undo."""
    params = order(A, LINK, keep_original=True)
    result = await quarantine.run(endpoint.host, params)
    assert endpoint.files.content[A] == EVIL
    assert (result.taken, await in_vault(endpoint)) == (1, {A})
    assert (await quarantine.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE
    assert quarantine.undo_params(params, result) is None


@pytest.mark.parametrize(
    "params",
    [
        order(A, A),
        order(A, LINK),
        order(LINK, A),
        order(A, glob=["/tmp/.x/a*"]),
        order(A, path=["/tmp/.x", A], recursive=True, glob=["/tmp/**/link"], sha256=[EVIL_HASH]),
        order(path=[], sha256=[EVIL_HASH], area=["/tmp", "/tmp/.x"]),
    ],
)
async def test_a_file_that_is_meant_twice_is_taken_once(endpoint, params):
    """Named twice, by two links, by path and pattern, by hash in two areas."""
    result = await quarantine.run(endpoint.host, params)
    assert (result.taken, result.not_taken) == (1, ())
    assert set(endpoint.files.content) == {B, OTHER}
    assert (await quarantine.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE


async def test_through_a_linked_folder_it_is_the_same_file(endpoint):
    """Another way to the same name, which has gone with it, is no failure."""
    endpoint.files.add("/var/x", "/tmp/.x", kind=Kind.LINK)
    result = await quarantine.run(endpoint.host, order(A, "/var/x/a"))
    assert (result.taken, result.not_taken) == (1, ())


async def test_names_that_were_not_found_are_told(endpoint):
    """The content is still readable there."""
    endpoint.vault.hidden_names = {LINK}
    (row,) = (await quarantine.run(endpoint.host, order(A))).items
    assert row.names_left == 1
    assert endpoint.files.content[LINK] == EVIL


async def test_what_was_left_out_is_counted(endpoint):
    """By reason, never in silence."""
    endpoint.files.unreadable[B] = "no permission"
    result = await quarantine.run(endpoint.host, order("/tmp/.x", recursive=True))
    assert [(one.why, one.files) for one in result.skipped] == [("no permission", 1)]


async def test_a_program_that_was_deleted_and_still_runs_is_taken(endpoint):
    """By what it was called or by its process; who runs it is ended, and beside it others are taken as usual."""
    deleted = endpoint.files.numbered(Node(b"ghost"))
    file = endpoint.files.info_of(deleted).id
    one = endpoint.processes.add(101, executable="/tmp/ghost (deleted)")
    endpoint.processes.hold(one, file, Held.RUNS)
    endpoint.vault.deleted = {"/tmp/ghost": deleted, "/proc/101/exe": deleted}
    plan = await quarantine.plan(endpoint.host, order("/tmp/ghost"))
    assert "deleted, but still running" in plan.steps[0].target
    params = order(B, "/tmp/ghost", end_processes=True)
    result = await quarantine.run(endpoint.host, params)
    assert [one.path for one in result.items] == [B, "/tmp/ghost"]
    assert [one.pid for one in result.ended] == [101]
    assert (await quarantine.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE
    endpoint.next_task("tsk_2")
    assert (await quarantine.run(endpoint.host, order("/proc/101/exe"))).taken == 1


@pytest.mark.parametrize(("keep", "until"), [(None, None), (hours(48), hours(48))])
async def test_it_is_kept_as_long_as_the_policy_says(endpoint, keep, until):
    """For ever if it says nothing."""
    endpoint.settings = GroupSettings(vault=VaultSettings(keep=keep))
    await quarantine.run(endpoint.host, order(A))
    (item,) = await endpoint.vault.items()
    assert item.until == (until and endpoint.clock.now() + until)


# --- refused before anything is touched ------------------------------------------------------------------------------


async def test_one_that_is_protected_refuses_all(endpoint):
    """A hard link to it is no way around; the error names it and the reason."""
    endpoint.files.protected[A] = "pid 1 runs it"
    with pytest.raises(Protected, match=r"1 of 2 must not be taken away.*link: pid 1 runs it"):
        await quarantine.run(endpoint.host, order(LINK, B))
    assert endpoint.life.steps == []


async def test_one_that_is_too_large_refuses_all(endpoint):
    """The bound itself is inside."""
    with pytest.raises(TooLarge, match=f"1 of 2 are larger.*{A}: {len(EVIL)} bytes"):
        await quarantine.run(endpoint.host, order(A, B, max_size=len(EVIL) - 1))
    assert endpoint.life.steps == []
    assert (await quarantine.run(endpoint.host, order(A, B, max_size=len(EVIL)))).taken == 2


async def test_no_room_for_all_refuses_all(endpoint):
    """Each alone would fit; the server is told; the other names of a file need no room of their own."""
    endpoint.vault.limit = len(EVIL)
    with pytest.raises(VaultFull, match=f"got {len(EVIL) + 6} bytes, expected {len(EVIL)}"):
        await quarantine.run(endpoint.host, BOTH)
    assert (endpoint.life.steps, len(endpoint.vault.told_full)) == ([], 1)
    assert (await quarantine.run(endpoint.host, order(A, LINK))).taken == 1


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.FILE])
async def test_what_is_no_regular_file_is_refused(endpoint, kind):
    """By path; a pattern finds files only."""
    endpoint.files.add("/tmp/.x/odd", "/etc/passwd" if kind is Kind.LINK else b"", kind=kind)
    with pytest.raises(Unsupported, match=f"no regular file.*got {Kind(kind).words}"):
        await quarantine.run(endpoint.host, order(A, "/tmp/.x/odd"))
    assert endpoint.life.steps == []
    assert (await quarantine.run(endpoint.host, order(path=[], glob=["/tmp/.x/*"]))).taken == 2


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (order("/tmp/nowhere"), TargetGone),
        (order(path=[], glob=["/opt/*"]), TargetGone),
        (order(A, sha256=["0" * 64]), TargetGone),
        (order(path=[], glob=["/tmp/.x/*"], max_files=1), TooLarge),
    ],
)
async def test_what_cannot_be_chosen_touches_nothing(endpoint, params, error):
    """Nothing there, nothing that fits, more than allowed; the plan says the same."""
    for call in (quarantine.run, quarantine.plan):
        with pytest.raises(error):
            await call(endpoint.host, params)
    assert endpoint.life.steps == []


async def test_what_the_owner_forbids_is_refused(endpoint):
    """By path."""
    endpoint.files.forbidden.add("/tmp/.x")
    with pytest.raises(ForbiddenHere):
        await quarantine.run(endpoint.host, order(A))
    assert endpoint.life.steps == []


# --- changed in between ----------------------------------------------------------------------------------------------


async def test_one_that_vanishes_does_not_keep_the_others(endpoint):
    """The result lists both, the check fails, and what was taken comes back by the order."""
    endpoint.vault.before_take = lambda _taking: endpoint.files.tree.pop(A, None)
    result = await quarantined(endpoint, order(B, A, OTHER))
    assert [one.path for one in result.items] == [B, OTHER]
    assert [(one.path, "nothing" in one.why) for one in result.not_taken] == [(A, True)]
    endpoint.order = "ord_1"
    check = await quarantine.verify(endpoint.host, BOTH, result)
    assert check.verdict is Verdict.ABSENT
    assert A in check.detail
    await restore.run(endpoint.host, back())
    assert endpoint.files.content[B] == b"config"


async def test_one_that_vanishes_alone_is_the_error(endpoint):
    """Nothing was taken."""
    endpoint.vault.before_take = lambda _taking: endpoint.files.tree.pop(A, None)
    with pytest.raises(TargetGone):
        await quarantine.run(endpoint.host, order(A))


async def test_several_that_all_fail_are_one_error(endpoint):
    """Of the first one's kind, with each and its reason."""
    endpoint.vault.fails = {A: Unsupported("a mount point"), B: Unsupported("read-only")}
    with pytest.raises(Unsupported, match=r"None of 2 worked.*a mount point.*read-only"):
        await quarantine.run(endpoint.host, BOTH)


@pytest.mark.parametrize("hashes", [{"sha256": [EVIL_HASH, "0" * 64]}, {"md5": [hashlib.md5(EVIL).hexdigest()]}])
async def test_a_content_that_does_not_fit_any_more_is_not_taken(endpoint, hashes):
    """What was chosen by its hash is taken only with that hash; the file stays."""

    def swap(_taking):
        endpoint.files.content[A] = GOOD

    endpoint.vault.before_take = swap
    with pytest.raises(VerificationFailed):
        await quarantine.run(endpoint.host, order(A, **hashes))
    assert endpoint.files.content[A] == GOOD


async def test_a_file_that_grows_over_the_bound_is_not_taken(endpoint):
    """The bound holds when it is taken, not only when it was looked at."""

    def grow(_taking):
        endpoint.files.content[A] = EVIL * 2

    endpoint.vault.before_take = grow
    with pytest.raises(TooLarge):
        await quarantine.run(endpoint.host, order(A, max_size=len(EVIL)))
    assert endpoint.files.content[A] == EVIL * 2


async def test_the_same_content_at_its_place_again_is_seen(endpoint):
    """Something writes it again: the effect is not in place."""
    result = await quarantine.run(endpoint.host, order(A))
    endpoint.files.content[A] = GOOD
    assert (await quarantine.verify(endpoint.host, order(A), result)).verdict is Verdict.IN_PLACE
    endpoint.files.content[A] = EVIL
    check = await quarantine.verify(endpoint.host, order(A), result)
    assert (check.verdict, A in check.detail) == (Verdict.ABSENT, True)


async def test_an_item_that_is_gone_is_seen(endpoint):
    """It was removed from the vault before the check."""
    result = await quarantine.run(endpoint.host, BOTH)
    await endpoint.vault.remove(result.items[0].id)
    assert (await quarantine.verify(endpoint.host, BOTH, result)).verdict is Verdict.ABSENT


async def test_a_second_order_for_the_same_file_finds_nothing(endpoint):
    """And takes nothing from the first."""
    await quarantined(endpoint)
    with pytest.raises(TargetGone):
        await quarantine.run(endpoint.host, BOTH)
    assert await in_vault(endpoint) == {A, B}


async def test_of_two_orders_at_once_each_file_is_in_the_vault_once(endpoint):
    """Both have chosen it; the second one fails."""

    def other(_taking):
        endpoint.vault.before_take = None
        endpoint.files.tree.pop(A)

    endpoint.vault.before_take = other
    with pytest.raises(TargetGone):
        await quarantine.run(endpoint.host, order(A))
    assert await in_vault(endpoint) == set()


# --- processes -------------------------------------------------------------------------------------------------------


async def test_who_holds_it_is_told(endpoint):
    """Without being ended."""
    endpoint.processes.add(101, name="editor")
    hold(endpoint, 101, A, Held.WRITES)
    result = await quarantine.run(endpoint.host, BOTH)
    assert [(one.pid, one.how, one.path) for one in result.still_held] == [
        (RUNNER, Held.RUNS, A),
        (101, Held.WRITES, A),
    ]
    assert endpoint.processes.killed == []


async def test_who_runs_it_is_ended(endpoint):
    """Who merely has it open or mapped lives on."""
    endpoint.processes.add(101)
    hold(endpoint, 101, A, Held.MAPS)
    result = await quarantine.run(endpoint.host, order(A, end_processes=True))
    assert [(one.pid, one.name, one.path) for one in result.ended] == [(RUNNER, "evil", A)]
    assert [one.pid for one in result.still_held] == [101]
    assert RUNNER not in endpoint.processes.table


async def test_they_are_ended_after_the_file_is_gone_and_all_stopped_first(endpoint):
    """Nobody starts it, or the other, again."""
    endpoint.processes.add(101)
    hold(endpoint, 101, A, Held.RUNS)
    await quarantine.run(endpoint.host, order(A, end_processes=True))
    steps = [step.split()[0] for step in endpoint.life.steps]
    first = steps.index("processes.stop")
    assert steps[first - 1 :] == [
        "vault.remove-original",
        "processes.stop",
        "processes.stop",
        "processes.kill",
        "processes.kill",
    ]


async def test_nobody_stays_stopped_if_the_ending_fails(endpoint, monkeypatch):
    """Stopped on request in the middle, say: who was not ended goes on."""

    async def fail(_self, _one):
        raise asyncio.CancelledError

    monkeypatch.setattr(type(endpoint.processes), "kill", fail)
    with pytest.raises(asyncio.CancelledError):
        await quarantine.run(endpoint.host, order(A, end_processes=True))
    assert endpoint.processes.stopped == set()
    assert f"processes.stop {RUNNER}" in endpoint.life.steps


async def test_people_see_how_far_it_is(endpoint):
    """Each file as it is taken, and as it is put back."""
    await quarantined(endpoint)
    assert [one[3] for one in endpoint.progress.told if one[1] == 2] == [A, B]
    endpoint.progress.told.clear()
    await restore.run(endpoint.host, back())
    assert [(done, text) for done, _total, _unit, text in endpoint.progress.told] == [(0, A), (1, B)]


async def test_a_process_that_must_not_be_ended_is_told(endpoint):
    """With the reason; the file is taken all the same."""
    endpoint.processes.protected[RUNNER] = "it is Stanch itself"
    result = await quarantine.run(endpoint.host, order(A, end_processes=True))
    assert (result.ended, [one.why for one in result.still_held]) == ((), ["it is Stanch itself"])


async def test_a_process_that_does_not_end_is_told(endpoint):
    """It waits inside the kernel."""
    endpoint.processes.undying = {RUNNER}
    (held,) = (await quarantine.run(endpoint.host, order(A, end_processes=True))).still_held
    assert "did not end" in held.why


async def test_one_that_started_it_meanwhile_is_ended_too(endpoint):
    """It is known by its program, where nothing is any more."""

    def start(_taking):
        endpoint.processes.add(101, executable=f"{A} (deleted)")
        hold(endpoint, 101, A, Held.RUNS)

    endpoint.vault.before_take = start
    result = await quarantine.run(endpoint.host, order(A, end_processes=True))
    assert {one.pid for one in result.ended} == {RUNNER, 101}


async def test_a_process_of_another_file_with_the_same_number_is_left_alone(endpoint):
    """A file's number is free as soon as it is gone."""

    def start(_taking):
        endpoint.processes.add(101, executable="/usr/bin/make")
        hold(endpoint, 101, A, Held.RUNS)

    endpoint.vault.before_take = start
    result = await quarantine.run(endpoint.host, order(A, end_processes=True))
    assert 101 in endpoint.processes.table
    assert (len(result.ended), result.still_held) == (1, ())


# --- plan ------------------------------------------------------------------------------------------------------------


async def test_a_plan_lists_everything_and_changes_nothing(endpoint):
    """Files with size, owner and names; processes and what becomes of them."""
    before = snapshot(endpoint)
    plan = await quarantine.plan(endpoint.host, order(A, B, end_processes=True))
    assert (plan.changes, plan.warnings) == (True, ())
    first, second, process = plan.steps
    assert (first.what, process.what) == ("Quarantine", "End")
    assert all(word in first.target for word in (A, f"{len(EVIL)} bytes", "eve", "mode 4755", "1 other name"))
    assert B in second.target
    assert f"{RUNNER} evil" in process.target
    assert (snapshot(endpoint), endpoint.life.steps) == (before, [])


async def test_a_plan_says_what_would_be_refused(endpoint):
    """Protected, too large, no room, each with its reason."""
    endpoint.files.protected[B] = "it is a shell"
    endpoint.vault.limit = 1
    plan = await quarantine.plan(endpoint.host, order(A, B, max_size=len(EVIL) - 1))
    assert not plan.changes
    assert [any(word in one for one in plan.warnings) for word in ("it is a shell", A, "no room")] == [True] * 3


# --- after a crash ---------------------------------------------------------------------------------------------------

ENDING = order(A, B, end_processes=True)


async def test_killed_anywhere_it_is_finished():
    """After `kill -9` at each step, twice: each file is in the vault once, and its place is free."""
    for endpoint in [
        *await killed_at_every_step(with_files, quarantine, ENDING),
        *await killed_twice(with_files, quarantine, ENDING, again=run_again),
    ]:
        result = await run_again(endpoint, quarantine, ENDING)
        assert dict(endpoint.files.content) == {OTHER: GOOD}
        assert sorted(str(one.path) for one in await endpoint.vault.items()) == [A, B]
        assert ([one.pid for one in result.ended], result.not_taken) == ([RUNNER], ())
        assert (await quarantine.verify(endpoint.host, ENDING, result)).verdict is Verdict.IN_PLACE


async def test_killed_anywhere_either_the_file_or_its_item_is_there():
    """Never neither."""
    for endpoint in await killed_at_every_step(with_files, quarantine, ENDING):
        kept = {name for one in endpoint.vault.kept.values() for name in one.names}
        assert {A, B, LINK} <= kept | set(endpoint.files.content)


@pytest.mark.parametrize(("ends_at", "verdict"), [(1, Verdict.ABSENT), (2, Verdict.ABSENT), (4, Verdict.IN_PLACE)])
async def test_a_cancel_is_in_time_until_the_first_is_taken(endpoint, ends_at, verdict):
    """Absent means that nothing remains of it; after that it is completed, and can be undone."""
    endpoint.life.restart(ends_at=ends_at)
    with pytest.raises(BaseException, match=r"journal|vault"):
        await quarantine.run(endpoint.host, BOTH)
    endpoint.restart()
    assert (await quarantine.verify(endpoint.host, BOTH, None)).verdict is verdict
