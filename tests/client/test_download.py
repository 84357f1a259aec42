"""Evidence arrives whole and verified, or not at all."""

import fcntl
import os

import pytest

from stanch.core.errors import Conflict, Unavailable, VerificationFailed

CONTENT = os.urandom(300_000)


@pytest.fixture
def wanted(stub):
    return stub.add_evidence("evi_1", "/tmp/dropper", CONTENT)


def test_content_arrives_under_its_name_only(client, wanted, tmp_path):
    """The file holds the content, nobody else can read or run it, and nothing else is left."""
    client.download(wanted, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_empty_evidence_is_an_empty_file(client, stub, tmp_path):
    """Nothing needs to be asked for no bytes."""
    client.download(stub.add_evidence("evi_2", "/tmp/empty", b""), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("cut", [1, 1000, 299_999])
def test_a_cut_connection_is_resumed(client, stub, wanted, tmp_path, cut):
    """After a break only what is missing is asked for, and the whole is right."""
    stub.cut, seen = cut, []
    client.download(wanted, tmp_path / "out", progress=lambda done, total, /: seen.append((done, total)))
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_two_downloads_do_not_write_to_one_file(client, wanted, tmp_path):
    """The second one is told so, and the first one's bytes stay as they are."""
    part = tmp_path / "out.part"
    part.write_bytes(CONTENT[:100])
    with part.open("rb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="Another download"):
            client.download(wanted, tmp_path / "out")
    assert part.read_bytes() == CONTENT[:100]
    client.download(wanted, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_an_earlier_run_is_gone_on_with(client, stub, wanted, tmp_path):
    """What a killed run left is hashed, not fetched again."""
    (tmp_path / "out.part").write_bytes(CONTENT[:200_000])
    client.download(wanted, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert stub.headers[-1]["range"] == "bytes=200000-"


def test_an_earlier_run_that_is_too_long_is_thrown_away(client, wanted, tmp_path):
    """More bytes than there are cannot be of this evidence."""
    (tmp_path / "out.part").write_bytes(CONTENT + b"more")
    client.download(wanted, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_wrong_content_is_removed(client, stub, wanted, tmp_path):
    """Bytes with another hash never get the name, and do not spoil the next try."""
    stub.evidence["evi_1"] = (wanted, b"x" * len(CONTENT))
    with pytest.raises(VerificationFailed) as raised:
        client.download(wanted, tmp_path / "out")
    assert wanted.sha256 in raised.value.expected
    assert not list(tmp_path.iterdir())


def test_more_than_there_is_is_refused(client, stub, wanted, tmp_path):
    """A server cannot fill the disk."""
    stub.evidence["evi_1"] = (wanted, CONTENT + b"more")
    with pytest.raises(VerificationFailed, match="more than there is"):
        client.download(wanted, tmp_path / "out")


def test_a_server_that_ignores_the_range_is_found_out(client, stub, wanted, tmp_path):
    """The whole instead of the rest is not appended to what is there."""
    (tmp_path / "out.part").write_bytes(CONTENT[:100])
    stub.raw["GET /evidence/evi_1/content"] = (200, CONTENT)
    with pytest.raises(VerificationFailed, match="resume"):
        client.download(wanted, tmp_path / "out")


def test_a_server_that_sends_nothing_is_given_up(client, stub, wanted, tmp_path, naps):
    """Empty answers do not go on for ever."""
    stub.raw["GET /evidence/evi_1/content"] = (200, b"")
    with pytest.raises(Unavailable):
        client.download(wanted, tmp_path / "out")
    assert len(naps) == 9


def test_incomplete_evidence_is_not_fetched(client, stub, tmp_path):
    """What has not arrived at the server cannot be verified."""
    with pytest.raises(Conflict, match="complete"):
        client.download(stub.add_evidence("evi_3", "/tmp/x", b"x", complete=False), tmp_path / "out")


def test_an_existing_file_is_never_replaced(client, wanted, tmp_path):
    """Neither a file nor a link at the target is touched."""
    (tmp_path / "out").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        with pytest.raises(Conflict, match="exists"):
            client.download(wanted, tmp_path / name)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_link_in_place_of_the_partial_file_is_not_followed(client, wanted, tmp_path):
    """Nobody can make us write through a link in a shared folder."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out.part").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        client.download(wanted, tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "mine"
