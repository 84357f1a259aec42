"""Content on the command line."""

import pytest

from stanch.core.errors import Conflict
from stanch.core.rest_content import ContentFile, ContentProblem, Lint, UnknownHere
from tests.fakes.packed import GOOD

DIGEST = "0" * 64


@pytest.fixture
def rules(tmp_path, signed_in):
    """A folder of rules, in which the server finds one that is bad, with a name that tries something."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yar").write_bytes(GOOD)
    signed_in.lint = Lint(
        files=(ContentFile(name="a.yar", size=1, sha256=DIGEST, rules=3, problems=1),),
        problems=(ContentProblem(file="a.yar\x1b[2J", line=7, rule="bad", text="undefined identifier"),),
        unknown=(UnknownHere(term="RegistryItem/Path", times=4),),
    )
    return folder


def test_an_import(run, signed_in, rules):
    """Says what counts, what does not and what comes next; nothing in a name reaches the terminal."""
    ended = run("content", "import", "apt", str(rules), "--note", "why")
    assert ended.code == 0, ended.err
    assert "stanch content publish apt 1" in ended.out
    assert ":7" in ended.out
    assert "\x1b" not in ended.out
    assert signed_in.asked("POST /content") == [{"name": "apt", "note": "why"}]
    again = run("content", "import", "apt", str(rules), "--strict", "--publish", "--json")
    assert (again.json["new"], again.json["published"]) == (False, True)
    assert signed_in.published == {"apt": 1}
    assert signed_in.asked("POST /content")[-1]["strict"] == "true"


def test_an_import_of_the_same_says_so(run, rules):
    """And what nobody wants to import is refused before anything is sent."""
    run("content", "import", "apt", str(rules))
    assert "no new version" in run("content", "import", "apt", str(rules)).out
    (rules / "b.txt").write_bytes(b"a" * 32)
    ended = run("content", "import", "apt", str(rules))
    assert ended.code != 0
    assert "several kinds" in ended.err
    assert "Left out" in run("content", "import", "apt", str(rules), "--kind", "yara").err


def test_nothing_that_counts_is_not_offered_for_publishing(run, signed_in, rules):
    """It could not be published."""
    signed_in.lint = Lint(complete=False, why_incomplete="it took too long")
    ended = run("content", "import", "apt", str(rules))
    assert "cannot be published" in ended.out
    assert "it took too long" in ended.out


def test_a_check(run, signed_in, rules):
    """Keeps nothing, and its exit status says whether all of it counts."""
    ended = run("content", "check", str(rules))
    assert ended.code == 1
    assert "undefined identifier" in ended.out
    assert "RegistryItem/Path" in ended.out
    assert run("content", "check", str(rules), "--json").json["problems"][0]["line"] == 7
    signed_in.lint = Lint()
    assert run("content", "check", str(rules)).code == 0
    assert signed_in.content == {}


def test_lists_and_shows(run, rules):
    """Which version is current, and what is in one."""
    run("content", "import", "apt", str(rules), "--publish")
    lines = run("content", "list").out.splitlines()
    assert lines[0].split() == ["CONTENT", "KIND", "VERSIONS", "NEWEST", "PUBLISHED", "ENDPOINTS", "REFUSED"]
    assert lines[1].split() == ["apt", "yara", "1", "1", "1", "2", "0"]
    assert "2.0 KiB of at most 1.0 GiB, 1 of at most 100 names" in run("content", "list").out
    assert [one["name"] for one in run("content", "list", "--json").json] == ["apt"]
    assert "versions:" in run("content", "show", "apt").out
    assert run("content", "show", "apt", "--json").json["every"][0]["version"] == 1
    shown = run("content", "show", "apt", "--version", "1")
    assert "RegistryItem/Path" in shown.out
    assert "\x1b" not in shown.out
    assert run("content", "show", "apt", "--version", "1", "--json").json["lint"]["files"][0]["rules"] == 3
    assert run("content", "show", "none").code != 0


def test_publish_and_go_back(run, signed_in, rules):
    """For everybody, or for groups."""
    run("content", "import", "apt", str(rules))
    assert "Current version: 1, for 2 endpoints" in run("content", "publish", "apt", "1").out
    run("content", "publish", "apt", "1", "--to-group", "web", "--to-group", "db")
    assert signed_in.asked("POST /content/apt/publish") == [{"version": 1}, {"version": 1, "groups": ["web", "db"]}]
    signed_in.published["apt"] = 2
    assert run("content", "rollback", "apt", "--json").json["published"][0]["version"] == 1
    run("content", "rollback", "apt", "--to-group", "web")
    assert signed_in.asked("POST /content/apt/rollback") == [{}, {"groups": ["web"]}]
    assert "Current version: none" in run("content", "unpublish", "apt").out
    assert run("content", "publish", "apt", "0").code != 0


def test_delete(run, signed_in, rules, terminal):
    """It is asked first, and the server's refusal is told."""
    run("content", "import", "apt", str(rules))
    terminal("n", "n")
    assert run("content", "delete", "apt", "1").code != 0
    assert run("content", "unpublish", "apt").code != 0
    assert signed_in.asked("POST /content/apt/unpublish") == []
    signed_in.errors["DELETE /content/apt/versions/1"] = Conflict("Version 1 of apt is the current one")
    assert "current one" in run("content", "delete", "apt", "1", "--yes").err
    signed_in.errors.clear()
    assert run("content", "delete", "apt", "1", "--yes", "--json").json == {
        "content": "apt", "version": 1, "deleted": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Apt", "", "../apt", "a b", "rules/"])
def test_a_name_that_is_none_is_refused_before_anything_is_read(run, signed_in, rules, name):
    """In words that say what a name is, and nothing is sent."""
    ended = run("content", "import", name, str(rules))
    assert ended.code != 0
    assert "small letters" in ended.err
    assert signed_in.asked("POST /content") == []


def test_a_server_that_tells_no_room(run, signed_in, rules):
    """An older one: the list is shown all the same."""
    run("content", "import", "apt", str(rules))
    signed_in.tells_room = False
    ended = run("content", "list")
    assert ended.code == 0
    assert "at most" not in ended.out


def test_get(run, signed_in, rules, tmp_path, monkeypatch):
    """The newest version, or one that is named; by default called as the file in it; nothing is replaced."""
    run("content", "import", "apt", str(rules))
    (rules / "b.yar").write_bytes(GOOD)
    run("content", "import", "apt", str(rules))
    into = tmp_path / "out"
    assert run("content", "get", "apt", "-o", str(into), "--json").json["files"] == ["a.yar", "b.yar"]
    assert (into / "a.yar").read_bytes() == GOOD
    monkeypatch.chdir(tmp_path)
    assert "a.yar" in run("content", "get", "apt", "--version", "1").out
    assert (tmp_path / "a.yar").read_bytes() == GOOD
    again = run("content", "get", "apt", "--version", "1")
    assert again.code != 0
    assert "--output" in again.err


def test_prune(run, signed_in, rules, terminal):
    """Shows what would go and why the rest stays; asks; and deletes."""
    for text in (b"", b"// 2", b"// 3"):
        (rules / "a.yar").write_bytes(GOOD + text)
        run("content", "import", "apt", str(rules))
    shown = run("content", "prune", "--keep", "1", "--dry-run")
    assert "2 versions would be deleted" in shown.out
    assert "kept: one of the newest" in shown.out
    assert len(signed_in.content["apt"]) == 3
    terminal("n")
    assert run("content", "prune", "apt", "--keep", "1").code != 0
    assert len(signed_in.content["apt"]) == 3
    [done] = run("content", "prune", "apt", "--keep", "1", "--yes", "--json").json
    assert [one["version"] for one in done["removed"]] == [2, 1]
    assert len(signed_in.content["apt"]) == 1
    assert "nothing to delete" in run("content", "prune", "--keep", "1").out
