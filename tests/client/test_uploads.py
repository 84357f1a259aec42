"""Files on their way to the server: hashed, sent once, checked."""

import hashlib
import os
from pathlib import Path

import pytest

from stanch.client.uploads import CHUNK, NOT_UPLOADED, described, name_of
from stanch.core.errors import Conflict, Invalid, NotFound, StanchError, TooLarge, Unavailable, VerificationFailed
from stanch.core.types import Upload

CONTENT = bytes(range(256)) * 3000


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tool.sh"
    path.write_bytes(CONTENT)
    return path


def test_a_file_arrives(client, stub, file):
    """The answer is what an order names; the server was told what to expect, and people how far it is."""
    seen = []
    made = client.upload(file, progress=lambda done, total, /: seen.append((done, total)))
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert made == Upload(id="upl_1", name="tool.sh", size=len(CONTENT), sha256=digest)
    assert stub.asked("POST /uploads") == [{"name": "tool.sh", "sha256": digest}]
    assert stub.headers[-1]["content-length"] == str(len(CONTENT))
    assert seen == [(min(n + CHUNK, len(CONTENT)), len(CONTENT)) for n in range(0, len(CONTENT), CHUNK)]


def test_what_is_there_is_not_sent_again(client, stub, file):
    """The same content under the same name."""
    first = client.upload(file)
    assert client.upload(file) == first
    assert len(stub.asked("POST /uploads")) == 1
    other = file.rename(file.with_name("other"))
    assert client.upload(other).id != first.id


def test_an_empty_file(client, tmp_path):
    """Has no bytes, and a hash all the same."""
    (tmp_path / "empty").touch()
    assert client.upload(tmp_path / "empty").size == 0


def test_what_the_server_does_not_take_is_not_sent(client, stub, file):
    """It says how large a file may be before anything is sent."""
    stub.max_upload = len(CONTENT) - 1
    with pytest.raises(TooLarge):
        client.upload(file)
    assert stub.asked("POST /uploads") == []


def test_a_file_that_is_larger_than_it_says(client, stub):
    """Such as those of /proc, whose size is 0: no half of it, nor an empty file, is uploaded in its place."""
    with pytest.raises(Conflict, match="larger than it says"):
        client.upload(Path("/proc/self/stat"))
    assert not stub.requests


def test_another_hash_in_the_answer_is_refused(client, stub, file):
    """What the server kept is not what was sent."""
    stub.damaged = True
    with pytest.raises(VerificationFailed):
        client.upload(file)


def test_a_file_that_shrinks_meanwhile(client, file):
    """It is not padded, and no half of it is kept."""

    def cut(done: int, _total: int, /) -> None:
        if done == CHUNK:
            os.truncate(file, CHUNK)

    with pytest.raises(Conflict, match="changed while"):
        client.upload(file, progress=cut)


def test_a_foreign_answer_is_not_believed(client, stub, file):
    """A list that is none."""
    stub.raw["GET /uploads"] = (200, b"[]")
    with pytest.raises(Unavailable, match="understood"):
        client.upload(file)


@pytest.mark.parametrize(("make", "error"), [(None, NotFound), (os.mkfifo, Invalid), (os.mkdir, Invalid)])
def test_what_is_no_file_is_refused(client, stub, tmp_path, make, error: type[StanchError]):
    """At once: nobody waits for the other end of a pipe."""
    if make is not None:
        make(tmp_path / "odd")
    with pytest.raises(error):
        client.upload(tmp_path / "odd")
    assert not stub.requests


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"a\xffb", r"a\xffb"),
        (b"a\nb\x1b", r"a\x0ab\x1b"),
        (b"x" * 255, "x" * 255),
        (b"\xff" * 255, (r"\xff" * 255)[-255:]),
    ],
)
def test_odd_names_are_written_so_that_the_server_takes_them(raw, name):
    """Bytes that are no text, and characters that no terminal should get."""
    assert name_of(Path(os.fsdecode(b"/tmp/" + raw))) == name


def test_a_file_may_be_described_without_a_server(client, stub, file):
    """As its upload would be, but for the identifier; nothing is sent."""
    found = described(file)
    assert stub.requests == []
    assert found.id == NOT_UPLOADED
    assert client.upload(file).model_copy(update={"id": NOT_UPLOADED}) == found


def test_uploads_are_listed_and_deleted(client, stub, file):
    """With who brought them."""
    made = client.upload(file)
    assert [(one.id, one.by) for one in client.uploads(mine=True)] == [(made.id, "alice")]
    assert stub.asked("GET /uploads")[-1]["mine"] == "true"
    client.delete_upload(made.id)
    assert list(client.uploads()) == []
