"""Is everybody who is logged in listed, and only who was asked for?"""

import pytest

from stanch.actions import list_sessions as module
from stanch.actions.list_sessions import ListSessions, list_sessions
from tests.fakes.host import FakeEndpoint


@pytest.fixture
def endpoint():
    """Two people, one of them twice."""
    endpoint = FakeEndpoint()
    for user, pid in (("alice", 300), ("bob", 400), ("alice", 500)):
        endpoint.accounts.log_in(user, pid, remote="198.51.100.7")
    endpoint.processes.add(301, parent=300)
    return endpoint


async def test_everybody_is_listed(endpoint):
    """With terminal, origin, and how many processes they have."""
    found = (await list_sessions(endpoint.host, ListSessions())).sessions
    assert [(one.id, one.user, one.processes) for one in found] == [
        ("s300", "alice", 2),
        ("s400", "bob", 1),
        ("s500", "alice", 1),
    ]
    assert {one.remote for one in found} == {"198.51.100.7"}


async def test_only_who_was_asked_for(endpoint):
    """By account; nobody is an answer, too."""
    found = (await list_sessions(endpoint.host, ListSessions(user=("alice",)))).sessions
    assert [one.id for one in found] == ["s300", "s500"]
    assert (await list_sessions(endpoint.host, ListSessions(user=("eve",)))).sessions == ()


async def test_too_many_are_cut_and_that_is_told(endpoint, monkeypatch):
    """The answer must fit."""
    monkeypatch.setattr(module, "MAX_SESSIONS", 20)
    for pid in range(1000, 1020):
        endpoint.accounts.log_in("mallory", pid)
    found = await list_sessions(endpoint.host, ListSessions())
    assert (len(found.sessions), found.cut) == (20, True)
    assert endpoint.life.steps == []
