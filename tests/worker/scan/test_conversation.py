"""The conversation: nonsense ends it with an error, and so does an agent that is gone."""

import os
from pathlib import Path

import pytest

from stanch.worker.scan.conversation import Inbox
from tests.worker.scan.driving import FIND_EVIL, worker

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_hint_that_is_none_ends_the_scan() -> None:
    """With an error that says so."""
    with worker([], hint="(") as driver:
        assert "no regular expression" in driver.done.error


def test_it_ends_when_the_agent_is_gone() -> None:
    """Its input ends: nobody is left to tell anything."""
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        assert driver.process.stdin is not None
        driver.process.stdin.close()
        assert driver.process.wait(timeout=30) == 3


def test_nonsense_ends_the_scan_and_is_told() -> None:
    """A message that nobody knows: the tally says that it is not complete."""
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        driver.say(type="dance")
        done = driver.finish()
    assert not done.tally["complete"]
    assert "did not understand" in done.tally["why_incomplete"]


def test_lines_and_bytes_come_in_any_pieces() -> None:
    """A line may be torn anywhere; bytes may be missing."""
    reading, writing = os.pipe()
    inbox = Inbox(reading)
    os.write(writing, b'{"a":1}\n12345{"b"')
    assert inbox.message() == {"a": 1}
    assert inbox.content(5) == b"12345"
    os.write(writing, b":2}\n12")
    os.close(writing)
    assert inbox.message() == {"b": 2}
    with pytest.raises(ValueError, match="missing"):
        inbox.content(3)
