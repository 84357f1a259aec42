"""Are sessions ended that were meant, all of them, and no other?"""

import pytest

from stanch.actions.end_sessions import EndSessions, end_sessions
from stanch.core.action import Verdict
from stanch.core.errors import Invalid, Protected, TargetGone
from stanch.core.processes import Signal
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step, killed_twice

ALICE = EndSessions(user=("alice",))
ALL_OF_HER = EndSessions(user=("alice",), everything=True)


async def fresh():
    """Three people, one of them twice and with a process outside of her sessions."""
    endpoint = FakeEndpoint()
    for user, pid in (("alice", 300), ("bob", 400), ("alice", 500), ("root", 700)):
        endpoint.accounts.add(user)
        endpoint.accounts.log_in(user, pid)
    endpoint.processes.add(301, parent=300)
    endpoint.processes.add(600, user="alice")
    return endpoint


@pytest.fixture
async def endpoint():
    return await fresh()


def pids(endpoint):
    """Who runs."""
    return sorted(endpoint.processes.table)


async def verdict(endpoint, params, result=None):
    """What `verify` sees."""
    assert end_sessions.verify is not None
    return (await end_sessions.verify(endpoint.host, params, result)).verdict


async def test_all_sessions_of_an_account_end(endpoint):
    """With all their processes; what she runs outside of them, and everybody else, goes on."""
    result = await end_sessions(endpoint.host, ALICE)
    assert [(one.id, one.processes, one.ended) for one in result.sessions] == [("s300", 2, True), ("s500", 1, True)]
    assert pids(endpoint) == [1, 400, 600, 700]
    assert await verdict(endpoint, ALICE, result) is Verdict.IN_PLACE


async def test_a_session_ends_by_its_id(endpoint):
    """Root's too, if it is named."""
    result = await end_sessions(endpoint.host, EndSessions(session=("s500", "s700")))
    assert [one.id for one in result.sessions] == ["s500", "s700"]
    assert pids(endpoint) == [1, 300, 301, 400, 600]


async def test_everything_of_an_account_ends(endpoint):
    """What has left its session, too."""
    result = await end_sessions(endpoint.host, ALL_OF_HER)
    assert (result.others, result.left) == (1, ())
    assert pids(endpoint) == [1, 400, 700]
    assert await verdict(endpoint, ALL_OF_HER, result) is Verdict.IN_PLACE


async def test_everything_of_root_is_the_machine(endpoint):
    """Its sessions may be ended, never all of its processes."""
    with pytest.raises(Protected):
        await end_sessions(endpoint.host, EndSessions(user=("root",), everything=True))
    assert endpoint.life.steps == []


async def test_they_are_asked_before_they_are_killed(endpoint):
    """A lost line first, then a request; only who hears neither is killed."""
    endpoint.processes.deaf.add(300)
    await end_sessions(endpoint.host, ALICE)
    said = [what for one, what in endpoint.processes.sent if one.pid == 300]
    assert said == [Signal.HUP, Signal.TERM]
    assert [one.pid for one in endpoint.processes.killed] == [300]
    assert pids(endpoint) == [1, 400, 600, 700]


async def test_what_does_not_end_is_told(endpoint):
    """One that waits inside the kernel is left, with its pid, and the task is not done."""
    endpoint.processes.undying.add(301)
    result = await end_sessions(endpoint.host, ALICE)
    (left,) = [one for one in result.sessions if not one.ended]
    assert ([one.pid for one in left.left], "killed" in left.why) == ([301], True)
    assert await verdict(endpoint, ALICE, result) is Verdict.ABSENT


async def test_what_must_not_be_ended_is_spared(endpoint):
    """With the reason."""
    endpoint.processes.protected[301] = "it is a part of Stanch"
    result = await end_sessions(endpoint.host, ALICE)
    (left,) = [one for one in result.sessions if not one.ended]
    assert left.why == "it is a part of Stanch"
    assert 301 in pids(endpoint)


async def test_the_session_of_stanch_is_never_ended(endpoint):
    """Named, it is refused; among others of the account it is left."""
    endpoint.accounts.log_in("alice", 800, own=True)
    with pytest.raises(Protected, match="s800"):
        await end_sessions(endpoint.host, EndSessions(session=("s800",)))
    result = await end_sessions(endpoint.host, ALICE)
    assert [(one.id, one.ended) for one in result.sessions] == [("s300", True), ("s500", True), ("s800", False)]
    assert 800 in pids(endpoint)
    assert await verdict(endpoint, ALICE, result) is Verdict.IN_PLACE


@pytest.mark.parametrize(
    ("params", "says"),
    [({"session": ["s999"]}, "s999"), ({"user": ["ghost"]}, "ghost"), ({"user": ["Alice"]}, "Alice")],
)
async def test_who_is_not_there_is_told(endpoint, params, says):
    """A session that is over and an account that nobody has are mistakes, and nothing is done."""
    with pytest.raises(TargetGone, match=says):
        await end_sessions(endpoint.host, end_sessions.parse(params))
    assert endpoint.life.steps == []


async def test_an_account_that_is_not_logged_in_is_no_mistake(endpoint):
    """Nothing is left of it, which was what was wanted; one of a directory, too."""
    endpoint.accounts.directory.add("carol")
    result = await end_sessions(endpoint.host, EndSessions(user=("carol",)))
    assert result.sessions == ()
    assert await verdict(endpoint, EndSessions(user=("carol",)), result) is Verdict.IN_PLACE


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"session": ["s1"], "everything": True},
        {"session": ["a b"]},
        {"user": ["-x"]},
        {"user": ["a"], "grace": "1h"},
    ],
)
def test_wrong_parameters_are_refused(params):
    """Something must be named, and everything is of accounts."""
    with pytest.raises(Invalid):
        end_sessions.parse(params)


async def test_a_dry_run_shows_what_would_end(endpoint):
    """Sessions by id, and how many processes beside them; nothing is changed."""
    assert end_sessions.plan is not None
    endpoint.accounts.log_in("alice", 800, own=True)
    plan = await end_sessions.plan(endpoint.host, ALL_OF_HER)
    assert [one.target.split()[0] for one in plan.steps] == ["s300", "s500", "alice"]
    assert "1 processes outside" in plan.steps[-1].what
    assert "s800" in plan.warnings[0]
    assert endpoint.life.steps == []


async def test_what_was_cut_short_is_finished():
    """Wherever the agent was killed, once or twice: who was meant at first is gone, and was told so."""
    deaths = [
        *await killed_at_every_step(fresh, end_sessions, ALL_OF_HER),
        *await killed_twice(fresh, end_sessions, ALL_OF_HER),
    ]
    for endpoint in deaths:
        result = await end_sessions(endpoint.host, ALL_OF_HER)
        assert [(one.id, one.ended) for one in result.sessions] == [("s300", True), ("s500", True)]
        assert result.others == 1
        assert pids(endpoint) == [1, 400, 700]
        assert await verdict(endpoint, ALL_OF_HER, result) is Verdict.IN_PLACE


async def test_nothing_was_begun():
    """Killed before the first record, nothing can be in place."""
    assert await verdict(await fresh(), ALICE) is Verdict.ABSENT
