"""Evidence on the command line."""

import hashlib

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
