"""The threads of a scan: paused, given files that are open, and told what to leave out."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stanch.core.scan_wire import AT_SLOT, AT_SLOTS, looked_at
from stanch.worker.scan.crew import Crew, Gate, Slots
from stanch.worker.scan.telling import Telling, Wire
from stanch.worker.scan.walking import Batch, Given
from tests.worker.scan.driving import FIND_EVIL, scan, worker

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


THREADS = [{}, {"at": None}]
"""Processes look, or threads do."""


@pytest.mark.parametrize("more", THREADS)
def test_pause_and_resume(tmp_path: Path, more: dict[str, None]) -> None:
    """While it is paused nothing is looked at, and it says so."""
    put(tmp_path / "evil")
    with worker([("yara", "e", FIND_EVIL)], **more) as driver:
        driver.say(type="pause")
        driver.targets(tmp_path)
        driver.hear_until(lambda _: len([one for one in driver.done.advances if one["paused"]]) > 1)
        assert driver.done.advances[-1]["files"] == 0
        driver.say(type="resume")
        done = driver.finish()
    assert len(done.findings) == 1
    assert done.tally["paused_seconds"] > 0


@pytest.mark.parametrize("more", THREADS)
def test_files_that_are_handed_over_open(tmp_path: Path, more: dict[str, None]) -> None:
    """A program that runs and was deleted: no path leads there, its process is named."""
    evil = put(tmp_path / "gone")
    file = os.open(evil, os.O_RDONLY)
    evil.unlink()
    with worker([("yara", "e", FIND_EVIL)], hand=[file], **more) as driver:
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


# --- processes that look ---------------------------------------------------------------------------------------------


class Folder(Given):
    """Whose files have names."""

    def of(self, name: bytes) -> bytes:
        """As a folder has it."""
        return b"/" + name


@dataclass
class Report:
    """What came of the first of some names."""

    names: Sequence[bytes]
    done: int


class Process:
    """A process that looks at so many names at a time, and hangs, as the watcher sees it, when it is told to."""

    def __init__(self, at_once: int, at: Iterator[tuple[float, int | None] | None]) -> None:
        self.at_once = at_once
        self.ended = threading.Event()
        self.goes_on = threading.Event()
        self.begun = threading.Event()
        self._at = at

    def look(self, _: Given, names: Sequence[bytes], /) -> Report:
        """When it may."""
        self.begun.set()
        self.goes_on.wait()
        return Report(names[: self.at_once], min(self.at_once, len(names)))

    def at(self) -> tuple[float, int | None] | None:
        """As the test has it."""
        return next(self._at)

    def end(self) -> None:
        """No more come."""
        self.ended.set()


class Walks:
    """Walks over one batch."""

    found, hangs_since = 4, staticmethod(lambda: None)

    def __init__(self, put: Callable[[Batch], None]) -> None:
        self.put = put

    def run(self, _: threading.Event) -> bool:
        """At once."""
        self.put((Folder(-1, b"", b"", 0, 0), [b"a", b"b", b"c", b"d"]))
        return True


def crew_of(process: Process, looked: list[bytes]) -> tuple[Crew, Telling]:
    """With one process; threads that take its place look, too."""

    class Looks:
        def look(self, place: Given, name: bytes, /) -> None:
            looked.append(place.of(name))

        def flush(self) -> None:
            raise AssertionError

    def take(report: Report) -> None:
        looked.extend(b"/" + name for name in report.names)

    telling = Telling(Wire(os.open(os.devnull, os.O_WRONLY)), most_findings=10, most_rules=0)
    parts: dict[str, Any] = {
        "walker": Walks,
        "looker": lambda _: Looks(),
        "telling": telling,
        "gate": Gate(),
        "slots": Slots(None, lambda _: None),
        "processes": [process],
    }
    return Crew(threads=1, patience=30, take=take, **parts), telling


def always(at: tuple[float, int | None] | None) -> Iterator[tuple[float, int | None] | None]:
    """The same."""
    while True:
        yield at


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_what_a_process_leaves_of_a_batch_is_done_later(at_once: int) -> None:
    """Each file once, and then the process is told that no more come."""
    looked: list[bytes] = []
    process = Process(at_once, always(None))
    process.goes_on.set()
    crew, telling = crew_of(process, looked)
    crew.start()
    crew.wait()
    assert (sorted(looked), process.ended.is_set()) == ([b"/a", b"/b", b"/c", b"/d"], True)
    assert not telling.incomplete


@pytest.mark.parametrize(("at", "hangs"), [((1.0, 2), b"/c"), ((1.0, 0), b"/a")])
def test_what_a_process_has_not_reported_is_done_by_a_thread(at: tuple[float, int | None], hangs: bytes) -> None:
    """All but the file over which it hangs; what it says of them afterwards does not count."""
    looked: list[bytes] = []
    process = Process(4, always(at))
    crew, telling = crew_of(process, looked)
    crew.start()
    process.begun.wait()
    crew.wait()
    process.goes_on.set()
    assert sorted(looked) == sorted({b"/a", b"/b", b"/c", b"/d"} - {hangs})
    assert (telling.skipped, telling.incomplete) == ({"hangs": 1}, ["a file system does not answer"])


def test_a_process_that_gets_on_in_the_moment_in_which_it_would_be_given_up_is_not() -> None:
    """It was late when it was looked at, and is not when it is looked at again."""
    looked: list[bytes] = []
    seen = threading.Event()

    def at() -> Iterator[tuple[float, int | None] | None]:
        yield from ((1.0, 0), (1e12, 1))
        seen.set()
        yield from always((1e12, 1))

    process = Process(4, at())
    crew, telling = crew_of(process, looked)
    crew.start()
    process.begun.wait()
    threading.Thread(target=lambda: (seen.wait(), process.goes_on.set()), daemon=True).start()
    crew.wait()
    assert (sorted(looked), dict(telling.skipped)) == ([b"/a", b"/b", b"/c", b"/d"], {})
