"""Is every way into an account closed, and does exactly what was before come back, wherever the agent is killed?"""

import pytest

from stanch.actions.lock_account import (
    NOT_OURS,
    LockAccount,
    UnlockAccount,
    effect_name,
    lock_account,
    unlock_account,
)
from stanch.core.accounts import Before
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, Invalid, Protected, TargetGone, Unsupported
from stanch.core.types import hours, minutes
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice

ALICE, OPEN = LockAccount(name="alice"), UnlockAccount(name="alice")
HASH = "$6$hash"


async def fresh(password=HASH, expires="20999"):
    """An endpoint with accounts, one of which is logged in twice."""
    endpoint = FakeEndpoint()
    endpoint.accounts.add("root", uid=0)
    endpoint.accounts.add("www-data", uid=33)
    endpoint.accounts.add("alice", password=password, expires=expires)
    endpoint.accounts.directory.add("carol")
    for user, pid in (("alice", 300), ("bob", 400), ("alice", 500)):
        endpoint.accounts.log_in(user, pid)
    endpoint.processes.add(301, parent=300)
    return endpoint


@pytest.fixture
async def endpoint():
    return await fresh()


async def locked(params=ALICE, **account):
    """An endpoint on which another task has locked the account ten minutes ago."""
    endpoint = await fresh(**account)
    await lock_account(endpoint.host, params)
    endpoint.clock.advance(minutes(10))
    endpoint.next_task("tsk_2")
    endpoint.life.restart()
    return endpoint


def pids(endpoint):
    """Who runs."""
    return sorted(endpoint.processes.table)


async def verdict(endpoint, action, params, result=None):
    """What `verify` sees."""
    return (await action.verify(endpoint.host, params, result)).verdict


# --- lock ------------------------------------------------------------------------------------------------------------


async def test_it_closes_every_way_in_and_ends_the_sessions(endpoint):
    """Password and expiry; of other accounts nothing."""
    result = await lock_account(endpoint.host, ALICE)
    assert endpoint.accounts.shadow["alice"] == (f"!{HASH}", "1")
    assert result.changed
    assert result.was == Before(password_locked=False, expires="20999")
    assert [(one.id, one.processes, one.ended) for one in result.sessions] == [("s300", 2, True), ("s500", 1, True)]
    assert pids(endpoint) == [1, 400]
    assert await verdict(endpoint, lock_account, ALICE, result) is Verdict.IN_PLACE


async def test_what_was_is_on_the_disk_before_anything_is_changed(endpoint):
    """First the record, then the effect, then the lock, then the sessions."""
    await lock_account(endpoint.host, ALICE)
    steps = [one.split()[0] for one in endpoint.life.steps]
    assert steps[:3] == ["journal.record", "effects.hold", "accounts.lock"]
    assert set(steps[3:]) <= {"processes.send", "processes.kill"}


async def test_sessions_may_stay(endpoint):
    """The account alone is locked then."""
    result = await lock_account(endpoint.host, LockAccount(name="alice", end_sessions=False))
    assert result.sessions == ()
    assert pids(endpoint) == [1, 300, 301, 400, 500]


async def test_the_session_of_stanch_stays_and_is_told(endpoint):
    """Whoever tries the agent out by hand does not end it."""
    endpoint.accounts.log_in("alice", 600, own=True)
    result = await lock_account(endpoint.host, ALICE)
    (kept,) = [one for one in result.sessions if not one.ended]
    assert (kept.id, "Stanch" in kept.why) == ("s600", True)
    assert await verdict(endpoint, lock_account, ALICE, result) is Verdict.IN_PLACE


async def test_a_session_that_does_not_end_is_not_called_ended(endpoint):
    """It waits inside the kernel: the account is locked, and the task has not done all of it."""
    endpoint.processes.undying.add(301)
    result = await lock_account(endpoint.host, ALICE)
    assert endpoint.accounts.shadow["alice"] == (f"!{HASH}", "1")
    (left,) = [one for one in result.sessions if not one.ended]
    assert [one.pid for one in left.left] == [301]
    assert await verdict(endpoint, lock_account, ALICE, result) is Verdict.ABSENT


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("root", Protected, "it is root"),
        ("www-data", Protected, "system-too"),
        ("carol", Unsupported, "directory"),
        ("ghost", TargetGone, "ghost"),
    ],
)
async def test_who_must_not_or_cannot_be_locked(endpoint, name, error, says):
    """A dry run says so as well, and nothing is written down."""
    assert lock_account.plan is not None
    for call in (lock_account, lock_account.plan):
        with pytest.raises(error, match=says):
            await call(endpoint.host, LockAccount(name=name))
    assert endpoint.life.steps == []


async def test_an_account_of_services_is_locked_if_it_is_meant(endpoint):
    """And its lock is lifted without being asked again."""
    await lock_account(endpoint.host, LockAccount(name="www-data", system_too=True, duration=hours(1)))
    assert endpoint.accounts.shadow["www-data"] == (f"!{HASH}", "1")
    lifts = endpoint.effects.held["account:www-data"].lift_params
    await unlock_account(endpoint.host, UnlockAccount(**lifts))
    assert endpoint.accounts.shadow["www-data"] == (HASH, "")


@pytest.mark.parametrize("name", ["-rf", "", "a:b", "a\nb", "a/b", "a" * 200, "été", "$(id)", " a"])
def test_a_name_that_is_none_is_refused(name):
    """No option of a program, no second field of a file."""
    with pytest.raises(Invalid, match="name"):
        lock_account.parse({"name": name})


async def test_what_cannot_be_locked_is_not_kept(endpoint):
    """Nothing would have to be lifted."""
    endpoint.accounts.fails = ActionFailed("the lock is held")
    with pytest.raises(ActionFailed, match="held"):
        await lock_account(endpoint.host, ALICE)
    assert endpoint.effects.held == {}
    assert pids(endpoint) == [1, 300, 301, 400, 500]


async def test_who_was_locked_by_somebody_else_is_left_so(endpoint):
    """Then nothing changes, nothing is kept, and an undo has nothing to take back."""
    endpoint.accounts.shadow["alice"] = (f"!{HASH}", "1")
    result = await lock_account(endpoint.host, ALICE)
    assert (result.changed, result.was) == (False, None)
    assert endpoint.effects.held == {}
    assert lock_account.undo_params(ALICE, result) is None
    assert await verdict(endpoint, lock_account, ALICE, result) is Verdict.IN_PLACE


async def test_a_second_lock_changes_only_its_end():
    """What is kept is how it was before the first one."""
    endpoint = await locked(LockAccount(name="alice", duration=hours(1)))
    result = await lock_account(endpoint.host, LockAccount(name="alice", duration=hours(5)))
    assert not result.changed
    assert result.until == endpoint.clock.now() + hours(5)
    assert result.was == Before(password_locked=False, expires="20999")
    endpoint.accounts.fails = ActionFailed("the lock is held")
    endpoint.next_task("tsk_3")
    with pytest.raises(ActionFailed):
        await lock_account(endpoint.host, ALICE)
    assert "account:alice" in endpoint.effects.held


async def test_a_second_lock_that_fails_does_not_move_the_end():
    """Whoever was told that it failed would be surprised by an account that opens."""
    endpoint = await locked()
    endpoint.accounts.fails = ActionFailed("the lock is held")
    with pytest.raises(ActionFailed):
        await lock_account(endpoint.host, LockAccount(name="alice", duration=minutes(10)))
    assert endpoint.effects.remaining("account:alice") is None
    assert "account:alice" in endpoint.effects.held


@pytest.mark.parametrize(
    ("opened", "back"),
    [((HASH, "25000"), (HASH, "25000")), ((HASH, "1"), (HASH, "20999")), (("!" + HASH, "25000"), (HASH, "25000"))],
)
async def test_what_somebody_else_opened_between_two_locks_is_what_comes_back(opened, back):
    """An administrator has set another date since: the first lock does not know it, the second one does."""
    endpoint = await locked()
    endpoint.accounts.shadow["alice"] = opened
    result = await lock_account(endpoint.host, ALICE)
    assert result.changed
    endpoint.next_task("tsk_3")
    await unlock_account(endpoint.host, OPEN)
    assert endpoint.accounts.shadow["alice"] == back


async def test_who_was_being_let_in_meanwhile_is_thrown_out_too(endpoint):
    """Their keys were accepted before the lock, and their session begins after the first look."""
    ask, asked = endpoint.accounts.sessions, []

    async def sessions():
        asked.append(True)
        if len(asked) == 2:
            endpoint.accounts.log_in("alice", 800)
        return await ask()

    endpoint.accounts.sessions = sessions
    result = await lock_account(endpoint.host, ALICE)
    assert [(one.id, one.ended) for one in result.sessions] == [("s300", True), ("s500", True), ("s800", True)]
    assert 800 not in endpoint.processes.table


async def test_what_runs_outside_of_its_sessions_is_told(endpoint):
    """It is not ended by a lock; whoever reads the result knows that there is something."""
    endpoint.processes.add(600, user="alice")
    result = await lock_account(endpoint.host, ALICE)
    assert result.others == 1
    assert 600 in endpoint.processes.table
    endpoint.accounts.add("toor", uid=0)

    async def refuse(_user):
        raise Protected("The machine itself runs with this user id")

    endpoint.accounts.processes_of = refuse
    endpoint.next_task("tsk_2")
    assert (await lock_account(endpoint.host, LockAccount(name="toor", system_too=True))).others is None


async def test_a_cancel_of_a_renewal_does_not_open_the_account():
    """It is finished instead: the first lock must stay."""
    endpoint = await locked()
    await lock_account(endpoint.host, ALICE)
    endpoint.journal.restart()
    assert await verdict(endpoint, lock_account, ALICE) is Verdict.IN_PLACE


async def test_a_dry_run_changes_nothing(endpoint):
    """It names the account and its sessions; of one that is locked and away, nothing is left to do."""
    assert lock_account.plan is not None
    plan = await lock_account.plan(endpoint.host, ALICE)
    assert plan.changes
    assert [one.target for one in plan.steps] == ["alice", "s300", "s500"]
    assert endpoint.life.steps == []
    await lock_account(endpoint.host, ALICE)
    assert not (await lock_account.plan(endpoint.host, ALICE)).changes


def test_long_names_have_effects_of_their_own():
    """A name of an effect has 64 characters at most."""
    long = "a" * 70
    assert len(effect_name(long)) == 64
    assert effect_name(long) != effect_name(long + "b")
    assert effect_name("a" * 56) == "account:" + "a" * 56


# --- unlock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "expires"), [(HASH, ""), (HASH, "20999"), (f"!{HASH}", ""), (f"!{HASH}", "20999"), ("*", "")]
)
async def test_exactly_what_was_comes_back(password, expires):
    """A password that was locked stays locked."""
    endpoint = await locked(password=password, expires=expires)
    result = await unlock_account(endpoint.host, OPEN)
    assert (result.changed, result.lost) == (True, ())
    assert endpoint.accounts.shadow["alice"] == (password, expires)
    assert endpoint.effects.held == {}
    assert await verdict(endpoint, unlock_account, OPEN, result) is Verdict.IN_PLACE


async def test_an_undo_locks_again_for_the_rest_of_the_time():
    """And leaves the sessions alone, which did not come back either."""
    endpoint = await locked(LockAccount(name="alice", duration=hours(1)))
    result = await unlock_account(endpoint.host, OPEN)
    back = unlock_account.undo_params(OPEN, result)
    assert back == ("lock_account", LockAccount(name="alice", duration=minutes(50), end_sessions=False))


async def test_an_undo_of_a_lock_unlocks():
    """By its own parameters."""
    endpoint = await fresh()
    result = await lock_account(endpoint.host, ALICE)
    assert lock_account.undo_params(ALICE, result) == ("unlock_account", OPEN)


async def test_an_empty_password_is_not_opened():
    """What is lost by that is told."""
    endpoint = await locked(password="", expires="")
    result = await unlock_account(endpoint.host, OPEN)
    assert result.lost == ("The password stays locked",)
    assert await verdict(endpoint, unlock_account, OPEN, result) is Verdict.IN_PLACE


async def test_who_was_locked_by_somebody_else_is_opened_as_far_as_can_be_known(endpoint):
    """The old date of expiry is nobody's knowledge here, and that is told, before and after."""
    endpoint.accounts.shadow["alice"] = (f"!{HASH}", "1")
    assert unlock_account.plan is not None
    assert (await unlock_account.plan(endpoint.host, OPEN)).warnings == (NOT_OURS,)
    result = await unlock_account(endpoint.host, OPEN)
    assert endpoint.accounts.shadow["alice"] == (HASH, "")
    assert result.lost == (NOT_OURS,)


async def test_a_date_of_expiry_that_is_not_over_stays(endpoint):
    """Of an account whose password somebody else has locked, only that is unlocked."""
    endpoint.accounts.shadow["alice"] = (f"!{HASH}", "20999")
    await unlock_account(endpoint.host, OPEN)
    assert endpoint.accounts.shadow["alice"] == (HASH, "20999")


async def test_who_is_not_locked_is_left_alone(endpoint):
    """Nothing changes, and nothing is to be undone."""
    result = await unlock_account(endpoint.host, OPEN)
    assert not result.changed
    assert endpoint.accounts.shadow["alice"] == (HASH, "20999")
    assert unlock_account.undo_params(OPEN, result) is None


@pytest.mark.parametrize("name", ["root", "www-data"])
async def test_accounts_of_the_system_are_not_opened(endpoint, name):
    """On many machines they are locked for good reason."""
    endpoint.accounts.shadow[name] = ("!", "")
    with pytest.raises(Protected):
        await unlock_account(endpoint.host, UnlockAccount(name=name))


async def test_what_is_kept_of_an_account_that_is_gone_is_forgotten():
    """Somebody has deleted it: nothing can come back, and a deadline must not try for ever."""
    endpoint = await locked()
    del endpoint.accounts.shadow["alice"]
    result = await unlock_account(endpoint.host, OPEN)
    assert (result.changed, result.lost) == (False, ("The account is gone.",))
    assert endpoint.effects.held == {}


# --- kill -9 ---------------------------------------------------------------------------------------------------------


async def test_a_lock_that_was_cut_short_is_finished():
    """Wherever the agent was killed, once or twice: locked, kept as it was, nobody logged in."""
    for endpoint in [
        *await killed_at_every_step(fresh, lock_account, ALICE),
        *await killed_twice(fresh, lock_account, ALICE),
    ]:
        result = await lock_account(endpoint.host, ALICE)
        assert result.changed
        assert result.was == Before(password_locked=False, expires="20999")
        assert endpoint.accounts.shadow["alice"] == (f"!{HASH}", "1")
        assert endpoint.effects.held["account:alice"].private["before"] == result.was.model_dump()
        assert pids(endpoint) == [1, 400]


async def test_an_unlock_that_was_cut_short_is_finished():
    """Wherever the agent was killed, once or twice: as it was, and nothing kept."""
    deaths = [
        *await killed_at_every_step(locked, unlock_account, OPEN),
        *await killed_twice(locked, unlock_account, OPEN),
    ]
    for endpoint in deaths:
        result = await unlock_account(endpoint.host, OPEN)
        assert result.changed
        assert endpoint.accounts.shadow["alice"] == (HASH, "20999")
        assert endpoint.effects.held == {}
