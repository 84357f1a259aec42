"""Endpoints, labels and the list of actions."""

import pytest

from stanch.actions import load
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus, Tampering
from stanch.core.network import IsolationState
from stanch.core.types import hours, show_instant
from tests.client.stub import NOW, an_endpoint


def test_endpoints_are_listed(run, signed_in):
    """One line for each endpoint, under heads."""
    lines = run("endpoints").out.splitlines()
    assert lines[0].split() == ["ENDPOINT", "ID", "STATE", "ADDRESSES", "OS", "LABELS", "IN", "FORCE"]
    assert lines[1].split()[:4] == ["web-01", "ept_1", "online", "10.0.0.1"]
    assert len(lines) == 3


def test_endpoints_as_json(run, signed_in):
    """Programs get everything, as one document."""
    assert [one["hostname"] for one in run("endpoints", "--json").json] == ["web-01", "web-02"]


def test_search_and_label(run, signed_in):
    """Both reach the server."""
    signed_in.endpoints = [an_endpoint(1, labels=("env=prod",)), an_endpoint(2)]
    assert len(run("endpoints", "--search", "10.0.0.1", "--label", "env=prod", "--json").json) == 1


def test_limit_stops_reading(run, signed_in):
    """No more pages are asked for than are shown."""
    signed_in.endpoints, signed_in.page = [an_endpoint(n) for n in range(1, 100)], 10
    assert len(run("endpoints", "--limit", "15", "--json").json) == 15
    assert len(signed_in.asked("GET /endpoints")) == 2


def test_no_endpoint_says_how_to_get_one(run, signed_in):
    """An empty fleet is told what to do next."""
    signed_in.endpoints = []
    assert "token create" in run("endpoints").out
    assert "lists all" in run("endpoints", "--search", "nowhere").out


def test_what_is_in_force_is_listed(run, signed_in):
    """The list says of an endpoint how long it is isolated."""
    until = NOW + hours(2)
    effects = [
        Effect(name=name, task="tsk_1", since=NOW, until=end, lift_action="release")
        for name, end in (("isolation", until), ("other", None))
    ]
    signed_in.endpoints = [an_endpoint(1).model_copy(update={"effects": tuple(effects)})]
    assert f"isolation until {show_instant(until)}, other" in run("endpoints").out


def isolated(number=1, **more):
    """An endpoint that tells of its isolation."""
    told = IsolationStatus(state=IsolationState.PARTIAL, since=NOW, by="alice", origin="cli", why="beacon", **more)
    return an_endpoint(number).model_copy(update={"isolation": told})


def test_the_list_shows_who_is_cut_off(run, signed_in):
    """Beside whether its link is up; one that is not isolated is just online."""
    signed_in.endpoints = [isolated(), an_endpoint(2)]
    assert "online, partial" in run("endpoints").out
    assert "web-02" in run("endpoints").out


def test_an_endpoint_shows_its_isolation(run, signed_in):
    """Since when, by whom, why, what is not covered, what was tampered with."""
    seen = Tampering(at=NOW, what="table deleted", who="\x1b[2Jroot, nft", repaired=True)
    signed_in.endpoints = [isolated(not_covered=("eth9: no chain.",), tampered=seen)]
    out = run("endpoint", "show", "web-01").out
    for text in ("partial", "alice (cli)", "beacon", "eth9: no chain.", "table deleted", "root, nft"):
        assert text in out
    assert "\x1b" not in out


def test_one_endpoint(run, signed_in):
    """A person sees machine, network and abilities."""
    ended = run("endpoint", "show", "web-01")
    for text in ("Debian 12", "02:00:00:00:00:01", "nftables", "online"):
        assert text in ended.out
    assert run("endpoint", "show", "web-01", "--json").json["id"] == "ept_1"
    assert run("endpoint", "show", "nowhere").code == 5


def test_labels(run, signed_in):
    """Labels are put on and taken away."""
    assert run("endpoint", "label", "web-01", "env=prod", "role=db", "--remove", "old", "--json").json["labels"]
    assert signed_in.asked("PATCH /endpoints/web-01/labels") == [{"add": ["env=prod", "role=db"], "remove": ["old"]}]


@pytest.mark.parametrize("line", [(), ("nonsense",), ("a=b=c=d",), ("=",), ("x" * 100 + "=1",)])
def test_wrong_labels_are_not_sent(run, signed_in, line):
    """What is no label is refused here."""
    ended = run("endpoint", "label", "web-01", *line)
    assert ended.code == 2
    assert ended.err.startswith("error[invalid]: ")
    assert not signed_in.requests


def test_revoke_asks_a_person(run, signed_in, terminal):
    """On a terminal a no leaves everything as it is; --yes does not ask."""
    terminal("n")
    assert run("endpoint", "revoke", "web-01").code == 10
    assert not signed_in.requests
    assert run("endpoint", "revoke", "web-01", "--yes", "--json").json["revoked"] is True
    assert signed_in.asked("POST /endpoints/web-01/revoke")


def test_actions_need_no_server(run):
    """Without a session the list is of this version."""
    found = {one["name"]: one for one in run("actions", "--json").json}
    assert set(found) == set(load())
    assert set(found["isolate"]) >= {"name", "params", "risk", "undo", "after_crash"}


def test_actions_of_the_server(run, signed_in):
    """With a session the server is asked."""
    ended = run("actions")
    assert signed_in.asked("GET /actions")
    assert all(one.command in ended.out for one in load().values())


def test_groups_of_endpoints(run, signed_in):
    """They are shown, and narrow the list."""
    signed_in.endpoints = [an_endpoint(1).model_copy(update={"groups": ("web", "all")}), an_endpoint(2)]
    assert "web, all" in run("endpoint", "show", "web-01").out
    assert [one["hostname"] for one in run("endpoints", "--group", "web", "--json").json] == ["web-01"]
    assert "lists all" in run("endpoints", "--group", "db").out
