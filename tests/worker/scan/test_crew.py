"""The threads of a scan: paused, given files that are open, and told what to leave out."""

import os
from pathlib import Path

from stanch.core.scan_wire import AT_SLOT, AT_SLOTS, looked_at
from stanch.worker.scan.crew import Gate, Slots
from tests.worker.scan.driving import FIND_EVIL, scan, worker

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_pause_and_resume(tmp_path: Path) -> None:
    """While it is paused nothing is looked at, and it says so."""
    put(tmp_path / "evil")
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        driver.say(type="pause")
        driver.targets(tmp_path)
        driver.hear_until(lambda _: len([one for one in driver.done.advances if one["paused"]]) > 1)
        assert driver.done.advances[-1]["files"] == 0
        driver.say(type="resume")
        done = driver.finish()
    assert len(done.findings) == 1
    assert done.tally["paused_seconds"] > 0


def test_files_that_are_handed_over_open(tmp_path: Path) -> None:
    """A program that runs and was deleted: no path leads there, its process is named."""
    evil = put(tmp_path / "gone")
    file = os.open(evil, os.O_RDONLY)
    evil.unlink()
    with worker([("yara", "e", FIND_EVIL)], hand=[file]) as driver:
        os.close(file)
        given = {"fd": file, "name": "gone (deleted)", "path": "", "pid": 7, "started": 9}
        driver.say(type="opened", files=[given])
        done = driver.finish()
    (about,) = done.findings[0]["objects"]
    assert (about["name"], about["pid"], about["started"]) == ("gone (deleted)", 7, 9)
    assert "path" not in about


def test_what_killed_an_earlier_worker_is_left_out(tmp_path: Path) -> None:
    """Without a word: the agent has told it."""
    put(tmp_path / "killer")
    evil = put(tmp_path / "evil")
    done = scan(tmp_path, skip=[str(tmp_path / "killer")])
    assert (done.found, done.skips) == ({("Evil", str(evil))}, [])


def test_a_gate_counts_how_long_it_was_shut() -> None:
    """Only while it is; shut twice is shut once."""
    gate = Gate()
    assert (gate.shut, gate.waited()) == (False, 0)
    gate.pause()
    gate.pause()
    assert gate.shut
    gate.resume()
    assert gate.waited() == gate.waited() > 0
    gate.through()


def test_each_thread_tells_what_it_is_at() -> None:
    """In its slot, cut where the slot ends, and nothing once it is done."""
    memory = bytearray(AT_SLOT * AT_SLOTS)
    slots = Slots(memoryview(memory), lambda _: None)
    slots.at(0, b"/a/\xff")
    slots.at(3, b"x" * 10_000)
    slots.at(AT_SLOTS, b"no room")
    assert looked_at(bytes(memory)) == ["/a/\udcff", "x" * (AT_SLOT - 2)]
    slots.at(0, b"")
    slots.at(3, b"")
    assert looked_at(bytes(memory)) == []


def test_without_shared_memory_messages_tell_it() -> None:
    """One before each object."""
    told: list[list[str]] = []
    slots = Slots(None, lambda names: told.append(list(names)))
    slots.at(0, b"/a")
    slots.at(1, b"/b")
    slots.at(0, b"")
    assert told == [["/a"], ["/a", "/b"]]
