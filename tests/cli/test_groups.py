"""Groups on the command line."""

import pytest

from tests.client.stub import a_group, an_endpoint


def test_groups_are_listed(run, signed_in):
    """The one that decides first at the top, with what its policy is for."""
    signed_in.groups = [a_group("web", "role=web", sections=("isolation",)), a_group("all")]
    lines = run("groups").out.splitlines()
    assert lines[0].split() == ["GROUP", "LABELS", "ENDPOINTS", "RANK", "POLICY", "FOR", "DESCRIPTION"]
    assert lines[1].split() == ["web", "role=web", "2", "1000", "isolation", "Why"]
    assert [one["name"] for one in run("groups", "--json").json] == ["web", "all"]


def test_a_group_is_made(run, signed_in):
    """What is typed is what is sent, and the next step is told."""
    ended = run("groups", "create", "db", "--label", "role=db", "--label", "env=prod", "--rank", "5")
    assert signed_in.asked("POST /groups") == [{"name": "db", "labels": ["role=db", "env=prod"], "rank": 5}]
    assert "stanch policy edit db" in ended.out
    assert run("groups", "create", "every", "--json").json["labels"] == []


@pytest.mark.parametrize("line", [("Web",), ("web", "--label", "x"), ("web", "--rank", "0"), ("web", "--rank", "x")])
def test_a_wrong_group_is_not_made(run, signed_in, line):
    """Bounds are checked here."""
    assert run("groups", "create", *line).code == 2
    assert not signed_in.requests


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (("--rank", "5"), {"rank": 5}),
        (("--label", "a=b", "--label", "c=d"), {"labels": ["a=b", "c=d"]}),
        (("--no-labels",), {"labels": []}),
        (("--description", ""), {"description": ""}),
    ],
)
def test_only_what_is_named_is_changed(run, signed_in, line, sent):
    """The rest is not sent."""
    assert run("groups", "change", "web", *line, "--json").code == 0
    assert signed_in.asked("PATCH /groups/web") == [sent]


@pytest.mark.parametrize("line", [(), ("--label", "a=b", "--no-labels"), ("--label", "")])
def test_a_wrong_change_is_not_sent(run, signed_in, line):
    """Nothing, or two things that contradict each other."""
    assert run("groups", "change", "web", *line).code == 2
    assert not signed_in.requests


def test_a_group_is_shown_with_its_endpoints(run, signed_in):
    """And says when there are more of them."""
    signed_in.endpoints = [an_endpoint(n).model_copy(update={"groups": ("web", "all")}) for n in (1, 2)]
    ended = run("groups", "show", "web", "--limit", "1")
    assert "web-01" in ended.out
    assert "1 more: stanch endpoints --group web" in ended.out
    found = run("groups", "show", "web", "--json").json
    assert (found["labels"], [one["hostname"] for one in found["members"]]) == (["role=web"], ["web-01", "web-02"])
    signed_in.endpoints = []
    assert "No endpoint belongs to it" in run("groups", "show", "web").out
    assert run("groups", "show", "nowhere").code == 5


def test_deleting_asks_a_person_and_says_what_goes(run, signed_in, terminal, monkeypatch):
    """A no leaves everything as it is; --yes does not ask."""
    signed_in.groups = [a_group("web", "role=web", sections=("isolation",))]
    terminal("n")
    asked: list[str] = []
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: asked.append(prompt) or "n")
    assert run("groups", "delete", "web").code == 10
    assert "policy for isolation" in asked[0]
    assert not signed_in.asked("DELETE /groups/web")
    assert run("groups", "delete", "web", "--yes", "--json").json == {
        "group": "web",
        "deleted": True,
        "sections": ["isolation"],
    }
    assert signed_in.asked("DELETE /groups/web")
