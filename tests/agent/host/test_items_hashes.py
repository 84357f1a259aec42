"""Are the right contents hashed, each once, and nothing that is not to be opened?"""

import hashlib
import os
import threading

import pytest

from stanch.agent.host import items_hashes
from stanch.agent.host.items_hashes import Hashes, kinds_of

ALL = ("Md5sum", "Sha1sum", "Sha256sum")


@pytest.fixture
def folder(tmp_path):
    """A folder to look into, by its descriptor."""
    made = os.open(tmp_path, os.O_RDONLY)
    yield made
    os.close(made)


@pytest.fixture
def hashes():
    """Hashes of one question."""
    return Hashes(threading.Event())


def nothing() -> None:
    """No sign is needed."""


def test_a_content_is_hashed_once(tmp_path, folder, hashes):
    """Three kinds at a time, and no second reading for the same content."""
    raw = os.urandom(700_000)
    (tmp_path / "a").write_bytes(raw)
    signs = []
    first = hashes.of("a", folder, ALL, lambda: signs.append(1))
    assert first == {
        "Md5sum": hashlib.md5(raw, usedforsecurity=False).hexdigest(),
        "Sha1sum": hashlib.sha1(raw, usedforsecurity=False).hexdigest(),
        "Sha256sum": hashlib.sha256(raw).hexdigest(),
    }
    assert signs
    os.link(tmp_path / "a", tmp_path / "b")  # changes its times, so it is another content to us
    again = hashes.of("b", folder, ALL, nothing)
    signs.clear()
    assert hashes.of("a", folder, ALL, lambda: signs.append(1)) == again == first
    assert not signs


def test_what_is_no_regular_file_is_not_opened(tmp_path, folder, hashes):
    """A pipe would make us wait, a device would do something."""
    os.mkfifo(tmp_path / "pipe")
    assert hashes.of("pipe", folder, ALL, nothing) == {}
    assert hashes.of(".", folder, ALL, nothing) == {}


def test_what_is_too_large_is_not_hashed(tmp_path, folder, hashes, monkeypatch):
    """One file, and all of them together, have their bounds."""
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "b").write_bytes(b"y" * 100)
    assert hashes.of("a", folder, ALL, nothing, most=99) == {}
    monkeypatch.setattr(items_hashes, "MAX_ALL", 150)
    few = Hashes(threading.Event())
    assert few.of("a", folder, ALL, nothing)
    assert few.of("b", folder, ALL, nothing) == {}


def test_what_changes_while_it_is_read_has_no_hash(tmp_path, folder, hashes):
    """Neither the old content nor the new one was read whole."""
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert hashes.of("a", folder, ALL, lambda: (tmp_path / "a").write_bytes(b"y" * 999)) == {}
    assert hashes.of("a", folder, ALL, nothing)["Md5sum"] == hashlib.md5(b"y" * 999, usedforsecurity=False).hexdigest()


def test_it_ends_when_it_is_told_to(tmp_path, folder):
    """Half a content has no hash."""
    stop = threading.Event()
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    assert Hashes(stop).of("a", folder, ALL, stop.set) == {}


def test_what_is_not_there_is_an_error(folder, hashes):
    """Who asks knows that it could not be read."""
    with pytest.raises(OSError, match="No such file"):
        hashes.of("a", folder, ALL, nothing)


def test_only_wanted_kinds_are_taken():
    """By where they are asked for."""
    assert kinds_of("X/", frozenset({"X/Sha1sum", "Md5sum", "X/Name"})) == ("Sha1sum",)
