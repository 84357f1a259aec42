"""Are people hung up on kindly first, then firmly, and is what stays told with its reason?"""

from collections.abc import Sequence

import pytest

from stanch.core.hanging_up import Left, end_all, hang_up, still_there
from stanch.core.processes import ProcessId, Signal
from stanch.core.types import seconds
from tests.fakes.host import FakeEndpoint

GRACE = seconds(6)


@pytest.fixture
def endpoint() -> FakeEndpoint:
    """Somebody who is logged in, with two processes."""
    endpoint = FakeEndpoint()
    endpoint.accounts.log_in("alice", 300)
    endpoint.processes.add(301, parent=300)
    return endpoint


async def test_a_process_that_goes_on_is_asked_and_then_killed(endpoint: FakeEndpoint) -> None:
    """HUP, TERM, KILL; whoever ends at one of them hears no more."""
    endpoint.processes.deaf.add(301)
    (end,) = await hang_up(endpoint.host, await endpoint.accounts.sessions(), grace=GRACE)
    assert end.ended
    assert [(one.pid, what) for one, what in endpoint.processes.sent] == [
        (300, Signal.HUP),
        (301, Signal.HUP),
        (300, Signal.TERM),
        (301, Signal.TERM),
    ]
    assert [one.pid for one in endpoint.processes.killed] == [301]


async def test_what_is_started_meanwhile_is_ended_too(endpoint: FakeEndpoint) -> None:
    """It is looked for again before each step."""
    rounds = iter([200, 201, 202])

    async def look() -> Sequence[ProcessId]:
        pid = next(rounds, None)
        if pid is not None:
            endpoint.processes.add(pid)
        return [one.id for one in endpoint.processes.table.values() if 200 <= one.pid < 300]

    left = await end_all(endpoint.host, look, grace=GRACE)
    assert left.ones == ()
    assert not {200, 201, 202} & set(endpoint.processes.table)


async def test_a_look_that_always_finds_more_ends(endpoint: FakeEndpoint) -> None:
    """A thing that starts faster than it is ended is told, not chased for ever."""
    pids = iter(range(1000, 10_000))

    async def look() -> Sequence[ProcessId]:
        endpoint.processes.add(next(pids))
        return [one.id for one in endpoint.processes.table.values() if one.pid >= 1000]

    left = await end_all(endpoint.host, look, grace=GRACE)
    assert len(left.ones) == 1
    assert next(pids) < 1100


async def test_what_is_protected_hears_nothing(endpoint: FakeEndpoint) -> None:
    """It is told as left, with the reason."""
    endpoint.processes.protected[300] = "it is init"
    sessions = await endpoint.accounts.sessions()
    (end,) = await hang_up(endpoint.host, sessions, grace=GRACE)
    assert (end.ended, [one.pid for one in end.left], end.why) == (False, [300], "it is init")
    assert {one.pid for one, _ in endpoint.processes.sent} == {301}
    assert await still_there(endpoint.host, [end]) == ["s300"]


async def test_the_session_of_stanch_is_left(endpoint: FakeEndpoint) -> None:
    """It does not count as still there."""
    own = endpoint.accounts.log_in("root", 400, own=True)
    (end,) = await hang_up(endpoint.host, [own], grace=GRACE)
    assert (end.ended, end.left) == (False, ())
    assert 400 in endpoint.processes.table
    assert await still_there(endpoint.host, [end]) == []


async def test_whoever_logged_in_again_is_somebody_else(endpoint: FakeEndpoint) -> None:
    """A terminal is given out anew: the time tells."""
    (end,) = await hang_up(endpoint.host, await endpoint.accounts.sessions(), grace=GRACE)
    endpoint.accounts.logged_in.clear()
    later = endpoint.accounts.log_in("alice", 500, session="s300", since="2026-11-24T13:00:00Z")
    assert end.since != later.since
    assert await still_there(endpoint.host, [end]) == []


def test_reasons_are_told_once() -> None:
    """For those processes that are asked about."""
    one, other = ProcessId(pid=1, started=1), ProcessId(pid=2, started=1)
    left = Left((one, other), {one: "it is init"})
    assert left.why([one, one]) == "it is init"
    assert left.why([one, other]) == "it is init; it does not end even when it is killed"
    assert left.why([]) == ""
