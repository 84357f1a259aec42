"""Evidence on the command line."""

import hashlib
from pathlib import Path

import pytest

from stanch.cli.evidence import safe_name

CONTENT = b"malware" * 1000


@pytest.fixture
def evidence(signed_in):
    return signed_in.add_evidence("evi_1", "/tmp/dropper", CONTENT)


def test_evidence_is_listed(run, evidence):
    """One line for each, with size and state."""
    ended = run("evidence", "list", "--order", "ord_1")
    for text in ("evi_1", "/tmp/dropper", "6.8 KiB", "complete"):
        assert text in ended.out


def test_evidence_is_fetched_into_this_folder(run, evidence, tmp_path):
    """Without a name it is called after its id and what it was called there; it cannot be run."""
    ended = run("evidence", "get", "evi_1")
    assert ended.code == 0, ended.err
    file = tmp_path / "evi_1-dropper"
    assert file.read_bytes() == CONTENT
    assert file.stat().st_mode & 0o777 == 0o600


def test_evidence_is_fetched_as_json(run, evidence, tmp_path):
    """A program learns the file and its hash."""
    ended = run("evidence", "get", "evi_1", "--output", str(tmp_path / "out"), "--json")
    assert ended.json["file"] == str(tmp_path / "out")
    assert ended.json["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_not_replaced(run, evidence, tmp_path):
    """A second fetch to the same name is a conflict."""
    assert run("evidence", "get", "evi_1").code == 0
    assert run("evidence", "get", "evi_1").code == 6


def test_evidence_is_verified(run, evidence, tmp_path):
    """A file that is the evidence passes, any other does not."""
    (tmp_path / "good").write_bytes(CONTENT)
    (tmp_path / "bad").write_bytes(CONTENT[:-1])
    assert run("evidence", "verify", "evi_1", "good", "--json").json["verified"] is True
    ended = run("evidence", "verify", "evi_1", "bad")
    assert ended.code == 7
    assert evidence.sha256 in ended.err


def test_incomplete_evidence_verifies_nothing(run, signed_in, tmp_path):
    """What the server does not have whole has no hash to compare with."""
    signed_in.add_evidence("evi_2", "/x", b"x", complete=False)
    (tmp_path / "x").write_bytes(b"x")
    assert run("evidence", "verify", "evi_2", "x").code == 6
    assert run("evidence", "get", "evi_2").code == 6


def test_a_folder_that_cannot_be_written_is_told(run, evidence):
    """An error of this machine is one line too."""
    ended = run("evidence", "get", "evi_1", "--output", "/nonexistent/folder/file")
    assert ended.code == 11
    assert "/nonexistent/folder" in ended.err


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../../.bashrc", "/", "", "..", "-rf", "a\x1b[31mb", "a\nb", "é" * 300, "x/.ssh", "\x00", "a b;rm"],
)
def test_no_name_from_an_endpoint_leaves_the_folder(signed_in, name):
    """The endpoint chooses no path, no hidden file, no option and no escape sequence."""
    made = safe_name(signed_in.add_evidence("evi_1", name, b""))
    assert made.startswith("evi_1")
    assert all(one.isascii() and (one.isalnum() or one in "._-") for one in made)
    assert len(made) <= 130


def test_evidence_is_listed_by_endpoint_and_time(run, signed_in, evidence):
    """What is asked for is asked of the server, with a date as the start of its day."""
    assert run("evidence", "list", "--endpoint", "web-01", "--since", "2026-11-24").code == 0
    asked = signed_in.asked("GET /evidence")[-1]
    assert (asked["endpoint"], asked["since"]) == ("web-01", "2026-11-24T00:00:00+00:00")
    assert run("evidence", "list", "--since", "yesterday").code == 2


def test_the_server_verifies_what_it_keeps(run, signed_in, evidence):
    """Without a file, the server reads its own copy; one that is not whole fails as a file does."""
    ended = run("evidence", "verify", "evi_1")
    assert ended.code == 0
    assert evidence.sha256 in ended.out
    assert run("evidence", "verify", "evi_1", "--json").json["intact"] is True
    signed_in.evidence["evi_1"] = (evidence, b"something else")
    ended = run("evidence", "verify", "evi_1")
    assert ended.code == 7
    assert "another one" in ended.err
    assert run("evidence", "verify", "evi_1", "--json").code == 7


def test_evidence_is_looked_into(run, evidence):
    """As text by itself, as bytes on demand, as JSON for programs."""
    ended = run("evidence", "preview", "evi_1")
    assert "malwaremalware" in ended.out
    ended = run("evidence", "preview", "evi_1", "--as", "hex", "--offset", "7", "--length", "9")
    assert "00000007  6d 61 6c 77 61 72 65 6d  61                       |malwarema|" in ended.out
    assert run("evidence", "preview", "evi_1", "--as", "strings", "--json").json["kind"] == "strings"
    assert run("evidence", "preview", "evi_1", "--as", "magic").code == 2


def test_evidence_is_deleted_for_a_reason(run, signed_in, evidence):
    """Its hash stays, and who deleted it; without a reason nothing happens."""
    assert run("evidence", "delete", "evi_1", "--yes").code == 2
    ended = run("evidence", "delete", "evi_1", "--reason", "case closed")
    assert ended.code == 0, ended.err
    assert evidence.sha256 in ended.out
    ended = run("evidence", "list", "--deleted")
    assert "case closed" in ended.out
    assert "evi_1" not in run("evidence", "list").out
    assert run("evidence", "get", "evi_1", "--output", "gone").code == 5
    assert not list(Path().glob("gone*"))


def test_one_that_cannot_be_deleted_does_not_keep_the_others(run, signed_in, evidence):
    """Each is told by itself; the exit code is of the worst."""
    signed_in.add_evidence("evi_2", "/x", b"x")
    ended = run("evidence", "delete", "evi_1", "evi_none", "evi_2", "--reason", "test", "--yes", "--json")
    assert ended.code == 5
    assert [one["id"] for one in ended.json["deleted"]] == ["evi_1", "evi_2"]
    assert [(one["evidence"], one["error"]["code"]) for one in ended.json["failed"]] == [("evi_none", "not-found")]
    ended = run("evidence", "delete", "evi_none", "evi_2", "--reason", "test")
    assert (ended.code, "evi_none was not deleted" in ended.out) == (5, True)
    assert run("evidence", "delete", "evi_none", "--reason", "test").code == 5


def test_who_sits_at_a_terminal_is_asked(run, terminal, evidence, signed_in):
    """A no deletes nothing."""
    terminal("n")
    assert run("evidence", "delete", "evi_1", "--reason", "test").code == 10
    assert signed_in.evidence["evi_1"][0].deleted is None


def test_damaged_evidence_is_shown_as_such(run, signed_in, evidence):
    """What the last verification found stands in the list."""
    signed_in.evidence["evi_1"] = (evidence.model_copy(update={"damage": "it is not what was sent"}), CONTENT)
    assert "damaged" in run("evidence", "list").out
